"""The stack's addresses, routes, neighbours and MTU are the kernel's, and change while programs run."""

import json
import re
import time
from pathlib import Path

from harness import cpu_share, expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from suite_programs import shares, start_haproxy, stop, wait_for_port
from suite_stat import HOLDS
from suite_wire import counters_of, stack_opens, stat
from suite_workers import PID, expect_no_failure, result_of, start_flows
from web import expect_files, expect_wrk, get, get_status

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
OURS, SECOND, FAR = "10.99.0.2", "10.99.0.9", "192.0.2.1"


def wire(context, stack="server", more=""):
    """(server, client): one interface, shared with the kernel, whose addresses are both's."""
    server, client = context.veth(stack=stack, driver="af_xdp", share=True)
    side = server if stack == "server" else client
    if side.on_stack:
        side.config = context.write_config("net_af_xdp0,iface=wire,share=kernel", None, f'[interface]\naddress = "kernel"\n{more}')
    return server, client


def answers(client, address, *options, seconds=8):
    return get_status(client, f"http://{address}:8080/hello", seconds, *options)[1] == "200"


def expect_no_answer(client, address, *options, why):
    expect(not answers(client, address, *options, seconds=2), why)


def expect_on_stack(nginx, client, address, *options):
    """Each of two answers comes from the stack; until the program on the interface knows a new address, the kernel answers."""

    def look():
        before = stack_opens(nginx)
        for _ in range(2):
            expect(answers(client, address, *options), f"{address} does not answer {options}")
        return not nginx.side.on_stack or stack_opens(nginx) - before == 2

    wait_until(look, 5, f"answers of the stack at {address}")


@test("kernel-net-addresses-and-routes")
def addresses(context):
    """Added, they serve at once; removed, they do not; IPv6 as well; a way back that appears is taken."""
    server, client = wire(context)
    nginx = Nginx(server, listen="[::]:8080", listen_options="ipv6only=off", workers=2).start()
    expect_on_stack(nginx, client, OURS)
    server.namespace.run("ip", "address", "add", f"{SECOND}/24", "dev", "wire")
    expect_on_stack(nginx, client, SECOND)
    server.namespace.run("ip", "address", "del", f"{SECOND}/24", "dev", "wire")
    expect_no_answer(client, SECOND, why="an address that is gone answers")
    server.namespace.run("ip", "address", "add", f"{SECOND}/24", "dev", "wire")
    expect_on_stack(nginx, client, SECOND)
    for side, address in ((server, "fd00:99::2"), (client, "fd00:99::1")):
        side.namespace.run("sysctl", "-qw", "net.ipv6.conf.wire.disable_ipv6=0")
        side.namespace.run("ip", "address", "add", f"{address}/64", "dev", "wire", "nodad")
    expect_on_stack(nginx, client, "[fd00:99::2]", "-g")
    expect_files(client, "http://[fd00:99::2]:8080", ("one", "k64", "m10"), 60, "-g")
    # A client behind a gateway, which the server learns of while it runs.
    client.namespace.run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
    expect_no_answer(client, OURS, "--interface", FAR, why="there is an answer without a route")
    server.namespace.run("ip", "route", "add", "192.0.2.0/24", "via", "10.99.0.1")
    expect_on_stack(nginx, client, OURS, "--interface", FAR)
    # To this host's own address by way of the kernel, from the stack's own program.
    expect_equal("the answer on the machine itself", get(server.kernel_side(), f"http://{OURS}:8080/hello"), "hello\n")
    nginx.stop()


@test("kernel-net-mtu-and-mac-under-load")
def changes(context):
    """Transfers go on while the MTU shrinks and the peer's MAC address changes; new connections have the smaller MTU."""
    server, client = wire(context)
    nginx = Nginx(server, workers=2, server=PID).start()
    client.namespace.run("sysctl", "-qw", "net.ipv4.conf.wire.arp_notify=1")
    load = start_flows(client, "load", nginx, "/k8", 5, 8, 8)
    time.sleep(1)
    server.namespace.run("ip", "link", "set", "wire", "mtu", "1300")
    time.sleep(1)
    client.namespace.run("ip", "link", "set", "wire", "address", "02:00:00:00:77:02")
    expect_files(client, nginx.url, ("one", "m10"))
    expect_no_failure(result_of(load), 100)
    if server.on_stack:
        held = client.start(PYTHON, "-c", HOLDS, OURS, "8080")
        held.says("connected")
        reports = "".join(stat(pid, "-r") for pid in nginx.workers())
        sizes = {int(m) for m in re.findall(r"^connection .* mss=(\d+)", reports, re.MULTILINE)}
        expect(sizes and max(sizes) <= 1300 - 40, f"segment sizes: {sizes}")
        held.kill()
    nginx.stop()


