"""A shared interface for both families of addresses, and for processes that come to it in other ways than by a fork."""

import signal
import time
from pathlib import Path

from harness import expect, expect_equal, kill, wait_until
from nginx import Nginx
from registry import test
from suite_af_xdp import program_on
from suite_family import ANSWER, ASK
from suite_share import counted, raw_frames
from suite_wire import counters_of, stack_opens
from suite_workers import PID, expect_no_failure, result_of
from web import expect_files, get, get_status

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
V6 = {"server": "fd00:99::2", "client": "fd00:99::1"}


def wire(context, stack="server"):
    """(server, client) with both families; the addresses of the end on the stack are the kernel's."""
    sides = context.veth(stack=stack, driver="af_xdp", share=True)
    for end, side in zip(("server", "client"), sides):
        side.namespace.run("sysctl", "-qw", "net.ipv6.conf.wire.disable_ipv6=0")
        side.namespace.run("ip", "address", "add", f"{V6[end]}/64", "dev", "wire", "nodad")
        if side.on_stack:
            side.config = context.write_config("net_af_xdp0,iface=wire,share=kernel", None, '[interface]\naddress = "kernel"\n')
    return sides


def flows(client, nginx, seconds, v6):
    host = V6["server"] if v6 else nginx.side.address
    return client.start(PYTHON, HERE / "flows.py", "load", host, nginx.port, "/k8", seconds, 4, 4)


def both_families_test(name, workers):
    @test(name)
    def run(context):
        """nginx as its documentation has it: a listener for each family, the one of IPv6 for that alone; reload and a sudden death."""
        server, client = wire(context)
        more = f"listen [::]:8080 backlog=4096; {PID}"
        nginx = Nginx(server, listen="0.0.0.0:8080", workers=workers, server=more).start()
        wait_until(lambda: len(nginx.workers()) == workers, 10, f"{workers} workers")
        url = f"http://[{V6['server']}]:8080"
        loads = [flows(client, nginx, 3, v6) for v6 in (False, True)]
        expect_files(client, url, ("one", "k64", "m1"), 60, "-g")
        expect_files(client, nginx.url, ("one", "k64"))
        time.sleep(0.5)
        old = nginx.workers()
        nginx.command("reload")
        for load in loads:
            expect_no_failure(result_of(load), 100)
        nginx.wait_gone(old)
        if server.on_stack:
            before = stack_opens(nginx)
            for _ in range(4):
                get(client, f"{url}/hello", 5, "-g")
            expect_equal("connections of the stack's over IPv6", stack_opens(nginx) - before, 4)
        kill(nginx.workers()[0], signal.SIGKILL)
        wait_until(lambda: get_status(client, f"{url}/hello", 2, "-g")[1] == "200", 5, "an answer after a worker's death")
        for _ in range(2 * workers):
            get(client, f"{url}/hello", 5, "-g")
            get(client, f"{nginx.url}/hello", 5)
        expect_equal("the answer on the machine itself", get(server.kernel_side(), f"{url}/hello", 5, "-g"), "hello\n")
        pids = nginx.all_pids()
        nginx.command("stop")
        nginx.wait_gone(pids)
        wait_until(lambda: not program_on(server.namespace), 5, "the end of the XDP program")
        expect_equal("curl's status for a port of nobody's", get_status(client, f"{url}/hello", 3, "-g")[0], 7)

    return run


both_families_test("share-listeners-of-each-family", 1)
both_families_test("share-listeners-of-each-family-4-workers", 4)


@test("share-forked-before-the-device")
def forked_before(context):
    """Processes that were forked before one of them opened the device connect and are answered, each."""
    server, client = context.veth(stack="client", driver="af_xdp", share=True)
    answering = server.start(PYTHON, "-u", "-c", ANSWER, server.address, "7301")
    answering.says("ready")
    out = client.run(PYTHON, "-u", HERE / "family.py", "connect", server.address, "7301", "6", timeout=40).stdout
    expect_equal("what came of the children", out.strip(), str([0] * 6))


