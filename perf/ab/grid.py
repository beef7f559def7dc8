"""A grid of bad wires, three ways to cross it: the kernel at both ends, a server on the stack, a client on the stack; in turn, round by
round. Goodput of downloads, and how long 64 KB take."""

import argparse
import fnmatch
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

from arguments import number  # noqa: E402
from bad_wire import BIG, BadWire, finish, start_download  # noqa: E402
from grid_report import WAYS, draw_grid, judge, print_grid  # noqa: E402
from loads import Bench, Row, Sample  # noqa: E402
from report import write_json  # noqa: E402
from side import Side  # noqa: E402
from sides import choose_cpus  # noqa: E402
from system import BenchmarkError, run_orderly, temporary_directory, warn_if_busy  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
AMOUNT = 64 << 10                      # of a short transfer
AT_ONCE = 32                           # of those


@dataclass(frozen=True)
class Cell:
    """One wire and what is done over it."""

    key: str
    title: str
    kind: str            # goodput (Mbit/s of all downloads) | short (ms, the 99th percentile) | share (percent of a bottleneck)
    faults: tuple
    flows: int = 1
    control: str = "cubic"
    in_grid: bool = False

    def row(self):
        kind = {"goodput": "wire", "share": "share", "short": "http"}[self.kind]
        return Row(self.key, self.title, kind, AT_ONCE, size=AMOUNT, faults=self.faults, control=self.control)


def flows_of(loss, round_trip):
    """As many downloads at once as Reno's formula says that some 100 Mbit/s need: the more, the less one of them counts."""
    one = 1448 * 8 / (round_trip * 1e-3) * 1.22 / (loss / 100) ** 0.5 / 1e6
    return max(1, min(16, round(100 / one)))


def all_cells():
    """The grid, and what is beside it. Delays are one way: half of the round trip."""
    cells = []
    for kind in ("goodput", "short"):
        for loss in (0.1, 1, 3, 5):
            for round_trip in (1, 20, 100):
                faults = (f"loss={loss}%", f"delay={round_trip * 500}us")
                cells.append(Cell(f"{kind}-{loss}-{round_trip}", f"{loss} % loss, {round_trip} ms", kind, faults,
                                  flows_of(loss, round_trip), in_grid=True))
    for round_trip in (1, 20):
        cells.append(Cell(f"reorder-{round_trip}", f"5 % reordered, {round_trip} ms", "goodput", ("reorder=5%", f"delay={round_trip * 500}us")))
    bottleneck = ("rate=100M", "delay=10ms")
    cells.append(Cell("bbr-1-20", "BBR: 100 Mbit/s, 1 % loss, 20 ms", "goodput", (*bottleneck, "queue=400", "loss=1%"), control="bbr"))
    cells.append(Cell("share", "100 Mbit/s, 20 ms, beside a kernel flow", "share", (*bottleneck, "queue=200")))
    cells.append(Cell("share-bbr", "the same, both with BBR", "share", (*bottleneck, "queue=400"), control="bbr"))
    return cells


class Ways:
    """BadWire's sides, and a client on the stack beside the kernel's."""

    def __init__(self, wire, shim, directory):
        self.wire = wire
        kernel, ours = wire.sides["kernel"], wire.sides["veth"]
        wire.add_client_side("client", shim, directory / "bad-wire-client.toml")
        self.sides = {"kernel": kernel, "server": ours, "client": wire.sides["client"]}

    def forget(self):
        """What the kernels remember of each other from another cell."""
        for space in {side.server_namespace.name: side.server_namespace for side in self.sides.values()}.values():
            space.run("ip", "tcp_metrics", "flush")
        self.wire.client.run("ip", "tcp_metrics", "flush")


