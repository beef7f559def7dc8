"""A shared interface for both families of addresses, and for processes that come to it in other ways than by a fork."""

import signal
import time
from pathlib import Path

from harness import expect, expect_equal, kill, wait_until
from nginx import Nginx
from registry import test
from suite_af_xdp import program_on
from suite_family import ANSWER
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
        nginx.program.kill() if workers == 0 else nginx.command("stop")
        wait_until(lambda: not program_on(server.namespace), 5, "the end of the XDP program")
        expect_equal("curl's status on a port of nobody's", get_status(client, f"{url}/hello", 3, "-g")[0], 7)

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
