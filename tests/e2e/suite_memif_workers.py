"""Several processes on each end of memif, each with a wire of its own ({worker} in the port string)."""

import signal
from pathlib import Path

from harness import expect, expect_equal, kill, wait_until
from nginx import Nginx
from registry import test
from web import WrkResult

PROBE = Path(__file__).resolve().parent / "probe.py"
PYTHON = "/usr/bin/python3"
SERVER = 'location = /pid { return 200 "$pid"; }'
LOG = '[log]\nlevel = "info"\n'


def two_workers(context, **options):
    server, client = context.memif(more=LOG, wires=2)
    nginx = Nginx(server, workers=2, server=SERVER, **options).start()
    wait_until(lambda: len(nginx.workers()) == 2, 10, "two workers")
    return nginx, client


class Wire:
    """A client process that asks for the pid of who serves it, again and again. The first to start has wire 0."""

    def __init__(self, client, nginx):
        self.program = client.start(PYTHON, "-u", PROBE, f"{nginx.url}/pid", "--show")

    def lines(self):
        return self.program.output().splitlines()

    def answers(self):
        """The pids so far."""
        return [int(line) for line in self.lines() if line.isdigit()]

    def failures(self):
        return self.lines().count("fail")

    def next(self, how_many=3, seconds=20):
        """The pids in so many more answers."""
        before = len(self.answers())

        def enough():
            expect(self.program.running(), f"the client ended: {self.program.output()[-500:]}")
            return len(self.answers()) >= before + how_many

        wait_until(enough, seconds, f"{how_many} more answers")
        return set(self.answers()[before:])


@test("memif-workers-each-with-its-client", shim_only=True)
def pairs(context):
    nginx, client = two_workers(context)
    first = Wire(client, nginx)
    first.next(1)
    second = Wire(client, nginx)
    served = first.next() | second.next()
    expect_equal("who has answered", served, set(nginx.workers()))
    first.program.kill()
    second.program.kill()
    runs = [client.start("wrk", "-t1", "-c32", "-d2s", "--timeout", "5s", f"{nginx.url}/k8") for _ in range(2)]
    for run in runs:
        expect_equal("wrk's status", run.wait(30), 0)
        result = WrkResult(run.output())
        expect_equal("wrk's list of errors", result.errors, [])
        expect(result.requests >= 200, f"wrk made {result.requests} requests: {result.text[-300:]}")
    nginx.stop()


def two_wires(context):
    """(nginx, client, the two wires), both answering."""
    nginx, client = two_workers(context)
    wires = []
    for _ in range(2):
        wires.append(Wire(client, nginx))
        wires[-1].next(1)
    return nginx, client, wires


@test("memif-workers-one-killed", shim_only=True)
def worker_killed(context):
    nginx, _, wires = two_wires(context)
    for victim, other in (wires, wires[::-1]):
        (killed,), (untouched,) = victim.next(), other.next()
        failures = other.failures()
        kill(killed, signal.SIGKILL)
        # Its successor has its number, so its client finds it.
        wait_until(lambda v=victim, k=killed: v.answers()[-1] != k, 20, "an answer of the successor")
        expect_equal("who answers the other client", other.next(), {untouched})
        expect_equal("failures of the other client", other.failures(), failures)
    expect_equal("who answers", wires[0].next() | wires[1].next(), set(nginx.workers()))
    for wire in wires:
        wire.program.kill()


@test("memif-workers-client-killed", shim_only=True)
def client_killed(context):
    nginx, client, wires = two_wires(context)
    for _ in range(2):
        (served,), (untouched,) = wires[0].next(), wires[1].next()
        wires[0].program.kill()
        wires[0] = Wire(client, nginx)
        # The next client has the number that is free, and with it the worker on that wire.
        expect_equal("who answers the next client", wires[0].next(), {served})
        expect_equal("who answers the other client", wires[1].next(), {untouched})
    nginx.stop()


@test("memif-workers-reload", shim_only=True)
def reload(context):
    nginx, _, wires = two_wires(context)
    for _ in range(2):
        old = set(nginx.workers())
        nginx.command("reload")
        nginx.wait_gone(old)
        # The new workers have waited for the numbers of the old ones, so both clients are served again.
        for wire in wires:
            wait_until(lambda w=wire, o=old: w.answers()[-1] not in o, 20, "an answer of a new worker")
        served = wires[0].next() | wires[1].next()
        expect_equal("who answers", served, set(nginx.workers()))
    for wire in wires:
        expect("refused" not in wire.program.output(), f"a client was refused: {wire.program.output()[-300:]}")
    nginx.stop()


@test("memif-workers-more-than-wires", shim_only=True)
def too_many(context):
    server, client = context.memif(more=LOG, wires=1)
    nginx = Nginx(server, workers=2, server=SERVER).start()
    wire = Wire(client, nginx)
    (serving,) = wire.next()
    wait_until(lambda: "is taken: waiting" in nginx.log(), 10, "the other worker's word that it waits")
    kill(serving, signal.SIGKILL)
    wait_until(lambda: wire.answers()[-1] != serving, 20, "an answer of another worker")
    expect(wire.next() <= set(nginx.workers()), "an answer from nowhere")
    second = Wire(client, nginx)  # there is no wire for it: no connection, and no harm to the first
    wait_until(lambda: second.failures() > 1, 10, "failures of a client without a wire")
    expect_equal("answers to a client without a wire", second.answers(), [])
    wire.program.kill()
    second.next(1)
