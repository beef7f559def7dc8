"""Few packets, and peers that hold as many as they can: the others are served, and the worker does not spin."""

from pathlib import Path

from harness import cpu_share, expect, wait_until
from nginx import Nginx
from registry import test
from suite_wire import stat
from web import expect_files

PEER = Path(__file__).resolve().parent / "peer.py"
PYTHON = "/usr/bin/python3"


def memory(pid):
    """mtcp-stat's line about memory: name -> text."""
    line = next(line for line in stat(pid).splitlines() if line.startswith("memory: "))
    return dict(word.split("=", 1) for word in line.split()[1:])


def serve_beside_stalled(context, packets, driver):
    server, client = context.veth(device=f"packets = {packets}\n", driver=driver)
    nginx = Nginx(server, sendfile="off").start()  # what a file has is not in packets
    stalled = client.start(PYTHON, "-u", PEER, "stall", server.address, "8080", "/m10", "150")
    stalled.says("stalled 150")
    expect_files(client, nginx.url, ["k100", "one"], 20)
    if server.on_stack:
        worker = nginx.serving_pids()
        used = cpu_share(worker, 1)
        expect(used < 0.5, f"the worker uses {used:.0%} of a core while nobody reads")
        expect(memory(worker[0])["level"] != "low", "150 peers that do not read are no pressure")
    stalled.kill()
    expect_files(client, nginx.url, ["m1"], 20)
    if server.on_stack:
        wait_until(lambda: memory(nginx.serving_pids()[0])["level"] == "low", 5, "the low level when all have gone")
    nginx.command("stop")


@test("memory-few-packets-and-peers-that-do-not-read")
def few_packets(context):
    serve_beside_stalled(context, 1024, "af_packet")


@test("memory-few-packets-of-af_xdp")
def few_packets_xdp(context):
    serve_beside_stalled(context, 1024, "af_xdp")
