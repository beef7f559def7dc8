"""Programs that are ended and started again at once, with the same address: what their peers still have of the earlier life,
TIME-WAITs most of all, must not keep the next one out. So few local ports that each life needs all of them."""

import sys
from pathlib import Path

from harness import Side, Stopwatch, expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from web import expect_wrk, get_status

CLIENT = Path(__file__).resolve().parent / "restarting_client.py"
PYTHON = sys.executable if sys.executable == "/usr/bin/python3" else "/usr/bin/python3"
PORTS = '[tcp]\nip_local_port_range = [40000, 40099]\n'
MORE_PORTS = '[tcp]\nip_local_port_range = [40000, 43999]\n'  # for many connections at once
SOON = 0.8  # seconds; a SYN that is lost, or not believed, is sent again after one


def live(side, server, port, end="exits", path="/hello", user=None):
    """One life of a client that ends as `end` says."""
    watch = Stopwatch()
    program = side.start(PYTHON, "-u", CLIENT, server.address, port, path, 150, end, user=user)
    expect_equal("the client's status", program.wait(30), -9 if end == "killed" else 0)
    said = [line for line in program.output().splitlines() if line.startswith("slowest ")]
    expect(float(said[-1].split()[1]) < SOON + watch.stalled(), f"{said[-1]} s ({end})")


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


class Proxy:
    """A proxy that is started, reloaded, stopped and killed over and over. Its upstream has all its ports in TIME-WAIT each time."""

    def __init__(self, context, proxy, upstream, asking, url, changes_hands=False, **options):
        """`asking`: the side of the client; `url`: what it asks for; `changes_hands`: the device is one worker's at a time."""
        self.context, self.side, self.asking, self.url, self.options = context, proxy, asking, url, options
        self.changes_hands = changes_hands
        # An answer whose length is not told ends with the connection, so the upstream closes it, always. Else it is the proxy
        # where the upstream does not run just then; and two workers that have few ports have none left, for a second, when a
        # proxy's own TIME-WAITs are in all of them (RFC 6191).
        self.upstream = Nginx(upstream, port=9000, server="sub_filter_types *; sub_filter no-such-word x;").start()
        self.rates = []

    def ask(self, port):
        wait_until(lambda: get_status(self.asking, self.url, 5) == (0, "200"), 10, "an answer")
        live(self.asking, self.asking, port, path="/up/hello")

    def live(self, port, rounds):
        for _ in range(rounds):
            for end in ("stop", "kill", "stop"):
                nginx = Nginx(self.side, **self.options).start()
                self.ask(port)
                if self.context.long:  # with many at once, and as fast as each time
                    self.rates.append(expect_wrk(self.asking, self.url, seconds=1, connections=64).requests)
                before = set(nginx.workers())
                nginx.command("reload")
                if self.changes_hands:
                    wait_until(lambda gone=before: not gone & set(nginx.workers()), 10, "the former worker's end")
                self.ask(port)
                if end == "kill":
                    nginx.kill()
                else:
                    nginx.stop()
        self.upstream.stop()
        usual = sorted(self.rates)[len(self.rates) // 2] if self.rates else 0
        expect(all(rate * 10 > usual for rate in self.rates), f"not each start gave about the same: {self.rates}")


def proxy_over_veth(context, driver, rounds):
    server, client = context.veth(more=MORE_PORTS if context.long else PORTS, driver=driver)
    client.address, ours = server.address, client.address  # whom the client asks
    upstream = Side(context, client.namespace, ours)
    proxy = Proxy(context, server, upstream, client, f"http://{server.address}:8080/up/hello",
                  server=f"location /up/ {{ proxy_pass http://{ours}:9000/; }}")
    proxy.live(8080, rounds)


@test("restart-proxy-with-a-connection-per-request")
def proxy(context):
    proxy_over_veth(context, "af_packet", 17 if context.long else 1)


@test("restart-proxy-over-af_xdp", shim_only=True, long_only=True)
def proxy_over_af_xdp(context):
    proxy_over_veth(context, "af_xdp", 17)


@test("restart-proxy-over-memif", shim_only=True, long_only=True)
def proxy_over_memif(context):
    """Asked by a kernel client on loopback."""
    server, client = context.memif(more=MORE_PORTS)
    asking = client.kernel_side()
    asking.address = "127.0.0.1"
    up = f"server {{ listen 127.0.0.1:8081; location /up/ {{ proxy_pass http://{server.address}:9000/; }} }}"
    Proxy(context, client, server, asking, "http://127.0.0.1:8081/up/hello", changes_hands=True, http=up).live(8081, 17)


@test("restart-as-another-user", shim_only=True)
def other_user(context):
    """Started as root and then as somebody who can't see root's secrets: timestamps grow all the same."""
    server, client = context.memif(more=PORTS)
    nginx = Nginx(server).start()
    for user in (None, 65534, None):
        live(client, server, nginx.port, user=user)
    nginx.stop()
