"""Compares any server under any client, on the kernel's TCP and on mtcp: rounds in turn, a fresh server each, medians with their
intervals. The programs are run as they are; of the command lines only {address}, {port}, {directory}, {seconds} and {rate} are replaced."""

import argparse
import json
import os
import platform
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import metrics
import presets
import tell
from arguments import number
from attached_sides import ATTACHED_SIDES, OtherHost
from compare import LEAST_ROUNDS, Comparison, compare
from places import default_shim
from programs import Bench, Load
from report import told_by
from side import Side
from sides import SIDES, choose_cpus, want_shim
from system import BenchmarkError, kernel_tuning, reserve_huge_pages, run_orderly, temporary_directory, warn_if_busy


USUAL_RATE = 5000  # requests a second


@dataclass
class Result:
    """All of one side."""

    side: str
    kind: Side
    all_samples: list = field(default_factory=list)
    comparison: Comparison = None
    is_base: bool = False
    remark: str = ""

    @property
    def samples(self):
        return [s for s in self.all_samples if not s.errors]

    @property
    def errors(self):
        return [e for s in self.all_samples for e in s.errors]

    @property
    def void(self):
        return not self.all_samples or bool(self.errors)


def metric_name(text):
    try:
        metrics.reader(text)
    except (ValueError, metrics.re.error) as error:
        raise argparse.ArgumentTypeError(f"{error}: it is one of {', '.join(metrics.READERS)}, time, or a regular expression with one group") from None
    return text


def rate(text):
    """A number, or `half`."""
    return text if text == "half" else number(1, 10**7)(text)