@test("share-listeners-forked-before-the-device")
def listeners_forked_before(context):
    """Each of them has a listener of its own: the kernel refuses none of their clients."""
    server, client = context.veth(driver="af_xdp", share=True)
    family = server.start(PYTHON, "-u", HERE / "family.py", "listen", server.address, "7400", "3")
    wait_until(lambda: family.output().count("listens") == 3, 10, "three listeners")
    time.sleep(0.2)
    for i in range(3):
        out = client.run(PYTHON, "-c", f"import socket\ns = socket.create_connection(('{server.address}', {7400 + i}), 5)\ns.settimeout(5)\ns.sendall(b'ask')\nprint(s.recv(100).decode())")
        expect_equal("the answer", out.stdout.strip(), f"child {i}")
    family.says("[0, 0, 0]")


@test("share-more-processes-than-slots")
def more_than_slots(context):
    """Those that find no slot on the device connect and listen in the kernel at once, and say so once each."""
    server, client = context.veth(stack="client", driver="af_xdp", share=True)
    answering = server.start(PYTHON, "-u", "-c", ANSWER, server.address, "7501")
    answering.says("ready")
    family = client.start(PYTHON, "-u", HERE / "family.py", "crowd", server.address, "7501", "69")
    family.says("listens", 60)
    in_kernel = len(client.namespace.run("ss", "-tnH", "state", "established", "dport", "=", ":7501").stdout.splitlines())
    for text in ("at once", "when told"):
        out = server.run(PYTHON, "-c", ASK, client.address, "7501")
        expect_equal("the answer", out.stdout.rsplit(maxsplit=2)[0], text)
    family.says("served [0]")
    if client.on_stack:
        expect(5 < in_kernel < 69, f"{in_kernel} of 69 connections are the kernel's")
        expect_equal("processes that said that they have no slot", family.output().count("every slot on"), in_kernel + 1)
    family.says("{0}")
    expect_equal("its status", family.wait(10), 0)


FROM = """import socket, sys, time
def ask(address):
    s = socket.socket()
    end = time.monotonic() + 10
    while True:
        try:
            s.bind((address, 0))
            break
        except OSError:
            assert time.monotonic() < end, "no such address"
            time.sleep(0.001)
    s.settimeout(5)
    s.connect((sys.argv[1], 8080))
    s.sendall(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
    assert s.recv(1000), "no answer"
    print("from", address, flush=True)
for address in sys.argv[2:]:
    ask(address)
"""


@test("share-connects-from-any-address")
def from_any_address(context):
    """More addresses than can take part, and one that has just been added: what the stack can't have the kernel has."""
    server, client = context.veth(stack="client", driver="af_xdp", share=True)
    if client.on_stack:
        client.config = context.write_config("net_af_xdp0,iface=wire,share=kernel", None, '[interface]\naddress = "kernel"\n')
    addresses = [f"10.99.0.{n}" for n in range(101, 111)]
    nginx = Nginx(server).start()
    program = client.start(PYTHON, "-c", FROM, server.address, client.address, *addresses)
    program.says("from")
    for address in addresses:
        client.namespace.run("ip", "address", "add", f"{address}/24", "dev", "wire")
        program.says(f"from {address}", 8)
    expect_equal("the status", program.wait(10), 0)
    for address in addresses[::3]:
        get(client, f"{nginx.url}/hello", 5, "--interface", address)
    nginx.stop()


HOLDS_PORT = """import os, socket, sys, time
s = socket.create_connection((sys.argv[1], 8080), 5)
os.closerange(s.fileno() + 1, 65536)
print("port", s.getsockname()[1], flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
if os.fork() == 0:
    os.closerange(s.fileno() + 1, 65536)
    time.sleep(20)
    os._exit(0)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
os._exit(0)
"""

BIND = "import socket, sys\ns = socket.socket()\ntry:\n    s.bind((sys.argv[1], int(sys.argv[2])))\n    print('free')\nexcept OSError as e:\n    print(e.errno)\n"


@test("share-a-held-port-is-free-with-its-connection", shim_only=True)
def held_port(context):
    """A connection's local port is the stack's as long as its process lives, whatever that closes, and no child keeps it."""
    server, client = context.veth(stack="client", driver="af_xdp", share=True)
    nginx = Nginx(server).start()
    go = context.new_file("go")
    program = client.start(PYTHON, "-c", HOLDS_PORT, server.address, go)
    program.says("port")
    port = program.output().split("port ")[1].split()[0]

    def bind():
        return client.kernel_side().run(PYTHON, "-c", BIND, client.address, port).stdout.strip()

    expect_equal("who wants the port of a connection of the stack's", bind(), "98")
    go.write_text("")
    expect_equal("the status", program.wait(10), 0)
    expect_equal("who wants the port of one that is gone", bind(), "free")
    nginx.stop()


