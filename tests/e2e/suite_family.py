"""Several processes of one program on one device, however they come to it (family.py)."""

import json
from pathlib import Path

from harness import Stopwatch, expect, expect_equal, wait_until
from registry import test
from suite_life import shares
from suite_wire import stat

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"

ASK = """import socket, sys, time
start = time.monotonic()
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 8)
connected = time.monotonic()
s.sendall(b"ask")
print(s.recv(100).decode(), "%.3f %.3f" % (connected, connected - start))
"""

ANSWER = """import socket, sys, threading
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], int(sys.argv[2])))
s.listen(128)
print("ready", flush=True)
def talk(c):
    with c:
        if c.recv(100):
            c.sendall(b"answer")
            c.recv(1)
while True:
    threading.Thread(target=talk, args=(s.accept()[0],), daemon=True).start()
"""

TRANSFER = """import socket, sys, time
for _ in range(int(sys.argv[3])):
    control = socket.create_connection((sys.argv[1], int(sys.argv[2])), 8)
    port = int(control.recv(10))
    start = time.monotonic()
    data = socket.create_connection((sys.argv[1], port), 8)
    data.settimeout(20)
    connected = time.monotonic() - start
    block = b"x" * 1000000
    for _ in range(20):
        data.sendall(block)
    data.shutdown(socket.SHUT_WR)
    print(data.recv(20).decode(), "%.3f" % connected, "%.3f" % (time.monotonic() - start))
"""


# Sees the names of Unix sockets, as everybody does, and connects to those beside listeners as if it were a process of that
# program which connects from port 999.
STRANGER = """import itertools, pathlib, socket, struct, sys
def connect(name):
    end = lambda port: struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(sys.argv[1]) + bytes(20)
    s = socket.socket(socket.AF_UNIX)
    s.bind(b"\\0mtcp-relay-1\\0" + end(int(sys.argv[2])) + end(999) + bytes(12))
    try:
        s.connect(name)
    except ConnectionRefusedError:
        return 0
    s.settimeout(2)
    try:
        s.sendall(b"stranger")
        print("heard", s.recv(100))
    except OSError:
        print("closed")
    return 1
n = 0
names = pathlib.Path("/proc/net/unix").read_bytes()
tag = b"@mtcp-local-1@"
at = names.find(tag)
while at >= 0:
    # Any byte may be in it. One that is zero is shown as @, too.
    hash = names[at + len(tag):at + len(tag) + 16]
    for name in itertools.product(*([b"@", b"\\0"] if b == 64 else [bytes([b])] for b in hash)):
        n += connect(b"\\0mtcp-local-1\\0" + b"".join(name))
    at = names.find(tag, at + 1)
print("connected", n)
"""


def start_family(side, what, port, count=1, env=None):
    return side.start(PYTHON, "-u", HERE / "family.py", what, side.address, port, count, env=env)


def received(side):
    """Frames that have come to its interface, a segment that is to be cut as one."""
    return json.loads(side.namespace.run("ip", "-s", "-j", "link", "show", "wire").stdout)[0]["stats64"]["rx"]["packets"]


def ask(client, server, port):
    """What the server answers, when the connect was over (CLOCK_MONOTONIC), and how long it has taken."""
    text, when, seconds = client.run(PYTHON, "-c", ASK, server.address, port).stdout.rsplit(maxsplit=2)
    return text, float(when), float(seconds)


@test("family-a-child-reaches-its-parent")
def child_to_parent(context):
    server, _ = context.veth()
    out = server.run(PYTHON, "-u", HERE / "family.py", "to-parent", server.address, "7300", "5").stdout.split("\n")
    for i, address in enumerate((server.address, "127.0.0.1")):
        expect_equal("what came of the children", out[2 * i], f"{address} [0, 0, 0, 0, 0]")
        expect_equal("what came of the parent", out[2 * i + 1], "b'child' [0]")


@test("family-forked-before-the-device")
def forked_before(context):
    server, client = context.veth(stack="client")
    answering = server.start(PYTHON, "-u", "-c", ANSWER, server.address, "7301")
    answering.says("ready")
    out = client.run(PYTHON, "-u", HERE / "family.py", "connect", server.address, "7301", "20", timeout=40).stdout
    expect_equal("what came of the children", out.strip(), str([0] * 20))
    out = client.run(PYTHON, "-u", HERE / "family.py", "hand-down", server.address, "7301", "4", timeout=40).stdout
    expect_equal("what came of those that the first has left", out.strip(), str([0] * 5))


