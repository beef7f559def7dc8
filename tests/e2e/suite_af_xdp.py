"""nginx on one end of a veth pair over af_xdp, which has one queue there: the workers without it receive and send through the one
that has it."""

import time

from harness import command, expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from suite_life import expect_idle
from suite_nginx import owner
from suite_workers import kill_under_load, join_second_program, reload_test, share_test
from web import expect_files, expect_wrk, get, get_status, small_files


# BPF_PROG_QUERY of BPF_TCX_INGRESS, which iproute2 and tc of Debian 12 know nothing of: how many classifiers there are.
CLASSIFIERS = """
import ctypes, socket, struct, sys
query = ctypes.create_string_buffer(struct.pack("=IIIIQII", socket.if_nametoindex(sys.argv[1]), 46, 0, 0, 0, 0, 0), 144)
ctypes.CDLL(None).syscall(321, 16, query, len(query))
print(struct.unpack_from("=I", query, 24)[0])
"""


def program_on(namespace, interface="wire"):
    """Whether the interface has an XDP program, or a classifier attached by a link."""
    if "xdp" in namespace.run("ip", "link", "show", "dev", interface).stdout:
        return "xdp"
    return "classifier" if int(namespace.run("/usr/bin/python3", "-c", CLASSIFIERS, interface).stdout) > 0 else None


@test("af_xdp-files-of-all-sizes-and-idle")
def files(context):
    server, client = context.veth(driver="af_xdp")
    nginx = Nginx(server).start()
    wait_until(lambda: {owner(pid) for pid in nginx.workers()} == {"www-data"}, 5, "the worker's drop to www-data")
    expect_files(client, nginx.url, small_files(client))
    expect_wrk(client, f"{nginx.url}/k8", seconds=1, connections=32)
    expect_wrk(client, f"{nginx.url}/s64", seconds=1, connections=32, more=["-H", "Connection: close"])
    expect_idle(nginx, "nginx over af_xdp that has served")
    nginx.stop()
    if server.on_stack:
        wait_until(lambda: not program_on(server.namespace), 5, "the end of the XDP program")


@test("af_xdp-peer-with-all-offloads")
def offloads(context):
    """The kernel leaves checksums to the hardware, and would send 64 KiB at a time."""
    server, client = context.veth(driver="af_xdp", offloads=("server", "client"))
    nginx = Nginx(server, server="client_body_buffer_size 16m;").start()
    expect_files(client, nginx.url, small_files(client))
    expect_equal("PUT", get_status(client, f"{nginx.url}/put/m10", 20, "-T", context.files.root / "m10"), (0, "201"))
    same = command("cmp", context.files.root / "m10", nginx.prefix / "put/m10", check=False)
    expect_equal("the difference of what came", same.returncode, 0)
    nginx.stop()


@test("af_xdp-clients")
def clients(context):
    server, client = context.veth(stack="client", driver="af_xdp")
    nginx = Nginx(server).start()
    expect_files(client, nginx.url, ["empty", "one", "k64", "m10"])
    expect_wrk(client, f"{nginx.url}/k8", seconds=1, connections=16)
    expect_wrk(client, f"{nginx.url}/s64", seconds=1, connections=16, more=["-H", "Connection: close"])
    nginx.stop()


share_test("af_xdp-workers-2", 2, 1, driver="af_xdp")
share_test("af_xdp-workers-4-reuseport", 4, 1, driver="af_xdp", listen_options="reuseport")
reload_test("af_xdp-reload-under-load", queues=1, driver="af_xdp")


@test("af_xdp-killed-under-load")
def killed(context):
    kill_under_load(context, 1, "af_xdp")


@test("af_xdp-second-program-joins", shim_only=True)
def second_program(context):
    join_second_program(context, 1, "af_xdp")


@test("af_xdp-all-killed-and-started-again", shim_only=True)
def started_again(context):
    server, client = context.veth(driver="af_xdp")
    for _ in range(3):
        nginx = Nginx(server, workers=2).start()
        expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
        expect(program_on(server.namespace), "there is no XDP program on the interface")
        nginx.kill()


@test("af_xdp-mistakes-are-named", shim_only=True)
def mistakes(context):
    server, _ = context.veth(driver="af_xdp")
    for port, device, words, status in (("net_af_xdp0,iface=nosuch0", "", "there is no network interface nosuch0", 69),
                                        ("net_af_xdp0,iface=wire", "queues = 2\n", "set queues to 1", 78),
                                        ("net_af_xdp0,iface=wire", "mtu = 9000\n", "mtu in [device] to 1500", 78)):
        server.config = context.write_config(port, server.address, device=device)
        nginx = Nginx(server)
        done = server.run(*nginx.words(), check=False, timeout=20)
        expect_equal("the status", done.returncode, status)
        text = nginx.log() + done.stderr
        expect(words in text, f"it said: {text}")
