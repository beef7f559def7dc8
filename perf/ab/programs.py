"""Any server under any client: one call of measure() is one sample of one side."""

import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import metrics
import system_calls
from loads import start_client, wait_for
from metrics import MetricError
from places import helper
from system import BenchmarkError, Process
from usage import megahertz, polls_of, steal_ticks, usage_of, useful_share

# Waits at the client's end until somebody listens. Under the shim, too, where the client is.
PROBE = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()"
HELPERS = ("open_load", "echo_server")  # of ours, whose places are known
PATIENCE = 20  # seconds for a server to begin, and to end


@dataclass
class Load:
    """What is compared. In the command lines {address}, {port}, {directory}, {seconds}, {rate} are replaced, and the places of HELPERS."""

    server: str
    client: str
    metric: str                    # as metrics.reader() takes it
    port: int = 0                  # where the server listens, for who waits for it; 0: `settle` seconds instead
    settle: float = 1.0
    operations: int = 0            # that the client does in all, where its output does not tell
    stop: int = signal.SIGTERM
    prepare: object = None         # called with (directory, side) before a server starts
    title: str = ""


@dataclass
class Sample:
    """One measurement. With errors it says nothing about speed, and voids its row."""

    value: float = 0
    unit: str = ""
    more_is_better: bool = True
    seconds: float = 0             # that the client ran
    operations: float = 0
    p50_us: float = 0
    p99_us: float = 0
    p999_us: float = 0
    server_cpu: float = 0          # seconds of processors, all of the server's processes
    client_cpu: float = 0
    switches: int = 0              # the server's context switches
    memory: int = 0                # the server's, bytes
    calls_per_operation: float = None  # the server's system calls, counted while warming up; None: not known
    useful_polls: float = None     # the share of the stack's turns that found something, likewise
    steal: float = 0               # share of the machine's time that others on its host had
    megahertz: float = 0
    errors: list = field(default_factory=list)


def on_stack(server):
    """Waits until a process of it has a stack, and says whether one has. What is linked statically runs under the shim as if there were none; and on a
    shared interface the kernel answers for a listener until the stack does."""
    def has_stack(pid):
        try:
            return f" @mtcp-stat-{pid}-".encode() in Path(f"/proc/{pid}/net/unix").read_bytes()
        except OSError:
            return False
    give_up = time.monotonic() + 3
    while not (found := any(map(has_stack, server.session()))) and time.monotonic() < give_up:
        time.sleep(0.02)
    return found


