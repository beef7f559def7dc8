"""Runs one row of the benchmark under a profiler and prints where the time of one of its programs goes."""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))

from arguments import number  # noqa: E402
from loads import Bench, all_rows, read_message, read_wrk, Sample  # noqa: E402
from side import Side  # noqa: E402
from sides import SIDES, choose_cpus  # noqa: E402
from system import BenchmarkError, Process, command, reserve_huge_pages, run_orderly, temporary_directory  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent


def parse_arguments():
    rows = {row.key: row for row in all_rows() if not row.on_bad_wire}
    parser = argparse.ArgumentParser(prog="perf/profile", description=__doc__)
    parser.add_argument("--row", choices=rows, default="64b-close", help="default: %(default)s")
    parser.add_argument("--side", choices=SIDES, default="memif", help="default: %(default)s")
    parser.add_argument("--who", choices=("server", "client"), default="server", help="default: %(default)s")
    parser.add_argument("--tool", choices=("perf", "callgrind"), default="perf",
                        help="perf samples time; callgrind counts instructions, some fifty times slower (default: %(default)s)")
    parser.add_argument("--seconds", type=number(1), default=4)
    parser.add_argument("--lines", type=number(1), default=50, help="of the report (default: %(default)s)")
    parser.add_argument("--callers", action="store_true", help="perf: record call chains (needs frame pointers) and show callers")
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="leave the raw profile there")
    parser.add_argument("--realtime", action="store_true", help="real-time priority: for a machine that is not idle; with two processors it may hang")
    arguments = parser.parse_args()
    Side.realtime = arguments.realtime
    arguments.row = rows[arguments.row]
    return arguments


def report_perf(data, arguments):
    words = ["perf", "report", "-i", data, "--stdio", "--no-children", "--percent-limit", "0.3", "--sort", "dso,symbol"]
    words += ["-g", "caller,0.5,callee"] if arguments.callers else ["-g", "none"]
    text = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode(errors="replace")
    lines = [line.rstrip(" -") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    print("\n".join(lines[:arguments.lines]))
    words = ["perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none", "--sort", "dso"]
    text = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode(errors="replace")
    print("\nby object:")
    print("\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#")))


def report_callgrind(files, arguments, count):
    for data in files:
        text = command("callgrind_annotate", "--auto=no", data)
        lines = text.splitlines()
        print("\n".join(lines[:arguments.lines]))
        total = next((line for line in lines if "PROGRAM TOTALS" in line), "")
        instructions = int(total.split()[0].replace(",", "")) if total else 0
        if count and instructions:
            print(f"{instructions / count:,.0f} instructions for each of {count:,} (start-up included)")


def problem_of_server(bench, row, side):
    """None: it answers."""
    if row.kind == "http":
        return bench.check_content(row, side)
    words = [*side.client_words(), *bench.client_words(row, side, 1)]
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          check=False)
    return done.stdout.decode(errors="replace") if done.returncode != 0 else None


def wait_for_server(bench, row, side, server):
    """Under callgrind it takes longer to begin than its clients wait."""
    give_up = time.monotonic() + 60
    while problem := problem_of_server(bench, row, side):
        if time.monotonic() > give_up or not server.running():
            raise BenchmarkError(f"{problem}\n{server.output()}")


def run_load(bench, arguments, server, side, directory, cleanup):
    """Loads the server; profiles meanwhile. Returns the sample."""
    perf = arguments.tool == "perf"
    wrap = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={directory}/callgrind.%p"] if not perf else []
    words = [*side.client_words(), *(wrap if arguments.who == "client" else []),
             *bench.client_words(arguments.row, side, arguments.seconds + (2 if perf else 0))]
    client = Process(words, cleanup, directory / "client.log")
    if perf:
        time.sleep(1)
        pids = server.session() if arguments.who == "server" else client.session()
        chains = ["--call-graph", "fp"] if arguments.callers else []
        ahead = ["chrt", "-f", "2"] if arguments.realtime else []
        command(*ahead, "perf", "record", "-q", "-e", "cpu-clock", "-F", "4999", *chains, "-o", directory / "perf.data",
                "-p", ",".join(map(str, pids)), "--", "sleep", arguments.seconds)
    client.child.wait(arguments.seconds + 120)
    sample = Sample()
    (read_message if arguments.row.kind == "message" else read_wrk)(arguments.row, client.output(), sample)
    return sample


def run(arguments, cleanup):
    cpus = choose_cpus()
    if cpus is None:
        raise BenchmarkError("server and client need a processor each; there is only one")
    directory = temporary_directory(cleanup)
    directory.chmod(0o777)  # valgrind writes its profile as the user that nginx drops to
    reserve_huge_pages(cleanup, 1024)
    side = SIDES[arguments.side]("pf", cpus, cleanup, (arguments.build / "preload/libmtcp_shim.so").resolve(), directory)
    bench = Bench(directory, arguments.build.resolve(), cleanup)
    callgrind = arguments.tool == "callgrind"
    wrap = ["valgrind", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={directory}/callgrind.%p"]
    server = bench.start_server(arguments.row, side, wrap if callgrind and arguments.who == "server" else ())
    wait_for_server(bench, arguments.row, side, server)
    sample = run_load(bench, arguments, server, side, directory, cleanup)
    server.stop(signal.SIGQUIT if arguments.row.kind == "http" else signal.SIGTERM, 20)
    print(f"{arguments.row.title}, {side.title}: {sample.rate:,.0f}/s {'; '.join(sample.errors)}\n")
    if callgrind:
        files = sorted(directory.glob("callgrind.*"), key=lambda f: f.stat().st_size)[-1:]
        report_callgrind(files, arguments, round(sample.rate * arguments.seconds))
    else:
        files = [directory / "perf.data"]
        report_perf(files[0], arguments)
    if arguments.keep and files:
        arguments.keep.write_bytes(files[0].read_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(run_orderly("profile", run, parse_arguments()))
