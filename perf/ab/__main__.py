"""Compares unmodified nginx, wrk and a message benchmark on the kernel's TCP and on mtcp, in interleaved rounds."""

import argparse
import fnmatch
import os
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

import against  # noqa: E402
from arguments import number  # noqa: E402
from bad_wire import BadWire  # noqa: E402
from loads import QUICK_ROWS, Bench, all_rows  # noqa: E402
from plot import draw  # noqa: E402
from report import UNITS, evaluate, human_time, print_table, write_json  # noqa: E402
from side import Side  # noqa: E402
from sides import KERNEL_SIDES, SIDES, choose_cpus, want_shim  # noqa: E402
from system import (BenchmarkError, INTERRUPTED, kernel_tuning, reserve_huge_pages, run_orderly, temporary_directory,  # noqa: E402
                    warn_if_busy)

ROOT = Path(__file__).resolve().parent.parent.parent


def two_processors(text):
    """`--cpus 0,1`: two processors that this process may use, and not the same."""
    words = text.split(",")
    cpus = tuple(int(word) for word in words if word.strip().isdecimal())
    allowed = os.sched_getaffinity(0)
    if len(words) != 2 or len(set(cpus)) != 2 or not set(cpus) <= allowed:
        raise argparse.ArgumentTypeError(f"{text!r} is not two of the processors {','.join(map(str, sorted(allowed)))}")
    return cpus


def parse_arguments():
    keys = [row.key for row in all_rows()]
    parser = argparse.ArgumentParser(prog="scripts/ab", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds: under two minutes")
    parser.add_argument("--against", metavar="REVISION",
                        help="compare this tree with another revision of it, and not with the kernel: builds both; default: 7 rounds of 2 s, no loss-* rows")
    parser.add_argument("--rounds", type=number(1), help="default: 5 (quick: 2)")
    parser.add_argument("--seconds", type=number(1), help="of load for each measurement, whole ones (default: 3; quick: 2)")
    parser.add_argument("--rows", help="some of these, which may be patterns (default: all but loss-*): "
                        f"{','.join(keys)}".replace("%", "%%"))
    parser.add_argument("--sides", help=f"some of {','.join(SIDES)}; the best of the kernel's is what the others are compared with "
                        "(default: kernel,loopback,memif,veth; quick: without loopback)")
    parser.add_argument("--workers", type=number(1, 16), default=1,
                        help="nginx workers, and as many clients: several share both processors; no message rows (default: 1)")
    parser.add_argument("--cpus", type=two_processors, metavar="SERVER,CLIENT", help="two processors, server's first (default: the first two cores)")
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="build directory (default: build/)")
    parser.add_argument("--out", type=Path, default=ROOT / "perf/out", help="where ab.json and ab.svg go (default: perf/out/)")
    parser.add_argument("--no-huge-pages", action="store_true", help="do not reserve huge pages for the time of the run")
    parser.add_argument("--realtime", action="store_true",
                        help="give server and client real-time priority: for a machine that is not idle")
    arguments = parser.parse_args()
    usual = [row.key for row in all_rows() if not row.on_bad_wire]
    patterns = arguments.rows.split(",") if arguments.rows else list(QUICK_ROWS) if arguments.quick else usual
    if unknown := {pattern for pattern in patterns if not fnmatch.filter(keys, pattern)}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    wanted = {key for pattern in patterns for key in fnmatch.filter(keys, pattern)}
    arguments.rows = [row for row in all_rows() if row.key in wanted and (arguments.workers == 1 or row.kind == "http")]
    if not arguments.rows:
        parser.error("with more than one worker there are nginx's rows only")
    arguments.sides = (arguments.sides or ("kernel,memif,veth" if arguments.quick else "kernel,loopback,memif,veth")).split(",")
    if unknown := set(arguments.sides) - set(SIDES):
        parser.error(f"no such side: {', '.join(sorted(unknown))}")
    if arguments.against:
        arguments.sides = [side for side in arguments.sides if side not in KERNEL_SIDES]
        if not arguments.sides:
            parser.error("--against is about our own sides")
        arguments.rounds = arguments.rounds or 7
        arguments.seconds = arguments.seconds or 2
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 5)
    arguments.seconds = arguments.seconds or (2 if arguments.quick else 3)
    return arguments


def check_environment(arguments):
    if os.geteuid() != 0:
        raise BenchmarkError("network namespaces need root: run scripts/ab as root")
    for program in ("ip", "nginx", "wrk", "curl", "taskset", "ethtool"):
        if not shutil.which(program):
            raise BenchmarkError(f"{program} is not installed: run scripts/setup")
    cpus = arguments.cpus or choose_cpus()
    if cpus is None:
        raise BenchmarkError("server and client need a processor each; there is only one")
    shim = arguments.build / "preload/libmtcp_shim.so"
    if want_shim(arguments.sides) and not shim.exists():
        raise BenchmarkError(f"{shim} is missing: build first, or measure the kernel only with --sides kernel")
    return cpus, shim.resolve()