def measure(bench, ways, cell, way, seconds):
    """A Sample; its rate is Mbit/s, percent, or milliseconds."""
    row, side, sample = cell.row(), ways.sides[way], Sample()
    ways.forget()
    bench.bad_wire.choose_control(cell.control)
    if cell.kind == "share":
        bench.bad_wire.measure(bench, row, side.name, seconds, sample)
        return sample
    wire = bench.bad_wire.start_wire(row)
    server = bench.start_server(row, side)
    try:
        if problem := bench.check_content(row, side):
            sample.errors.append(problem)
        elif cell.kind == "short":
            bench.load(row, side, seconds, server, sample)
            sample.rate = sample.p99_us / 1000
        else:
            download = start_download(side, seconds, cell.flows)
            sample.rate = finish(download, seconds, sample) * 8 / 1e6
        if not server.running():
            sample.errors.append("the server ended by itself")
    finally:
        server.stop()
        wire.stop()
    return sample


def parse_arguments():
    parser = argparse.ArgumentParser(prog="perf/loss", description=__doc__)
    parser.add_argument("--cells", default="*", help="patterns of some: " + ",".join(cell.key for cell in all_cells()))
    parser.add_argument("--ways", default=",".join(WAYS), help="some of: %(default)s")
    parser.add_argument("--rounds", type=number(1), default=3)
    parser.add_argument("--seconds", type=number(1), default=10, help="of each measurement")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--out", type=Path, default=ROOT / "perf/out", help="where loss.json and loss.svg go")
    parser.add_argument("--draw", nargs="+", type=Path, metavar="JSON", help="measure nothing: table and plot of what was measured, maybe in several parts")
    parser.add_argument("--realtime", action="store_true", help="give everything real-time priority: for a machine that is not idle; with two processors it may hang")
    arguments = parser.parse_args()
    patterns = arguments.cells.split(",")
    arguments.cells = [cell for cell in all_cells() if any(fnmatch.fnmatch(cell.key, pattern) for pattern in patterns)]
    arguments.ways = arguments.ways.split(",")
    if not arguments.cells or not set(arguments.ways) <= set(WAYS):
        parser.error("no such cell or way")
    return arguments


def measure_all(arguments, bench, ways):
    """{(key, way): [Sample]}"""
    samples = {}
    for turn in range(1, arguments.rounds + 1):
        for cell in arguments.cells:
            # A share is asked of servers: a client's would be one of two of the kernel's.
            for way in (way for way in arguments.ways if (cell.kind, way) != ("share", "client")):
                sample = measure(bench, ways, cell, way, arguments.seconds)
                samples.setdefault((cell.key, way), []).append(sample)
                told = f"VOID: {'; '.join(sample.errors)}" if sample.errors else f"{sample.rate:10.2f}"
                print(f"[{time.strftime('%H:%M:%S')}] {turn}/{arguments.rounds} {cell.key:18} {way:7} {told}", flush=True)
        write_json(arguments.out / "loss.json", judge(arguments.cells, samples), {"rounds": turn, "seconds": arguments.seconds})
    return samples


def draw_measured(arguments):
    found = {row["key"]: row for path in arguments.draw for row in json.loads(path.read_text())["rows"]}
    table = [found[cell.key] for cell in all_cells() if cell.key in found]
    voids = print_grid(table)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw_grid(table, arguments.out / "loss.svg")
    return 1 if voids else 0


def run(arguments, cleanup):
    if arguments.draw:
        return draw_measured(arguments)
    if os.geteuid() != 0:
        raise BenchmarkError("network namespaces need root")
    cpus = choose_cpus()
    shim = (arguments.build / "preload/libmtcp_shim.so").resolve()
    if cpus is None or not shim.exists():
        raise BenchmarkError("two processors and a build are needed")
    warn_if_busy(os.getloadavg()[0])
    Side.realtime = arguments.realtime
    directory = temporary_directory(cleanup)
    bench = Bench(directory, arguments.build.resolve(), cleanup)
    bench.add_file(AMOUNT)
    bench.bad_wire = BadWire(f"lg{os.getpid()}", cpus, cleanup, shim, directory, arguments.build.resolve())
    table = judge(arguments.cells, measure_all(arguments, bench, Ways(bench.bad_wire, shim, directory)))
    voids = print_grid(table)
    draw_grid(table, arguments.out / "loss.svg")
    return 1 if voids else 0


if __name__ == "__main__":
    sys.exit(run_orderly("perf/loss", run, parse_arguments()))