@test("family-one-is-stopped")
def one_stopped(context):
    server, client = context.veth(stack="client")
    answering = server.start(PYTHON, "-u", "-c", ANSWER, server.address, "7302")
    answering.says("ready")
    watch = Stopwatch()
    words = client.run(PYTHON, "-u", HERE / "family.py", "stopped", server.address, "7302", timeout=30).stdout.split()
    expect(words[:1] == ["longest"] and float(words[1]) < 1 + watch.stalled(), f"a thread did not go on while another one waited for a sibling that is stopped: {words}")
    expect_equal("the answers and the status", words[2:], ["[b'answer']", "[0]"])


@test("family-each-child-has-a-listener")
def each_listens(context):
    server, client = context.veth()
    program = start_family(server, "listen", 7310, 4)
    wait_until(lambda: program.output().count("listens") == 4, 10, "four listeners")
    for i in (2, 0, 3, 1):
        expect_equal("the answer", ask(client, server, 7310 + i)[0], f"child {i}")
    expect_equal("the status", program.wait(), 0)
    program.says("[0, 0, 0, 0]")


@test("family-a-stranger-is-not-let-in")
def stranger(context):
    server, client = context.veth()
    program = start_family(server, "listen", 7370, 1)
    program.says("listens")
    out = server.kernel_side().run(PYTHON, "-c", STRANGER, server.address, "7370").stdout
    if server.on_stack:
        expect("connected 0" not in out and "heard b'c" not in out, f"the stranger: {out}")
    expect_equal("the answer", ask(client, server, 7370)[0], "child 0")
    expect_equal("the status", program.wait(), 0)
    program.says("[0]")


@test("family-listens-and-does-something-else")
def listens_without_wait(context):
    server, client = context.veth()
    program = start_family(server, "busy", 7320)
    program.says("listens")
    if server.on_stack:
        wait_until(lambda: "LISTEN" in stat(program.pid, check=False), 5, "its stack")
    watch = Stopwatch()
    text, connected, seconds = ask(client, server, 7320)
    expect_equal("the answer", text, "late")
    expect(seconds < 0.8 + watch.stalled(), f"a connect took {seconds} s while the server did something else")
    program.says("back at")
    expect(connected < float(program.output().split("back at ")[1].split()[0]), "the connect was over when the server was back only")


@test("family-a-child-opens-a-listener")
def transfers(context):
    server, client = context.veth(offloads=("server", "client"))
    rounds = 8  # who is the home of a child's flow by the steering table is chance
    program = start_family(server, "transfer", 7330, rounds + 1)
    program.says("listens")
    came = received(server)
    watch = Stopwatch()
    out = client.run(PYTHON, "-c", TRANSFER, server.address, "7330", rounds, timeout=60).stdout
    print("   ", out.replace("\n", "; "))
    came = received(server) - came
    for line in out.splitlines():
        total, connected, taken = line.split()
        expect_equal("what arrived", total, "20000000")
        expect(float(connected) < 0.8 + watch.stalled(), f"the connect to the child's listener took {connected} s")
        expect(float(taken) < 8 + watch.stalled(), f"20 MB took {taken} s")
    if server.on_stack:  # the parent's: what came to it and was for a child
        share = shares([program.pid])[0]
        print(f"    {came} frames came, {share['forwarded']} were passed on, {share['lost']} of them lost")
        # Each connection begins so, until the device has been told whose it is.
        expect(int(share["forwarded"]) < came / 5, f"of {came} frames the parent has passed on {share['forwarded']}")
        expect(int(share["lost"]) < came / 50, f"of {came} frames {share['lost']} were lost on the way to another stack")
    client.run(PYTHON, "-c", TRANSFER, server.address, "7330", "1", timeout=60)
    expect_equal("the status", program.wait(), 0)


@test("family-datagrams-beside")
def beside(context):
    server, client = context.veth()
    program = start_family(server, "beside", 7340)
    program.says(f"bound to {server.address}")
    expect_equal("the answer", ask(client, server, 7340)[0], "tcp")


@test("family-socket-activation")
def activation(context):
    server, client = context.veth()
    env = {"SHIM": server.env.get("LD_PRELOAD", ""), "LD_PRELOAD": ""}
    program = start_family(server, "activated", 7350, env=env)
    program.says("listens")
    expect_equal("the answer", ask(client, server, 7350)[0], "activated")
    expect_equal("the status", program.wait(), 0)


@test("family-little-address-space")
def little_address_space(context):
    server, client = context.veth()
    program = server.start("prlimit", f"--as={200 << 20}", PYTHON, "-u", HERE / "family.py", "busy", server.address, 7360)
    program.says("listens")
    expect_equal("the answer", ask(client, server, 7360)[0], "late")
