"""memcached, of which one thread accepts what others serve: each of these has a stack of its own, if connections last."""

import sys

from harness import command, expect
from registry import test
from suite_programs import PYTHON, STAT, stop, use_store, wait_for_port

HOLD = """
import socket, sys, time
held = [socket.create_connection((sys.argv[1], 11211), 5) for _ in range(12)]
for s in held:
    s.sendall(b"get nothing\\r\\n")
    assert s.recv(99) == b"END\\r\\n"
print("held", flush=True)
time.sleep(20)
"""

SHORT = """
import socket, sys
for _ in range(400):
    with socket.create_connection((sys.argv[1], 11211), 5) as s:
        s.sendall(b"get nothing\\r\\n")
        assert s.recv(99) == b"END\\r\\n"
"""


def stat(pid):
    """What mtcp-stat says of a process, for programs."""
    return command(sys.executable, STAT, "-r", pid).stdout.splitlines()


def counted(pid, counter):
    return sum(int(line.split()[2]) for line in stat(pid) if line.startswith(f"counter {counter} "))


def connections(pid):
    """How many each stack of the process has."""
    return [int(line.split("connections=")[1].split()[0]) for line in stat(pid) if line.startswith("stack ")]


@test("memcached-a-stack-for-each-thread")
def memcached_stacks(context):
    """One thread accepts, and what it gives to another one goes to that one's stack: if connections last."""
    server, client = context.veth(more='[stack]\nstacks = 2\n[[rule]]\nmatch = { role = "listen", program = "memcached" }\nto = "stack"\n')

    def start():
        program = server.start("memcached", "-l", server.address, "-p", "11211", "-U", "0", "-t", "2", "-u", "www-data", "-m", "64")
        wait_for_port(client, program, server.address, 11211)
        return program

    program = start()
    use_store(client, "memcached", server.address, 11211, connections=12, rounds=90)
    holder = client.start(PYTHON, "-c", HOLD, server.address)
    holder.says("held")
    if server.on_stack:
        there = connections(program.pid)
        expect(len(there) == 2 and min(there) >= 5, f"the stacks have {there} connections")
        expect(counted(program.pid, "connections_adopted") >= 12, "hardly any connection went to the other stack")
    holder.kill()
    stop(program)
    program = start()
    client.run(PYTHON, "-c", SHORT, server.address)
    if server.on_stack:
        adopted = counted(program.pid, "connections_adopted")
        expect(adopted <= 70, f"{adopted} connections of one request went to the other stack")
    use_store(client, "memcached", server.address, 11211)
    stop(program)