@test("share-a-stale-neighbour-is-looked-after", shim_only=True)
def stale(context):
    """With an address of its own the stack has the kernel make sure of a neighbour that it has not heard of for long."""
    server, client = context.veth(driver="af_xdp", share=True)
    mac = client.namespace.run("cat", "/sys/class/net/wire/address").stdout.strip()
    nginx = Nginx(server).start()
    server.namespace.run("ip", "neigh", "replace", client.address, "lladdr", mac, "dev", "wire", "nud", "stale")
    get(client, f"{nginx.url}/hello")
    wait_until(lambda: "STALE" not in server.namespace.run("ip", "neigh", "show", "dev", "wire").stdout, 3, "a question for the neighbour")
    nginx.stop()


LEFT = """import os, select, socket, sys, time
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], 8080))
s.listen(64)
pid = os.fork()
poll = select.poll()
if pid == 0:
    poll.register(s, select.POLLIN)
    print("ready", flush=True)
    poll.poll(10000)
    time.sleep(0.3)
    sys.exit(0)
os.waitpid(pid, 0)
"""

WAITS = """import socket, sys
s = socket.create_connection((sys.argv[1], 8080), 5)
s.sendall(b"request")
s.settimeout(5)
try:
    print("got", s.recv(100))
except OSError as e:
    print(type(e).__name__)
"""


@test("share-what-nobody-has-accepted-is-reset-at-the-end")
def left_behind(context):
    """A worker ends with a connection in its queue, then its parent, which never had a stack and knows no neighbour."""
    server, client = context.veth(driver="af_xdp", share=True)
    program = server.start(PYTHON, "-c", LEFT, server.address)
    program.says("ready")
    time.sleep(0.3)
    expect_equal("what became of the connection", client.run(PYTHON, "-c", WAITS, server.address).stdout.strip(), "ConnectionResetError")
    expect_equal("the status", program.wait(10), 0)


@test("share-xdp-native-is-native-or-not-at-all", shim_only=True)
def native(context):
    """A driver that has no XDP is not used in another mode without a word, shared or not."""
    server, _ = context.veth(driver="af_xdp", share=True)
    for share in ("", ",share=kernel"):
        server.config = context.write_config(f"net_af_xdp0,iface=lo{share},xdp=native", "10.77.0.2", device='on_failure = "exit"\n' if share else "")
        program = server.start(PYTHON, "-m", "http.server", "8080")
        expect_equal("the status", program.wait(20), 69)
        expect("write xdp=generic in the port" in program.output(), f"it said: {program.output()}")


@test("share-with-a-driver-without-xdp", shim_only=True)
def without_xdp(context):
    """Packet sockets take its place. (lo has no XDP, and answers nobody here: what is asked is how it is shared.)"""
    server, _ = context.veth(driver="af_xdp", share=True)
    server.namespace.run("ip", "address", "add", "10.77.0.2/32", "dev", "lo")
    server.config = context.write_config("net_af_xdp0,iface=lo,share=kernel", None)
    program = server.start(PYTHON, "-m", "http.server", "8080", env={"MTCP_LOG": "info"})
    program.says("lo is shared with the kernel: by packet sockets, without XDP")
    program.says("a stack on")
    expect_equal("the program on the interface", program_on(server.namespace, "lo"), "classifier")
    program.kill()
    wait_until(lambda: not program_on(server.namespace, "lo"), 5, "the end of the program on the interface")


@test("share-fragments-of-a-connection-draw-no-reset")
def fragments(context):
    """The kernel would put them together, and answers what it knows nothing of; the stack waits until it comes whole."""
    for nginx, send in raw_frames(context, "fragments", "f"):
        expect_equal("what came of a request in fragments", send().stdout.strip(), "no reset answer")
        if nginx.side.on_stack:
            expect_equal("fragments that were counted", counted(nginx, "rx_fragment"), 1)