def down_test(name, end):
    @test(name)
    def run(context):
        """Five seconds without a link; nobody's connection ends for that."""
        server, client = wire(context)
        nginx = Nginx(server, workers=2).start()
        load = client.start(PYTHON, HERE / "patient_client.py", OURS, 8080, 8, 8)
        load.says("begun")
        side = server if end == "server" else client
        side.namespace.run("ip", "link", "set", "wire", "down")
        time.sleep(5)
        side.namespace.run("ip", "link", "set", "wire", "up")
        result = result_of(load)
        expect_equal("what failed", result["failures"], [])
        expect(result["answers"] > 200, f"{result['answers']} answers")
        expect(answers(client, OURS), "there is no answer after the link has come back")
        nginx.stop()

    return run


down_test("kernel-net-link-down-under-load", "server")
down_test("kernel-net-carrier-lost-under-load", "client")


@test("kernel-net-interface-deleted", shim_only=True)
def deleted(context):
    """The program lives on, on the kernel: it answers on the machine itself, and does not spin."""
    server, client = wire(context)
    nginx = Nginx(server, listen="0.0.0.0:8080").start()
    expect_on_stack(nginx, client, OURS)
    server.namespace.run("ip", "link", "del", "wire")
    wait_until(lambda: get(server.kernel_side(), "http://127.0.0.1:8080/hello") == "hello\n", 5, "an answer by the kernel")
    expect(cpu_share(nginx.all_pids(), 2) < 0.25, "it spins")
    said = [line for line in nginx.log().splitlines() if "mtcp[" in line]
    expect(len(said) == 1 and "the interface wire is gone" in said[0], f"it said: {said}")
    nginx.stop()


@test("kernel-net-neighbours-without-privilege")
def neighbours(context):
    """Workers that are not root send to a neighbour that the kernel does not know: it resolves it for them."""
    server, client = wire(context)
    nginx = Nginx(server, workers=1).start()
    expect_on_stack(nginx, client, OURS)
    server.namespace.run("ip", "neigh", "flush", "all")
    expect_on_stack(nginx, client, OURS)
    # The client's own questions do not help: it knows us for good.
    mac = server.namespace.run("cat", "/sys/class/net/wire/address").stdout.strip()
    client.namespace.run("ip", "neigh", "replace", OURS, "lladdr", mac, "dev", "wire", "nud", "permanent")
    server.namespace.run("ip", "neigh", "flush", "all")
    expect_on_stack(nginx, client, OURS)
    nginx.stop()


MARKED = """import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(sys.argv[2]))
s.connect((sys.argv[1], 8080))
s.sendall(b"GET /from HTTP/1.0\\r\\n\\r\\n")
print(s.makefile().read())
"""


@test("kernel-net-policy-routing")
def policy(context):
    """What `ip rule` sends through a tunnel goes there, and not past it; with a way of its own for an address, as on a host with two
    uplinks, the stack answers by that."""
    server, client = wire(context, stack="client")
    for side, address in ((server, "10.50.0.1"), (client, "10.50.0.2")):
        if side is server:
            server.namespace.run("ip", "link", "add", "tunnel", "type", "veth", "peer", "name", "tunnel", "netns", client.namespace.name)
        side.namespace.run("ip", "link", "set", "tunnel", "up")
        side.namespace.run("ip", "address", "add", f"{address}/24", "dev", "tunnel")
    server.namespace.run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
    for words in (("default", "via", OURS), ("default", "via", "10.50.0.1", "table", "1000")):
        client.namespace.run("ip", "route", "add", *words)
    nginx = Nginx(server, listen="0.0.0.0:8080", server='location = /from { return 200 "$remote_addr\\n"; }').start()

    def seen(*rule):
        if rule:
            client.namespace.run("ip", "rule", "add", *rule)
        answer = get(client, f"http://{FAR}:8080/from").strip()
        if rule:
            client.namespace.run("ip", "rule", "del", *rule)
        return answer

    expect_equal("whom it saw without a rule", seen(), "10.99.0.1")
    client.namespace.run("ip", "rule", "add", "fwmark", "7", "lookup", "1000")
    for mark, address in ((0, "10.99.0.1"), (7, "10.50.0.2")):
        expect_equal(f"whom it saw with the mark {mark}", client.run(PYTHON, "-c", MARKED, FAR, mark).stdout.split()[-1], address)
    client.namespace.run("ip", "rule", "del", "fwmark", "7", "lookup", "1000")
    for rule in (("lookup", "1000"), ("to", f"{FAR}/24", "lookup", "1000"), ("not", "fwmark", "0xca6c", "lookup", "1000"), ("uidrange", "0-0", "lookup", "1000")):
        expect_equal(f"whom it saw with {' '.join(rule)}", seen(*rule), "10.50.0.2")
    expect_equal("whom it saw with a rule for another destination", seen("to", "203.0.113.0/24", "lookup", "1000"), "10.99.0.1")
    nginx.stop()