def parse_arguments(words):
    parser = argparse.ArgumentParser(prog="mtcp-ab", description=__doc__)
    what = parser.add_argument_group("what is compared")
    what.add_argument("--preset", choices=presets.presets(), help="a well-known server and its load, instead of the next four")
    what.add_argument("--server", metavar="'PROGRAM ...'", help="it must stay in the foreground, and end at SIGTERM; it listens at {address}")
    what.add_argument("--client", metavar="'PROGRAM ...'", help="it must end by itself; it connects to {address}")
    what.add_argument("--metric", type=metric_name, metavar="READER", help=f"{', '.join(metrics.READERS)}: how the client's output is "
                      "read; time: of the client, less is better; or a regular expression with one group around the number")
    what.add_argument("--port", type=number(0, 65535), help="where the server listens, to know when it is ready (default: a second is waited for)")
    how = parser.add_argument_group("how")
    how.add_argument("--sides", help=f"some of {','.join(SIDES)} (default: kernel,veth); memif has the client under the shim, too; "
                     f"with --attach: {','.join(ATTACHED_SIDES)}")
    how.add_argument("--attach", metavar="INTERFACE", help="compare on this interface of the machine and its address, not in namespaces")
    how.add_argument("--client-on", metavar="'ssh HOST'", help="with --attach: what runs a command on the other host, where the client is")
    how.add_argument("--rounds", type=number(1, 1000), default=LEAST_ROUNDS, help=f"default: %(default)s; fewer than {LEAST_ROUNDS} give no verdict")
    how.add_argument("--seconds", type=number(1, 3600), default=3, help="what {seconds} in the client's line becomes (default: %(default)s)")
    how.add_argument("--rate", type=rate, help=f"what {{rate}} in the client's line becomes (default: {USUAL_RATE}); the presets with 'latency' in their "
                     "names send so many requests a second, whether answered or not; half: of what the kernel's sides can do at most, which is measured first")
    how.add_argument("--timeout", type=number(1, 86400), default=120, help="seconds after which a client is killed (default: %(default)s)")
    how.add_argument("--no-warm-up", action="store_true", help="do not load each server for a second before it is measured")
    how.add_argument("--no-huge-pages", action="store_true", help="do not reserve huge pages for the time of the run")
    how.add_argument("--realtime", action="store_true", help="give server and client real-time priority: for a machine that is not "
                     "idle; with two processors it may hang")
    how.add_argument("--shim", type=Path, help="libmtcp_shim.so (default: that of this build or installation)")
    out = parser.add_argument_group("results, beside the text")
    for name, help_text in (("json", "every sample, the machine, the settings"), ("csv", "a line for each sample"), ("html", "a page with plots, in one file")):
        out.add_argument(f"--{name}", type=Path, metavar="FILE", help=help_text)
    arguments = parser.parse_args(words)
    if arguments.preset:
        if arguments.server or arguments.client or arguments.metric or arguments.port:
            parser.error("--preset says what is compared: without --server, --client, --metric, --port")
    elif not (arguments.server and arguments.client and arguments.metric):
        parser.error("--server, --client and --metric are needed, or --preset")
    if arguments.rate and "{rate}" not in (presets.presets()[arguments.preset].client if arguments.preset else arguments.client):
        parser.error("--rate is for a client's line with {rate} in it")
    arguments.rate = arguments.rate or USUAL_RATE
    known = ATTACHED_SIDES if arguments.attach else SIDES
    if bool(arguments.attach) != bool(arguments.client_on and arguments.client_on.split()):
        parser.error("--attach INTERFACE and --client-on 'ssh HOST' go together")
    arguments.sides = list(dict.fromkeys((arguments.sides or ("kernel,share" if arguments.attach else "kernel,veth")).split(",")))
    if unknown := set(arguments.sides) - set(known):
        parser.error(f"no such side: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return arguments


def check_environment(arguments, load):
    if os.geteuid() != 0:
        raise BenchmarkError("namespaces and devices need root: run it as root")
    for program in ("ip", "taskset", "sysctl"):
        if not shutil.which(program):
            raise BenchmarkError(f"{program} is not installed")
    presets.check([load.server] if arguments.attach else [load.server, load.client])
    if arguments.html:
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            raise BenchmarkError("--html needs matplotlib: apt install python3-matplotlib") from None
    shim = arguments.shim.resolve() if arguments.shim else default_shim()
    if want_shim(arguments.sides) and (shim is None or not shim.exists()):
        raise BenchmarkError("libmtcp_shim.so is not there: build mtcp, or say where with --shim")
    cpus = choose_cpus()
    if cpus is None:
        raise BenchmarkError("server and client need a processor each; there is only one")
    return cpus, shim


def version():
    """The commit of the source tree, if this is one."""
    return told_by("git", "-C", Path(__file__).resolve().parent, "describe", "--always", "--dirty")


def settings_of(arguments, load, cpus, huge):
    return {"server": load.server, "client": load.client, "metric": load.metric, "rounds": arguments.rounds, "seconds": arguments.seconds,
            "rate": arguments.rate if "{rate}" in load.client else None,
            "warm_up": not arguments.no_warm_up, "server_cpu": cpus[0], "client_cpu": cpus[1], "realtime": arguments.realtime, "huge_pages_mb": huge,
            "kernel_tuning": {} if arguments.attach else kernel_tuning(), "attached": arguments.attach, "client_on": arguments.client_on,
            "load_average_before": os.getloadavg()[0], "kernel": platform.release(), "time": time.strftime("%Y-%m-%d %H:%M:%S"), "commit": version()}


def evaluate(results):
    """The best of the kernel's sides is the baseline. Returns its name; without any, the first side's."""
    usable = [r for r in results.values() if not r.void]
    kernel = [r for r in usable if r.kind.on_kernel] or usable[:1]
    if not kernel:
        return next(iter(results))
    sign = 1 if kernel[0].samples[0].more_is_better else -1
    base = max(kernel, key=lambda r: sign * tell.middle(r.samples, "value"))
    base.is_base = True
    for result in usable:
        if result is not base:
            result.comparison = compare([s.value for s in base.samples], [s.value for s in result.samples], sign > 0)
    return base.side


def report(arguments, title, results, settings):
    ordered = [r for r in results.values() if r.all_samples]
    if not ordered:
        return 1
    base = evaluate(results)
    print("\n" + tell.text(title, ordered, base))
    if arguments.json:
        arguments.json.write_text(json.dumps(tell.as_dict(title, ordered, settings), indent=1) + "\n")
    if arguments.csv:
        tell.write_csv(arguments.csv, ordered)
    if arguments.html:
        arguments.html.write_text(tell.page(title, ordered, settings, base))
    written = [str(path) for path in (arguments.json, arguments.csv, arguments.html) if path]
    if written:
        print(f"written: {', '.join(written)}")
    return 1 if any(r.void for r in ordered) else 0


def make_sides(arguments, cpus, shim, directory, cleanup):
    if arguments.attach:
        host = OtherHost(arguments.client_on, arguments.timeout)
        return [ATTACHED_SIDES[name](arguments.attach, cpus, host, shim, directory) for name in arguments.sides]
    return [SIDES[name](f"any{os.getpid()}", cpus, cleanup, shim, directory) for name in arguments.sides]


def add_remarks(sides, results):
    for side in sides:
        results[side.name].remark = side.remark()


def half_of_the_kernels(bench, sides):
    """Half of the highest rate of the best of the kernel's sides."""
    rates = {side.name: bench.highest_rate(side) for side in sides if side.on_kernel}
    if not rates:
        raise BenchmarkError("--rate half is half of what the kernel's sides can do: there is none")
    print("highest rates: " + ", ".join(f"{name} {found:,.0f}/s" for name, found in rates.items()), flush=True)
    return round(max(rates.values()) / 2)


def measure_all(arguments, bench, sides, results):
    """Rounds of all sides, another one first each time. Fills in results as it goes, so that an interrupt loses nothing."""
    for round_number in range(1, arguments.rounds + 1):
        first = round_number % len(sides)  # so that none always follows the same
        for side in sides[first:] + sides[:first]:
            sample = bench.measure(side, arguments.seconds, not arguments.no_warm_up)
            results[side.name].all_samples.append(sample)
            state = f"VOID: {'; '.join(sample.errors)}" if sample.errors else tell.amount(sample.value, sample.unit)
            print(f"[{time.strftime('%H:%M:%S')}] round {round_number}/{arguments.rounds}  {side.name:9} {state}", flush=True)


def run(arguments, cleanup):
    load = presets.presets()[arguments.preset] if arguments.preset else Load(arguments.server, arguments.client, arguments.metric, arguments.port or 0)
    title = load.title or f"{Path(load.server.split()[0]).name} under {Path(load.client.split()[0]).name}"
    cpus, shim = check_environment(arguments, load)
    directory = temporary_directory(cleanup)
    huge = 0 if arguments.no_huge_pages or not want_shim(arguments.sides) else reserve_huge_pages(cleanup, 1024)
    Side.realtime, Side.server_program = arguments.realtime, Path(presets.program_of(load.server)).name.strip("{}")
    sides = make_sides(arguments, cpus, shim, directory, cleanup)
    bench = Bench(load, directory, cleanup, arguments.timeout, arguments.rate, shim)
    if arguments.rate == "half":
        arguments.rate = half_of_the_kernels(bench, sides)
        bench.rate = arguments.rate
    if "{rate}" in load.client:
        title += f", {arguments.rate:,} requests a second"
    settings = settings_of(arguments, load, cpus, huge)
    warn_if_busy(settings["load_average_before"])
    results = {side.name: Result(side.name, side) for side in sides}
    try:
        measure_all(arguments, bench, sides, results)
        add_remarks(sides, results)
    except KeyboardInterrupt:
        print("interrupted: what there is so far")
        add_remarks(sides, results)
        report(arguments, title, results, settings)
        raise
    return report(arguments, title, results, settings)


def main(words=None):
    return run_orderly("mtcp-ab", run, parse_arguments(words))
