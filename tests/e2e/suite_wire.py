"""The wire itself: ping, ARP, hostile frames; and looking into a running process."""

import sys
import time
from pathlib import Path

from harness import command, expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from web import expect_files, get

HERE = Path(__file__).resolve().parent
STAT = HERE.parent.parent / "scripts/mtcp-stat"
PYTHON = "/usr/bin/python3"


def stat(pid, *options, check=True):
    """What mtcp-stat says of a process."""
    return command(sys.executable, STAT, *options, pid, check=check).stdout


def counters_of(pid, check=True):
    """As a dictionary. Without `check` it is empty for a process that has no stack yet."""
    return {words[1]: int(words[2]) for line in stat(pid, "-r", check=check).splitlines() if (words := line.split())[0] == "counter"}


def wait_for_stack(program, answers):
    """The kernel answers until the stack does: until `answers()` was answered by that."""
    wait_until(lambda: answers() and counters_of(program.pid, check=False).get("passive_opens", 0) > 0, 10, "an answer of the stack's")


def stack_opens(nginx):
    """Connections that nginx's stacks have accepted; 0 on the kernel."""
    return sum(counters_of(pid).get("passive_opens", 0) for pid in nginx.serving_pids()) if nginx.side.on_stack else 0


@test("wire-ping")
def ping(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    get(client, f"{nginx.url}/hello")
    out = client.run(PYTHON, HERE / "wire_tool.py", "ping", server.address).stdout
    expect_equal("answered echo requests", out.strip(), "5 of 5")
    nginx.stop()


@test("wire-arp-after-the-cache-is-flushed")
def arp(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    for _ in range(3):
        get(client, f"{nginx.url}/hello")
        client.run("ip", "neigh", "flush", "dev", "wire")
    expect_files(client, nginx.url, ["m1"])
    nginx.stop()


@test("wire-hostile-frames")
def hostile(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    get(client, f"{nginx.url}/hello")
    mac = client.run("sh", "-c", f"ip neigh show {server.address} | sed 's/.*lladdr \\([^ ]*\\).*/\\1/'").stdout.strip()
    worker = nginx.serving_pids()
    client.run(PYTHON, HERE / "wire_tool.py", "hostile", server.address, client.address, mac, timeout=60)
    expect_equal("the worker", nginx.serving_pids(), worker)
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    expect_files(client, nginx.url, ["m1"])
    if server.on_stack:
        counters = counters_of(nginx.serving_pids()[0])
        for name in ("rx_bad_ip_header", "rx_bad_tcp_header", "rx_bad_tcp_checksum"):
            expect(counters.get(name, 0) > 0, f"the counter {name} is 0 after hostile frames")
    nginx.stop()


@test("wire-carrier-lost-and-back")
def carrier(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    get(client, f"{nginx.url}/hello")
    client.run("ip", "link", "set", "wire", "down")
    time.sleep(0.5)
    client.run("ip", "link", "set", "wire", "up")
    if not server.on_stack:
        time.sleep(0.5)
    wait_until(lambda: get(client, f"{nginx.url}/hello", 8) == "hello\n", 15, "an answer after the carrier came back")
    nginx.stop()


@test("stat-shows-counters-and-connections", shim_only=True)
def stat_shows(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    get(client, f"{nginx.url}/hello")
    holder = client.start(PYTHON, "-u", HERE / "peer.py", "hold", server.address, "8080", "3")
    holder.says("holding")
    pid = nginx.serving_pids()[0]
    wait_until(lambda: stat(pid).count("ESTAB ") == 3, 5, "three established connections, shown")
    counters = counters_of(pid)
    expect(counters.get("segments_received", 0) >= 5, f"segments_received: {counters.get('segments_received')}")
    expect(counters.get("passive_opens", 0) >= 4, f"passive_opens: {counters.get('passive_opens')}")
    nginx.command("stop")