def progress(round_number, rounds, row, side, sample, which=""):
    state = f"VOID: {'; '.join(sample.errors)}" if sample.errors else f"{sample.rate:>9,.1f}{UNITS[row.kind]}" if row.kind in UNITS else (
        f"{sample.rate:>9,.0f}/s  p50 {human_time(sample.p50_us):>8}  p99 {human_time(sample.p99_us):>8}")
    print(f"[{time.strftime('%H:%M:%S')}] round {round_number}/{rounds}  {row.key:13} {side.name:7} {f'{which:7}' if which else ''}{state}", flush=True)


def huge_pages(arguments, cleanup):
    """Megabytes of them."""
    return 0 if arguments.no_huge_pages or not want_shim(arguments.sides) else reserve_huge_pages(cleanup, 1024)


def equip(arguments, cleanup, tag, cpus, shim):
    """(sides, bench) of one shim. The load programs are always this tree's."""
    directory, build = temporary_directory(cleanup), arguments.build.resolve()
    Side.realtime, Side.workers = arguments.realtime, arguments.workers
    sides = [SIDES[name](tag, cpus, cleanup, shim, directory) for name in arguments.sides]
    bench = Bench(directory, build, cleanup)
    if any(row.on_bad_wire for row in arguments.rows):
        bench.bad_wire = BadWire(tag, cpus, cleanup, shim, directory, build)
    return sides, bench


def settings_of(arguments, cpus, huge):
    return {"rounds": arguments.rounds, "seconds": arguments.seconds, "workers": arguments.workers, "cpus": cpus, "huge_pages_mb": huge,
            "realtime": arguments.realtime, "kernel_tuning": kernel_tuning(), "load_average_before": os.getloadavg()[0],
            "time": time.strftime("%Y-%m-%d %H:%M:%S")}


def run_against(arguments, cleanup):
    cpus, shim = check_environment(arguments)
    commit, build = against.build_revision(ROOT, arguments.against, arguments.build.resolve(), arguments.out.resolve())
    huge = huge_pages(arguments, cleanup)
    both = [equip(arguments, cleanup, f"ab{os.getpid()}{mark}", cpus, library)
            for mark, library in (("o", build / "preload/libmtcp_shim.so"), ("n", shim))]
    sides, benches = zip(*both)
    settings = against.describe(ROOT, arguments.against, commit) | settings_of(arguments, cpus, huge)
    print(f"before: {arguments.against} ({commit[:12]}); {arguments.rounds} rounds of {arguments.seconds} s")
    warn_if_busy(settings["load_average_before"])
    samples = against.measure(arguments.rows, list(zip(*sides)), benches, arguments.rounds, arguments.seconds, progress)
    judgements = against.judge_all(arguments.rows, samples)
    write_json(arguments.out / "against.json", against.table_of(judgements), settings)
    bad = against.print_judgements(judgements)
    print(f"written: {arguments.out / 'against.json'}")
    against.print_instructions(ROOT, build, arguments.build)
    return 1 if bad else 0


def run(arguments, cleanup):
    if arguments.against:
        return run_against(arguments, cleanup)
    cpus, shim = check_environment(arguments)
    huge = huge_pages(arguments, cleanup)
    sides, bench = equip(arguments, cleanup, f"ab{os.getpid()}", cpus, shim)
    settings = settings_of(arguments, cpus, huge)
    where = f"server on processor {cpus[0]}, client on {cpus[1]}" if arguments.workers == 1 else (
        f"{arguments.workers} workers and {arguments.workers} clients on processors {cpus[0]} and {cpus[1]}")
    print(f"{where}; {arguments.rounds} rounds of {arguments.seconds} s; {huge} MB of huge pages")
    print("kernel side tuned: " + ", ".join(f"{k.rpartition('.')[2]}={v}" for k, v in settings["kernel_tuning"].items()))
    warn_if_busy(settings["load_average_before"])
    samples = {}
    try:
        for number in range(1, arguments.rounds + 1):
            for row in arguments.rows:
                for side in (side for side in sides if row.serves(side.name)):
                    sample = bench.measure(row, side, arguments.seconds)
                    samples.setdefault((row.key, side.name), []).append(sample)
                    progress(number, arguments.rounds, row, side, sample)
    finally:
        table = evaluate(arguments.rows, arguments.sides, samples)
        write_json(arguments.out / "ab.json", table, settings)
    voids = print_table(table)
    for remark in filter(None, (side.remark() for side in sides)):
        print(f"note: {remark}")
    drawn = draw(table, arguments.out / "ab.svg")
    print(f"written: {arguments.out / 'ab.json'}" + (f", {arguments.out / 'ab.svg'}" if drawn else ""))
    return 1 if voids else 0


def main():
    status = run_orderly("ab", run, parse_arguments())
    if status == INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
