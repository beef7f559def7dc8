"""Programs that are ended and started again at once, with the same address: what their peers still have of the earlier life,
TIME-WAITs most of all, must not keep the next one out. So few local ports that each life needs all of them."""

import sys
from pathlib import Path

from harness import expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from web import get_status

CLIENT = Path(__file__).resolve().parent / "restarting_client.py"
PYTHON = sys.executable if sys.executable == "/usr/bin/python3" else "/usr/bin/python3"
PORTS = '[tcp]\nip_local_port_range = [40000, 40099]\n'
SOON = 0.8  # seconds; a SYN that is lost, or not believed, is sent again after one


def live(side, server, port, end="exits", path="/hello", user=None):
    """One life of a client that ends as `end` says."""
    program = side.start(PYTHON, "-u", CLIENT, server.address, port, path, 150, end, user=user)
    expect_equal("the client's status", program.wait(30), -9 if end == "killed" else 0)
    said = [line for line in program.output().splitlines() if line.startswith("slowest ")]
    expect(float(said[-1].split()[1]) < SOON, f"{said[-1]} s ({end})")


def lives(context, client, server, how):
    """Lives of a client that end in each of the ways `how`."""
    nginx = Nginx(server).start()
    for _ in range(17 if context.long else 1):
        for end in how:
            live(client, server, nginx.port, end)
    nginx.stop()


@test("restart-client-over-memif")
def memif_client(context):
    server, client = context.memif(more=PORTS)
    lives(context, client, server, ("exits", "killed", "exits"))


@test("restart-client-over-af_packet-to-a-kernel-server")
def af_packet_client(context):
    server, client = context.veth(stack="client", more=PORTS)
    lives(context, client, server, ("exits", "killed", "exits"))


@test("restart-client-over-af_xdp-to-a-kernel-server", shim_only=True)
def af_xdp_client(context):
    server, client = context.veth(stack="client", more=PORTS, driver="af_xdp")
    lives(context, client, server, ("killed", "exits"))


@test("restart-proxy-with-a-connection-per-request")
def proxy(context):
    """The proxy is reloaded, stopped and killed; its upstream has all its ports in TIME-WAIT each time."""
    server, client = context.veth(more=PORTS)
    upstream = Nginx(client, port=9000).start()
    options = {"server": f"location /up/ {{ proxy_pass http://{client.address}:9000/; }}"}
    for _ in range(17 if context.long else 1):
        for end in ("stop", "kill", "stop"):
            nginx = Nginx(server, **options).start()
            wait_until(lambda: get_status(client, f"{nginx.url}/up/hello", 5) == (0, "200"), 10, "an answer")
            live(client, server, nginx.port, path="/up/hello")
            nginx.command("reload")
            wait_until(lambda: get_status(client, f"{nginx.url}/up/hello", 5) == (0, "200"), 10, "an answer")
            live(client, server, nginx.port, path="/up/hello")
            if end == "kill":
                pids = nginx.all_pids()
                nginx.kill()
                nginx.wait_gone(pids)
            else:
                nginx.stop()
    upstream.stop()


@test("restart-as-another-user", shim_only=True)
def other_user(context):
    """Started as root and then as somebody who can't see root's secrets: timestamps grow all the same."""
    server, client = context.memif(more=PORTS)
    nginx = Nginx(server).start()
    for user in (None, 65534, None):
        live(client, server, nginx.port, user=user)
    nginx.stop()
