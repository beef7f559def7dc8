"""Builds and runs the parts of the test suite, counting test cases from what the tests themselves report."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from arguments import number
from beside import Beside, Count, Interrupted, run_side_by_side
from surroundings import set_surroundings

ROOT = Path(__file__).resolve().parent.parent
BUILD, SANITIZED, THREADS, FUZZ, PACKAGE = (ROOT / name for name in ("build", "build-san", "build-tsan", "build-fuzz", "build-package"))
# The test programs that must be there: one that is gone from the build is a failure, not one less to run.
REQUIRED_UNIT = {"bad_wire", "base", "conf", "default_route", "flow_table", "instructions", "intercept", "ip", "judge", "kernel_follower",
                 "kernel_net", "packet", "port af_packet", "port af_xdp", "port card_lock", "port claims", "port device", "port guest",
                 "port link", "port memif", "port memif_guard", "port memif_user", "port merge", "port offload", "port packet_sender",
                 "port pool", "port share", "port sharing", "port split", "port spreading", "port umem", "ports", "preload", "preload-names", "preload-nohup",
                 "preload-programs", "scripts", "scripts ab", "steering", "tcp_data", "thread_stress", "wheel", "wire"}
REQUIRED_SIM = {"sim_bbr", "sim_churn", "sim_dctcp", "sim_deaths", "sim_ecn", "sim_exit", "sim_fairness", "sim_fast_open", "sim_hystart",
                "sim_listeners", "sim_loopback", "sim_memory", "sim_migration", "sim_opening", "sim_passive", "sim_paths", "sim_receiver",
                "sim_recovery", "sim_restart", "sim_sharing", "sim_shortage", "sim_smoke", "sim_stacks", "sim_stacks_card", "sim_stacks_churn", "sim_states", "sim_time_wait",
                "sim_transfer"}
# How others build it: directory, options, compiler. Warnings are errors in all of them.
OTHER_BUILDS = {
    "build-release": (["--buildtype=release"], {}),
    "build-plain": (["--buildtype=plain"], {}),
    "build-clang": ([], {"CC": "clang-14", "CXX": "clang++-14"}),
    "build-lto": (["-Db_lto=true"], {}),
}
# They measure, for minutes under a sanitizer and too long for --fast; what they run the others run, too.
MEASURING = {"sim_fairness", "sim_paths"}
# No device, no other program, and no clock but the virtual one: these run side by side, the long ones first.
SIDE_BY_SIDE = REQUIRED_SIM | {"base", "flow_table", "ip", "packet", "ports", "steering", "tcp_data", "wheel", "wire"}
LONG = ("sim_migration", "tcp_data", "sim_listeners", "sim_stacks_churn", "sim_sharing", "sim_bbr", "sim_paths", "sim_fairness")
# What must be there under the sanitizers.
REQUIRED_SANITIZED = SIDE_BY_SIDE - MEASURING

CATCH_ALL = re.compile(r"^All tests passed \(\d+ assertions? in (\d+) test cases?\)")
CATCH_SOME = re.compile(r"^test cases:\s*\d+ \|(.*)")
SKIPPED = 77  # meson's exit status for a test that cannot run here
NOT_OK = re.compile(r"not ok|NOT OK|FAILED")
E2E_TEST = re.compile(r"^(?:not )?ok (\S+?):?(?: .*)? \((\d+\.\d) s\)$")
TOTAL = re.compile(r"^(\d+) passed, (\d+) failed$")


def count_results(lines, status, must_count=False):
    """Reads the results of one run: its own last "N passed, N failed", else the sum of its Catch2 summaries."""
    summaries, total = Count(), None
    for line in lines:
        if match := CATCH_ALL.match(line):
            summaries.add(Count(int(match[1])))
        elif match := CATCH_SOME.match(line):
            numbers = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed(?: as expected)?)", match[1])}
            summaries.add(Count(numbers.get("passed", 0) + numbers.get("failed as expected", 0), numbers.get("failed", 0)))
        elif match := TOTAL.match(line):
            total = Count(int(match[1]), int(match[2]))
    result = total or summaries
    if result.failed == 0 and status not in (0, SKIPPED):
        result.failed = 1  # it crashed, was killed, or says so by its status only
    elif result.passed == result.failed == 0 and status == 0:
        # A check that is one case by itself, unless it is a test program that has not found its cases.
        result = Count(0, 1) if must_count or any("No tests ran" in line for line in lines) else Count(1)
    return result


class Runner:
    """Runs one command at a time, in its own process group so that all of it can be stopped."""

    def __init__(self, verbose):
        self.verbose = verbose
        self.child = None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)

    def _interrupt(self, _number, _frame):
        raise Interrupted

    def run(self, command, timeout, env=None, show=False, cwd=ROOT):
        """Returns (exit status, lines). Shows the lines as they come, or only if the command fails."""
        lines = []
        deadline = time.monotonic() + timeout
        self.child = subprocess.Popen([str(part) for part in command], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **(env or {})})
        previous = signal.signal(signal.SIGALRM, lambda *_: self._stop(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, timeout, 15)
        try:
            for raw in self.child.stdout:
                line = raw.decode(errors="replace").rstrip("\n")
                lines.append(line)
                if show or self.verbose:
                    print("    " + line, flush=True)
            status = self.child.wait()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            self._finish()
        if time.monotonic() >= deadline:
            lines.append(f"stopped after {timeout} s")
            status = status or 1
        if status != 0 and not (show or self.verbose):
            print("\n".join("    " + line for line in lines[-200:]), flush=True)
        return status, lines

    def _stop(self, number):
        if self.child is not None:
            try:
                os.killpg(self.child.pid, number)
            except ProcessLookupError:
                pass

    def _finish(self):
        """Leaves nothing of the command behind; gives its scripts time to clean up after themselves."""
        if self.child.poll() is None:
            self._stop(signal.SIGTERM)
            try:
                self.child.wait(20)
            except subprocess.TimeoutExpired:
                pass
        self._stop(signal.SIGKILL)
        self.child.wait()
        self.child.stdout.close()
        self.child = None


# Of the debug information only what a report shows: to compile that takes a third less.
ONLY_LINES = ["-Dcpp_args=-g1", "-Dc_args=-g1"]
SANITIZING = ["-Db_lundef=false", "-Ddpdk=false", "-Doptimization=1", "-Dcpp_rtti=true", *ONLY_LINES]


class Suite:
    """The parts, in the order in which they run."""

    def __init__(self, runner, arguments):
        self.runner = runner
        self.fuzz_seconds = arguments.fuzz_seconds
        self.fast = ["--fast"] if arguments.fast else []
        self.long = ["--long"] if arguments.long else []
        self.beside = []
        self.times = []  # (seconds, test)
        self.failures = []  # (the run and its exit status, what it printed)
        self.builds = []  # (seconds, directory)
        self.built = {}

    def build(self, directory, options=(), env=None, targets=()):
        """Configures `directory` if it is new and builds it. True if that worked."""
        if directory in self.built:
            return self.built[directory]
        print(f"  building {directory.name}/", flush=True)
        started = time.monotonic()
        ok = True
        if not (directory / "build.ninja").exists():
            shutil.rmtree(directory, ignore_errors=True)
            # Warnings are errors here and not for whoever packages it, whose compiler may know others.
            ok = self.runner.run(["meson", "setup", directory, ROOT, "--werror", *options], 300, env)[0] == 0
        elif not self.has_werror(directory):
            ok = self.runner.run(["meson", "configure", directory, "-Dwerror=true"], 300, env)[0] == 0
        if ok:
            wanted = targets(directory) if callable(targets) else targets
            ok = self.runner.run(["ninja", "-C", directory, *wanted], 3000, env)[0] == 0
        self.built[directory] = ok
        self.builds.append((time.monotonic() - started, directory.name))
        return ok

    @staticmethod
    def has_werror(directory):
        text = subprocess.run(["meson", "introspect", directory, "--buildoptions"], stdout=subprocess.PIPE, check=True).stdout
        return any(option["name"] == "werror" and option["value"] for option in json.loads(text))

    def build_default(self):
        return self.build(BUILD)

    def programs(self, directory):
        """The test programs that the build knows: name -> (command, environment)."""
        text = subprocess.run(["meson", "introspect", directory, "--tests"], stdout=subprocess.PIPE, check=True).stdout
        return {test["name"]: (test["cmd"], test["env"]) for test in json.loads(text)}

    def run_programs(self, directory, selected, required, env=None):
        if not self.built.get(directory):
            return Count(0, 1)
        count = Count()
        known = self.programs(directory)
        for name in sorted(required - set(known)):
            print(f"  {name}: missing from the build", flush=True)
            count.add(Count(0, 1))

        def run(name):
            command, own_env = known[name]
            return self.report(name, command, 900, {**own_env, **(env or {})}, cwd=directory)

        chosen = sorted(filter(selected, known), key=lambda name: (LONG.index(name) if name in LONG else len(LONG), name))
        # With --fast, other parts run beside already.
        together = [name for name in chosen if name in SIDE_BY_SIDE and not self.fast]
        count.add(run_side_by_side(self, together, run))
        for name in chosen:
            if name not in together:
                count.add(run(name))
        if count.passed + count.failed == 0:
            print("  no test program in this build", flush=True)
            count.add(Count(0, 1))
        return count

    def report(self, name, command, timeout, env=None, show=False, cwd=ROOT, must_count=False):
        started = time.monotonic()
        status, lines = self.runner.run(command, timeout, env, show, cwd)
        count = count_results(lines, status, must_count)
        note = f", skipped: {lines[-1] if lines else 'no reason given'}" if status == SKIPPED else ""
        seconds = time.monotonic() - started
        print(f"  {name}: {count} ({seconds:.1f} s){note}", flush=True)
        if count.failed:
            self.failures.append((f"{name} (exit status {status})", telling(lines)))
        parts = [(float(match[2]), f"{name} {match[1]}") for match in map(E2E_TEST.match, lines) if match]
        self.times += parts or [(seconds, name)]
        return count

    def script(self, path, *arguments, timeout):
        if not os.access(ROOT / path, os.X_OK):
            print(f"  {path}: missing", flush=True)
            return Count(0, 1)
        return self.report(path, [ROOT / path, *arguments], timeout, show=True, must_count=True)

    def start_beside(self, run):
        self.beside.append(Beside(self, run))
        return self.beside[-1]

    def unit(self):
        self.build_default()
        # Those of devices mostly wait.
        devices = {name for name in REQUIRED_UNIT if is_of_device(name)}
        others = self.start_beside(lambda: self.run_programs(BUILD, is_of_device, devices))
        count = self.run_programs(BUILD, lambda name: not is_simulation(name) and not is_of_device(name), REQUIRED_UNIT - devices)
        count.add(others.join())
        return count

    def sim(self):
        self.build_default()
        left_out = MEASURING if self.fast else set()
        count = self.run_programs(BUILD, lambda name: is_simulation(name) and name not in left_out, REQUIRED_SIM - left_out)
        for name in ("sim_flows", "sim_paths") if self.long else ():  # a million flows; a grid of 1,500 paths
            count.add(self.report(f"{name} [long]", [BUILD / f"tests/sim/{name}_test", "[long]"], 14400, must_count=True))
        return count

    def parity(self):
        if not self.build_default():
            return Count(0, 1)
        return self.script("tests/parity/run", BUILD, *self.fast, timeout=1200)

    def e2e(self):
        if not self.build_default():
            return Count(0, 1)
        return self.script("tests/e2e/run", BUILD, *self.fast, *self.long, timeout=14400 if self.long else 3600)

    def package(self):
        with tempfile.TemporaryDirectory() as folder:
            print(f"  building {PACKAGE.name}/", flush=True)
            started = time.monotonic()
            # -w: nothing else that is built each time shows the warnings of -O3.
            status, lines = self.runner.run([ROOT / "scripts/package", "-w", "-b", PACKAGE, "-o", folder], 900)
            self.builds.append((time.monotonic() - started, PACKAGE.name))
            if status != 0 or not lines:
                return Count(0, 1)
            return self.report("package", [ROOT / "tests/scripts/check_package.py", ROOT, PACKAGE, lines[-1]], 300, must_count=True)

    def san(self):
        self.build(SANITIZED, ["-Db_sanitize=address,undefined", *SANITIZING])
        env = {"UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1", "ASAN_OPTIONS": "detect_stack_use_after_return=1"}
        # The shim is preloaded into programs that have no sanitizer runtime: its tests run in the ordinary build only.
        return self.run_programs(SANITIZED, lambda name: not name.startswith("preload") and name not in MEASURING, REQUIRED_SANITIZED, env)

    def tsan(self):
        program = "tests/intercept/thread_stress_test"
        if not self.build(THREADS, ["-Db_sanitize=thread", *SANITIZING], targets=[program]):
            return Count(0, 1)
        # The runtime's shadow memory wants a fixed layout, and some kernels randomise more bits of it than the runtime expects.
        fixed = ["setarch", "-R"]
        if subprocess.run([*fixed, "true"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode != 0:
            fixed = []  # a container may forbid it, and then the runtime has to manage
        return self.report("thread_stress", [*fixed, THREADS / program], 900, {"TSAN_OPTIONS": "halt_on_error=1"}, must_count=True)

    def fuzz(self):
        def targets(directory):
            text = subprocess.run(["meson", "introspect", directory, "--targets"], stdout=subprocess.PIPE, check=True).stdout
            return [Path(t["filename"][0]).relative_to(directory) for t in json.loads(text) if t["name"].startswith("fuzz")]

        if not self.build(FUZZ, ["-Dfuzz=true", "-Ddpdk=false", *ONLY_LINES], {"CC": "clang", "CXX": "clang++"}, targets):
            return Count(0, 1)
        seconds = [] if self.fuzz_seconds is None else [self.fuzz_seconds]
        return self.script("tests/fuzz/run", FUZZ, *seconds, timeout=(self.fuzz_seconds or 200) * 4 + 120)


    def builds(self):
        count = Count()
        for name, (options, env) in OTHER_BUILDS.items():
            directory = ROOT / name
            self.build(directory, options, env)
            count.add(self.run_programs(directory, lambda _: True, REQUIRED_UNIT | REQUIRED_SIM))
        return count


def telling(lines, most=60):
    """What tells why a run failed: the tests that say so, wherever they stand, and the end, where a crash is."""
    end = max(0, len(lines) - most // 2)
    return [line for line in lines[:end] if NOT_OK.search(line)][:most // 2] + lines[end:]


def is_simulation(name):
    return "sim" in name


def is_of_device(name):
    return name.startswith("port ")


PARTS = {
    "unit": (Suite.unit, "unit tests of every module"),
    "sim": (Suite.sim, "two stacks over a lossy wire on a virtual clock"),
    "parity": (Suite.parity, "socket semantics: on the kernel, then under the shim"),
    "e2e": (Suite.e2e, "nginx, wrk and curl in network namespaces"),
    "package": (Suite.package, "the Debian package, an optimised build of its own: installed, used and removed"),
    "san": (Suite.san, "unit and simulation tests under the address and undefined-behaviour sanitizers"),
    "tsan": (Suite.tsan, "many threads in one process, under the thread sanitizer"),
    "fuzz": (Suite.fuzz, "the packet input path under libFuzzer, briefly"),
    "builds": (Suite.builds, "unit and simulation tests of a release, a plain, a clang and an LTO build; only with --long or by name"),
}
USUAL = tuple(part for part in PARTS if part != "builds")
FAST = ("unit", "sim", "parity", "e2e")
FAST_BESIDE = ("unit", "sim")  # while the others run, which are in network namespaces of their own


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/test", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__,
                                     epilog="parts:\n" + "\n".join(f"  {name:8}{text}" for name, (_, text) in PARTS.items()))
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to run (default: all but builds)")
    parser.add_argument("--fast", action="store_true",
                        help=f"an answer in two minutes: {', '.join(FAST)}, of which parity on one address and some twenty of e2e")
    parser.add_argument("--long", action="store_true", help="for hours: more rounds of some tests of e2e, a million flows, and builds")
    parser.add_argument("-v", "--verbose", action="store_true", help="show all output")
    parser.add_argument("--fuzz-seconds", type=number(0), metavar="N",
                        help="let each fuzz target look for N seconds where chance leads it (default: a few thousand inputs, the same each time)")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))} (there are: {', '.join(PARTS)})")
    if arguments.fast and arguments.long:
        parser.error("--fast or --long")
    arguments.parts = arguments.parts or list(FAST if arguments.fast else PARTS if arguments.long else USUAL)
    return arguments


def print_slowest(times, most=15):
    print("\nthe slowest:")
    for seconds, name in sorted(times, reverse=True)[:most]:
        print(f"{seconds:8.1f} s  {name}")


def print_failures(failures):
    """Once more at the end, where whoever sees only the end of a log looks."""
    for name, lines in failures:
        print(f"\nfailed: {name}")
        print("\n".join("    " + line for line in lines))


def run_parts(suite, parts):
    total, times = Count(), []
    for name, (run, text) in PARTS.items():
        if name not in parts:
            continue
        print(f"== {name}: {text}", flush=True)
        started, before = time.monotonic(), len(suite.builds)
        count = run(suite)
        built = "".join(f", of which {seconds:.0f} s to build {directory}/" for seconds, directory in suite.builds[before:])
        times.append(f"{name} {time.monotonic() - started:.0f} s{built}: {count}")
        total.add(count)
    print("\n" + "\n".join(times), flush=True)
    return total


def run_together(suite, parts):
    """The same with some parts beside the others."""
    beside = [part for part in parts if part in FAST_BESIDE]
    rest = [part for part in parts if part not in beside]
    if not beside or not rest:
        return run_parts(suite, parts)
    suite.build_default()
    other = suite.start_beside(lambda: run_parts(suite, beside))
    total = run_parts(suite, rest)
    total.add(other.join())
    return total


def main():
    set_surroundings()
    arguments = parse_arguments()
    suite = Suite(Runner(arguments.verbose), arguments)
    started = time.monotonic()
    try:
        total = run_together(suite, arguments.parts) if arguments.fast else run_parts(suite, arguments.parts)
    except Interrupted:
        for other in suite.beside:
            other.stop()
        print("interrupted", flush=True)
        return 130
    print_slowest(suite.times)
    print_failures(suite.failures)
    print(f"\n{time.monotonic() - started:.0f} s in all")
    print(total, flush=True)
    return 0 if total.failed == 0 and total.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
