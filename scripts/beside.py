"""Some of the tests in processes of their own while others run."""

import json
import os
import signal
import sys
import tempfile
import traceback


class Count:
    """Passed and failed test cases."""

    def __init__(self, passed=0, failed=0):
        self.passed, self.failed = passed, failed

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed"


class Interrupted(Exception):
    """SIGINT or SIGTERM came."""


class Beside:
    """A process that runs some of the tests meanwhile. What it prints comes when it has ended."""

    def __init__(self, suite, run):
        self.suite = suite
        self.output = tempfile.TemporaryFile("w+")
        self.results, writer = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(run, writer)
        os.close(writer)

    def _run(self, run, writer):
        status = 1
        try:
            os.dup2(self.output.fileno(), 1)
            self.suite.beside, self.suite.times, self.suite.failures = [], [], []
            count = run()
            sys.stdout.flush()
            os.write(writer, json.dumps([count.passed, count.failed, self.suite.times, self.suite.failures]).encode())
            status = 0
        except Interrupted:
            for other in self.suite.beside:
                other.stop()
        except Exception:  # os._exit() would swallow it
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
        finally:
            os._exit(status)

    def join(self):
        """Its count."""
        text = b""
        while part := os.read(self.results, 65536):
            text += part
        os.waitpid(self.pid, 0)
        self.suite.beside.remove(self)
        self.output.seek(0)
        print(self.output.read(), end="", flush=True)
        if not text:
            print("  ended before its end", flush=True)
            return Count(0, 1)
        passed, failed, times, failures = json.loads(text)
        self.suite.times += map(tuple, times)
        self.suite.failures += map(tuple, failures)
        return Count(passed, failed)

    def stop(self):
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)


def run_side_by_side(suite, names, run):
    """run(name) for each, as many at once as there are CPUs: whoever is done takes the next name. Their count."""
    reader, writer = os.pipe()
    os.write(writer, bytes(range(len(names))))
    os.close(writer)

    def take():
        count = Count()
        while number := os.read(reader, 1):
            count.add(run(names[number[0]]))
        return count

    others = [suite.start_beside(take) for _ in range(min(len(os.sched_getaffinity(0)), len(names)) - 1)]
    count = take()
    for other in others:
        count.add(other.join())
    os.close(reader)
    return count
