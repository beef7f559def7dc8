"""Programs that get a connection by posix_spawn, from interpreters that start their children so."""

import hashlib
import random
import signal
import time
from pathlib import Path

from harness import cpu_share, descriptors, expect, expect_equal, wait_until
from registry import test
from suite_fork import PYTHON, expect_relayed

HERE = Path(__file__).resolve().parent


def settled(pid):
    """How many descriptors it has, once that has not changed for half a second."""
    seen = -1
    while seen != (seen := descriptors(pid)):
        time.sleep(0.5)
    return seen


def serve_by(context, way):
    server, client = context.veth()
    program = server.start(PYTHON, "-u", HERE / "spawning_server.py", server.address, "7010", way)
    program.says("ready")
    block = random.Random(way).randbytes(300_007)
    path = context.new_file("block")
    path.write_bytes(block)
    at_a_time = 1 if way == "system" else 2
    open_now = 0
    for turn in range(4):
        outs = [context.new_file("out") for _ in range(at_a_time)]
        clients = [client.start("sh", "-c", f"socat -t 20 - TCP:{server.address}:7010 < {path} > {out}") for out in outs]
        for one, out in zip(clients, outs):
            expect_equal("socat's status", one.wait(30), 0)
            expect_equal("what came back", hashlib.sha256(out.read_bytes()).hexdigest(), hashlib.sha256(block).hexdigest())
        if turn == 0:
            open_now = settled(program.pid)  # with the first connection come the stack and its spare sockets
    wait_until(lambda: descriptors(program.pid) <= open_now, 5, "closing what the relays had open")
    used = cpu_share([program.pid], 1)
    expect(used < 0.05, f"the server uses {used:.1%} of a core while idle")
    expect_relayed(server, program.pid, 4 * at_a_time)
    program.signal(signal.SIGTERM)
    program.wait()


@test("spawn-python-file-actions")
def file_actions(context):
    serve_by(context, "file-actions")


@test("spawn-python-inheritance")
def inheritance(context):
    serve_by(context, "inheritance")


@test("spawn-python-subprocess")
def python_subprocess(context):
    serve_by(context, "subprocess")


@test("spawn-glib")
def glib(context):
    serve_by(context, "glib")


@test("spawn-system")
def system(context):
    serve_by(context, "system")
