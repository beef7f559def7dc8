"""IPv6 on a device, with addresses of the stack's own."""

import time

from harness import Side, expect, expect_equal
from nginx import Nginx
from registry import test
from suite_wire import counters_of
from web import expect_files, expect_wrk, get, get_status, small_files

# One echo request (RFC 4443); prints the type of the answer.
PING = """
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.settimeout(3)
s.connect(("fd00:99::2", 0))
s.send(bytes([128, 0, 0, 0, 1, 2, 3, 4]) + b"payload")
while (answer := s.recv(4096))[0] > 130:
    pass
print(answer[0] if answer[4:] == bytes([1, 2, 3, 4]) + b"payload" else answer)
"""
ADDRESSES = {"server": "fd00:99::2", "client": "fd00:99::1"}


def wire(context, stack="server"):
    """(server, client) with IPv6 as well. Their `address` is the one of IPv6, in brackets, as a URL has it."""
    sides = []
    for end, side in zip(("server", "client"), context.veth(stack=stack)):
        own = ADDRESSES[end]
        if side.on_stack:
            side.config = context.write_config("net_af_packet0,iface=wire", None, f'[interface]\naddress = ["{side.address}/24", "{own}/64"]\n')
        else:
            side.namespace.run("sysctl", "-qw", "net.ipv6.conf.wire.disable_ipv6=0")
            side.namespace.run("ip", "address", "add", f"{own}/64", "dev", "wire", "nodad")
        sides.append(Side(context, side.namespace, f"[{own}]", side.config))
    return sides


@test("ipv6-server")
def server(context):
    """nginx for both families on one socket; every size, keep-alive, a connection for each request; ping and neighbour discovery."""
    server, client = wire(context)
    nginx = Nginx(server, listen="[::]:8080", listen_options="ipv6only=off", server='location = /from { return 200 "$remote_addr\\n"; }').start()
    expect_files(client, nginx.url, small_files(client), 60, "-g")
    expect_equal("whom it saw", get(client, f"{nginx.url}/from", 10, "-g"), "fd00:99::1\n")
    expect_equal("whom it saw", get(client, "http://10.99.0.2:8080/from"), "::ffff:10.99.0.1\n")
    expect_equal("PUT", get_status(client, f"{nginx.url}/put/m10", 20, "-g", "-T", context.files.root / "m10"), (0, "201"))
    expect_wrk(client, f"{nginx.url}/k8", seconds=1)
    expect_wrk(client, f"{nginx.url}/s64", seconds=1, more=["-H", "Connection: close"])
    if server.on_stack:
        expect_equal("the answer to an echo request", client.run("/usr/bin/python3", "-c", PING).stdout.strip(), "129")
    client.namespace.run("ip", "-6", "neigh", "flush", "dev", "wire")
    get(client, f"{nginx.url}/hello", 10, "-g")
    if server.on_stack:
        counters = counters_of(nginx.workers()[0])
        expect(counters["passive_opens"] > 100 and counters["nd_advertisements_sent"] > 1, f"the stack has {counters['passive_opens']} connections")
    nginx.stop()


@test("ipv6-client")
def client(context):
    """curl and wrk on the stack: the neighbour is discovered, and gets another MAC address meanwhile."""
    server, client = wire(context, stack="client")
    nginx = Nginx(server, listen="[::]:8080").start()
    expect_files(client, nginx.url, ("empty", "one", "k64", "m10"), 60, "-g")
    expect_wrk(client, f"{nginx.url}/k8", seconds=1)
    server.namespace.run("sysctl", "-qw", "net.ipv6.conf.wire.ndisc_notify=1")
    load = client.start("wrk", "-t1", "-c4", "-d3s", "--timeout", "5s", f"{nginx.url}/k8")
    time.sleep(1)
    server.namespace.run("ip", "link", "set", "wire", "address", "02:00:00:00:77:01")
    expect_equal("wrk's status", load.wait(20), 0)
    expect("Socket errors" not in load.output(), f"wrk: {load.output()[-400:]}")
    nginx.stop()