class Bench:
    def __init__(self, load, directory, cleanup, timeout, rate=0, shim=None):
        self.load, self.directory, self.cleanup, self.timeout, self.rate, self.shim = load, directory, cleanup, timeout, rate, shim
        self.read = metrics.reader(load.metric)
        self.runs = 0
        self.calls_event = system_calls.event_id(directory)
        self.costs = {}  # side's name: (calls_per_operation, useful_polls)

    def words(self, text, side, seconds):
        values = {"address": side.address, "port": self.load.port, "directory": self.directory, "seconds": seconds, "rate": self.rate}
        values |= {name: helper(name, self.shim) for name in HELPERS if f"{{{name}}}" in text}
        try:
            return [word.format(**values) for word in shlex.split(text)]
        except (KeyError, IndexError, ValueError) as error:
            raise BenchmarkError(f"{text!r}: {{address}}, {{port}}, {{directory}}, {{seconds}}, {{rate}}, {{open_load}} and {{echo_server}} are known, "
                                 f"other braces are doubled ({error})") from None

    def measure(self, side, seconds, warm_up):
        sample = Sample()
        server = self.start_server(side, seconds)
        try:
            if problem := self.wait_for_server(server, side):
                sample.errors.append(problem)
            elif not side.on_kernel and not on_stack(server):
                sample.errors.append("the server does not run on mtcp: mtcp-run -n says why")
            elif not (warm_up and self.warm_up(side, server, sample)):
                self.run_client(side, seconds, server, sample)
            if not server.running():
                sample.errors.append(f"the server ended by itself: status {server.child.returncode}")
        finally:
            if server.stop(self.load.stop, PATIENCE) is None:
                sample.errors.append("the server did not stop when asked")
        sample.calls_per_operation, sample.useful_polls = self.costs.get(side.name, (None, None))
        if sample.errors:
            sample.errors += [f"server: {line}" for line in server.output().splitlines()[-3:]]
        return sample

    def highest_rate(self, side):
        """Answers a second when far more is asked for, by a load with {rate}."""
        wanted, self.rate = self.rate, 1_000_000
        server = self.start_server(side, 1)
        try:
            problem = self.wait_for_server(server, side)
            text = "" if problem else self.client(side, 2)[0]
        finally:
            server.stop(self.load.stop, PATIENCE)
            self.rate = wanted
        if problem or not (metric := self.read(text)).per_second:
            raise BenchmarkError(f"{side.name}: its highest rate is not known: {problem or text.strip()[-200:]}")
        return metric.per_second

    def start_server(self, side, seconds):
        self.runs += 1
        if self.load.prepare is not None:
            self.load.prepare(self.directory, side)
        return Process([*side.server_words(), *self.words(self.load.server, side, seconds)], self.cleanup, self.directory / f"server-{self.runs}.log")

    def wait_for_server(self, server, side):
        """Returns what is wrong, if it is."""
        if not self.load.port:
            time.sleep(self.load.settle)
            return None
        give_up = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(side.for_client(["python3", "-c", PROBE, side.address, str(self.load.port)]), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            if done.returncode == 0:
                return None
            if time.monotonic() > give_up or not server.running():
                lines = done.stdout.decode(errors="replace").strip().splitlines()
                return f"nobody listens on port {self.load.port}: {lines[-1] if lines else done.returncode}"
            time.sleep(0.05)

    def warm_up(self, side, server, sample):
        """A second of load that is not measured, if the client can be told how long; if not, in the first round only. The first time the server's
        system calls and the stack's turns are counted. True if it failed."""
        first = side.name not in self.costs
        if not first and "{seconds}" not in self.load.client:
            return False
        count_polls = first and not side.on_kernel
        before = polls_of(server) if count_polls else None
        counter = system_calls.Counter(server.session() if first else (), self.calls_event)
        text, status, _ = self.client(side, 1)
        calls = counter.total()
        if status != 0:
            sample.errors.append(f"the client's warm-up ended with status {status}: {text.strip()[-200:]}")
        elif first:
            operations = self.operations_of(text)
            after = polls_of(server) if count_polls else None
            self.costs[side.name] = (calls / operations if calls is not None and operations else None, useful_share(before, after))
        return status != 0

    def operations_of(self, text):
        """0: the output does not tell."""
        try:
            return (self.read(text).operations if self.read else 0) or self.load.operations
        except MetricError:
            return 0

    def client(self, side, seconds):
        """(output, status, processor seconds)"""
        log = self.directory / f"client-{self.runs}.log"
        words = side.for_client(self.words(self.load.client, side, seconds))
        child = start_client(words, log, self.cleanup)
        used = wait_for(child, time.monotonic() + self.timeout)
        return Path(log).read_text(errors="replace"), child.returncode, used

    def run_client(self, side, seconds, server, sample):
        before, stolen, started = usage_of(server), steal_ticks(), time.monotonic()
        text, status, sample.client_cpu = self.client(side, seconds)
        sample.seconds = time.monotonic() - started
        after, stolen_after = usage_of(server), steal_ticks()
        sample.server_cpu, sample.switches, sample.memory = after.cpu_seconds - before.cpu_seconds, after.switches - before.switches, after.memory
        if side.client_elsewhere:
            sample.client_cpu = 0
        sample.steal = (stolen_after[0] - stolen[0]) / max(1, stolen_after[1] - stolen[1])
        sample.megahertz = megahertz()
        if status != 0:
            why = f"killed after {self.timeout:g} s" if status == -signal.SIGKILL else f"status {status}"
            sample.errors.append(f"client: {why}: {text.strip()[-300:]}")
            return
        if self.read is None:
            sample.value, sample.unit, sample.more_is_better = sample.seconds, "s", False
            return
        try:
            metric = self.read(text)
        except MetricError as error:
            sample.errors.append(str(error))
            return
        sample.value, sample.unit, sample.more_is_better = metric.value, metric.unit, metric.more_is_better
        sample.operations = metric.operations or self.load.operations
        sample.p50_us, sample.p99_us, sample.p999_us = metric.p50_us, metric.p99_us, metric.p999_us
        sample.errors += metric.errors
        if metric.value <= 0:
            sample.errors.append("the metric is not above zero")
