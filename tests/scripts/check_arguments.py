#!/usr/bin/env python3
"""A number on a command line that is none, or out of range, is an error: status 2, one word about it, and nothing has begun.

usage: check_arguments.py ROOT PROGRAM...    the source tree; programs of the build that take numbers"""
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "scripts"))
sys.dont_write_bytecode = True
from surroundings import set_surroundings  # noqa: E402

BAD = ("0", "nan")


def commands(root, programs):
    """(words before the number, words after it, numbers that are wrong)"""
    python = [sys.executable, "-B"]
    for option in ("--rounds", "--seconds", "--workers"):
        yield [*python, root / "perf/ab", option], [], BAD
    yield [*python, root / "perf/ab", "--workers"], [], ("17",)
    yield [*python, root / "perf/ab", "--cpus"], [], ("0", "0,0", "0,x", "0,1,2", "0,100000")
    for option in ("--seconds", "--lines"):
        yield [*python, root / "perf/ab/profile.py", option], [], BAD
    yield [*python, root / "scripts/run_tests.py", "--fuzz-seconds"], [], ("-1", "x")
    yield [*python, root / "tests/parity/run", "--repeat"], [], BAD
    for option in ("--rounds", "--seconds", "--timeout", "--port", "--rate"):
        yield [root / "scripts/mtcp-ab", "--server", "x", "--client", "y", "--metric", "wrk", option], [], (*BAD[1:], "-1", "x", "1e9")
    yield [root / "scripts/mtcp-ab", "--server", "x", "--client", "y", "--metric"], [], ("none", "(a)(b)", "(")
    yield [*python, root / "scripts/mtcp-stat", "-w"], ["1"], (*BAD, "inf")
    yield [*python, root / "scripts/mtcp-stat"], [], ("0", "-1", "x")
    yield [root / "tests/fuzz/run", "/nonexistent"], [], ("-1", "x", "1.5")
    yield [root / "tests/fuzz/run", "/nonexistent", "-N"], [], ("-1", "x", "")
    yield [root / "scripts/qemu-test", "-t"], [], BAD
    for name, before, after in (("msg_client", ["127.0.0.1"], ["1", "1"]), ("msg_client", ["127.0.0.1", "1"], ["1"]),
                                ("msg_client", ["127.0.0.1", "1", "1"], []), ("msg_server", ["127.0.0.1"], []),
                                ("msg_server", ["127.0.0.1", "1"], []), ("echo_server", ["127.0.0.1"], []), ("stack_bench", ["conn"], []),
                                ("stack_bench", ["conn", "1"], []), ("steering_bench", [], []),
                                ("steering_bench", ["1", "rss"], []), ("memif_bench", [], [])):
        for program in programs:
            if program.name.endswith(name):
                yield [program, *before], after, (*BAD, "-1", "x", "", "1e9", "99999999999")
    for program in (p for p in programs if p.name == "open_load"):
        for option in ("--rate", "--connections", "--seconds", "--echo"):
            others = [word for o in ("--rate", "--connections", "--seconds", "--echo") if o != option for word in (o, "1")]
            yield [program, *others, option], ["127.0.0.1", "1"], (*BAD, "-1", "x", "", "1e12")


def main():
    set_surroundings()
    root, *programs = (pathlib.Path(word).resolve() for word in sys.argv[1:])
    passed = failed = 0
    for before, after, numbers in commands(root, programs):
        for number in numbers:
            words = [str(word) for word in (*before, number, *after)]
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  timeout=20, check=False)
            right = done.returncode in (1, 2) and "Traceback" not in done.stdout and done.stdout.strip() and len(done.stdout) < 3000
            passed, failed = passed + bool(right), failed + (not right)
            if not right:
                print(f"{' '.join(words)}: status {done.returncode}: {done.stdout[-500:]}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