@test("kernel-net-answers-by-the-way-of-the-address")
def two_uplinks(context):
    server, client = wire(context)
    nginx = Nginx(server, workers=2).start()
    client.namespace.run("ip", "address", "add", f"{FAR}/32", "dev", "lo")
    server.namespace.run("ip", "route", "add", "default", "via", "10.99.0.1", "table", "1000")
    expect_no_answer(client, OURS, "--interface", FAR, why="there is an answer without a route")
    server.namespace.run("ip", "rule", "add", "from", OURS, "lookup", "1000")
    expect_on_stack(nginx, client, OURS, "--interface", FAR)
    server.namespace.run("ip", "rule", "del", "from", OURS, "lookup", "1000")
    expect_no_answer(client, OURS, "--interface", FAR, why="there is an answer without a rule")
    nginx.stop()


@test("kernel-net-peers-that-are-answered-over-another-interface")
def another_way_back(context):
    """A host in two networks: what comes in by one and is answered by the other the kernel serves; a peer on the wire the stack again."""
    server, client = wire(context)
    server.namespace.run("ip", "link", "add", "second", "type", "veth", "peer", "name", "second", "netns", client.namespace.name)
    for side, address in ((server, "10.50.0.2"), (client, "10.50.0.1")):
        for interface in ("all", "wire", "second"):
            side.namespace.run("sysctl", "-qw", f"net.ipv4.conf.{interface}.rp_filter=0")
        side.namespace.run("ip", "link", "set", "second", "up")
        side.namespace.run("ip", "address", "add", f"{address}/24", "dev", "second")
    nginx = Nginx(server, workers=2).start()
    expect_on_stack(nginx, client, OURS)
    before = stack_opens(nginx)
    for _ in range(4):
        expect_equal("the answer by the other way", get(client, f"http://{OURS}:8080/hello", 8, "--interface", "10.50.0.1"), "hello\n")
    expect_equal("connections of the stack's", stack_opens(nginx) - before, 0)
    expect_files(client, nginx.url, ("m1",), 20, "--interface", "10.50.0.1")
    expect_on_stack(nginx, client, OURS)
    server.namespace.run("ip", "route", "add", "10.50.0.1/32", "via", "10.99.0.1")
    expect_on_stack(nginx, client, OURS, "--interface", "10.50.0.1")
    nginx.stop()


def stacks_of(program):
    return sorted(int(share["stack"]) for share in shares(program.pid))


@test("kernel-net-thread-stacks")
def thread_stacks(context):
    """Threads with stacks of their own: each of these follows the kernel, and the same ports are the stacks' for all."""
    server, client = wire(context, more="[stack]\nstacks = 3\n")
    program = server.start(context.build / "perf/msg_server", "0.0.0.0", "9000", "1024", "3")
    wait_for_port(client, program, OURS, 9000)

    def load(address, seconds):
        return client.start(context.build / "perf/msg_client", address, "9000", "32", seconds)

    def expect_served(running):
        expect_equal("the client's status", running.wait(30), 0)
        done = json.loads(running.output())
        expect(done["connections"] > 500, f"only {done['connections']} connections")
        for name in ("connect_errors", "io_errors", "wrong_bytes", "closed_early"):
            expect_equal(name, done[name], 0)
        return done["connections"]

    expect_served(load(OURS, "1"))
    if server.on_stack:
        expect_equal("stacks of the process", stacks_of(program), [0, 1, 2])
    client.namespace.run("sysctl", "-qw", "net.ipv4.conf.wire.arp_notify=1")
    running = load(OURS, "2")
    time.sleep(0.5)
    client.namespace.run("ip", "link", "set", "wire", "address", "02:00:00:00:77:03")
    expect_served(running)
    server.namespace.run("ip", "address", "add", f"{SECOND}/24", "dev", "wire")

    def opened_by_stacks():
        before = counters_of(program.pid)["passive_opens"]
        client.run(PYTHON, "-c", f"import socket\nfor _ in range(60): socket.create_connection(('{SECOND}', 9000), 10).close()")
        return counters_of(program.pid)["passive_opens"] - before >= 60

    if server.on_stack:  # every stack, and the program on the interface, has it
        wait_until(opened_by_stacks, 10, "connections to the new address that are all the stacks'")
    before = counters_of(program.pid)["passive_opens"] if server.on_stack else 0
    served = expect_served(load(SECOND, "1"))
    if server.on_stack:
        opened = counters_of(program.pid)["passive_opens"] - before
        expect(opened >= served, f"{opened} of {served} connections to the new address were the stacks'")
    stop(program)


@test("kernel-net-haproxy-by-thread")
def haproxy_by_thread(context):
    """Both threads' stacks connect to the upstream by the kernel's routes, from ports that the kernel gives to nobody else."""
    sides = wire(context, more="[stack]\nstacks = 2\n")
    server, client, upstream, program, url = start_haproxy(context, edit=(":8080\n", ":8080 shards by-thread\n"), sides=sides)
    expect_files(client, url, ("one", "k64", "m10"))
    expect_wrk(client, f"{url}/s64", connections=50)
    expect_wrk(client, f"{url}/s64", more=("-H", "Connection: close"))
    if server.on_stack:
        expect_equal("stacks of the process", stacks_of(program), [0, 1])
        expect(counters_of(program.pid).get("active_opens", 0) > 0, "the stacks have connected to nobody")
    upstream.stop()
    stop(program, 10)
