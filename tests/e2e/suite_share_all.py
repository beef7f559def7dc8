"""One interface and one address, and all on it at once: servers and clients of the stack and of the kernel, reloaded and killed, while
the kernel's own traffic does not notice; and nothing is left of any of it."""

import contextlib
import ctypes
import json
import os
import re
import signal
import time
from pathlib import Path

from harness import Stopwatch, expect, expect_equal, kill, wait_until
from nginx import Nginx
from registry import test
from suite_join import expect_nothing_left
from suite_programs import redis_cli, start_redis, use_store
from suite_share import expect_refused, refused
from suite_wire import counters_of, stack_opens
from suite_workers import PID, expect_no_failure, result_of, start_flows, without_workers
from web import expect_files, expect_wrk, get

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
BPF, GET_FD_BY_ID = 321, {"prog": 13, "map": 14, "link": 30}  # bpf(2) on x86-64, and its commands


@contextlib.contextmanager
def steady(client, server, port=7100):
    """Traffic of the kernel's, from `client` to `server`, meanwhile: none of it may be lost or late."""
    echo = server.kernel_side().start(PYTHON, HERE / "steady.py", "serve", server.address, port)
    echo.says("ready")
    watch = Stopwatch()
    asker = client.kernel_side().start(PYTHON, HERE / "steady.py", "ask", server.address, port)
    asker.says("begun")
    yield
    asker.signal(signal.SIGTERM)
    expect_equal("the status of the kernel's client", asker.wait(20), 0)
    seen = json.loads(asker.output().splitlines()[-1])
    expect_equal("what failed of the kernel's traffic", seen["failures"], [])
    expect_equal("segments of the kernel's that were lost", seen["lost"], 0)
    expect(min(seen["requests"].values()) > 50, f"the kernel's traffic paused: {seen}")
    expect(seen["longest"] < 1 + watch.stalled(), f"an answer of the kernel's took {seen['longest']:.2f} s")
    echo.kill()


def kernel_objects(pids):
    """{(kind, number)}: the BPF programs, maps and links that these processes hold."""
    found = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/fdinfo").glob("*"):
            with contextlib.suppress(OSError):
                found |= {(m[1], int(m[2])) for m in re.finditer(r"^(prog|map|link)_id:\s*(\d+)", path.read_text(), re.M)}
    return found


def is_there(kind, number):
    attribute = (ctypes.c_uint32 * 32)(number)
    fd = ctypes.CDLL(None, use_errno=True).syscall(BPF, GET_FD_BY_ID[kind], attribute, 128)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def everything_test(name, workers):
    @test(name, shim_only=True)
    def run(context):
        server, client = context.veth(driver="af_xdp", share=True, queues=4)
        upstream = Nginx(client, port=9000).start()
        with steady(client, server), steady(server, client):
            everything(context, server, client, upstream, workers)
        upstream.stop()

    return run


def everything(context, server, client, upstream, workers):
    kernels = Nginx(server.kernel_side(), port=9001, greeting="kernel").start()
    nginx = Nginx(server, workers=workers, server=PID).start()
    redis = start_redis(context, server, client)
    wrk = server.start("wrk", "-t1", "-c8", "-d60", f"{upstream.url}/k8")
    wait_until(lambda: counters_of(wrk.pid, check=False).get("active_opens", 0) > 0, 10, "wrk's connections on the stack")
    # All at once, with every byte looked at.
    loads = [start_flows(client, "load", nginx, "/k8", 5, 4, 4), start_flows(client, "load", kernels, "/k8", 5, 4, 4),
             start_flows(server.kernel_side(), "load", upstream, "/k8", 5, 4, 4)]
    use_store(client, "redis", server.address, 6379, connections=6, rounds=30)
    expect_files(client, nginx.url, ["empty", "one", "k64", "m10"])
    expect_files(client, kernels.url, ["k64", "m1"])
    expect_files(server, upstream.url, ["k64", "m1"])
    expect_files(server.kernel_side(), upstream.url, ["m1"])
    opened_before = stack_opens(nginx)  # the loads may be over by the time of the reload
    old = nginx.workers()
    nginx.command("reload")
    nginx.wait_gone(old)
    for load in loads:
        expect_no_failure(result_of(load), 100)
    for what, opened in (("nginx", opened_before + stack_opens(nginx)), ("redis", counters_of(redis.pid)["passive_opens"])):
        expect(opened > 5, f"the connections of {what} were not the stack's")
    kill_in_turn(server, client, kernels, nginx, redis, wrk)
    kernels.stop()


def kill_in_turn(server, client, kernels, nginx, redis, wrk):
    """A worker, the first program, all. Whoever is left goes on."""
    kill(nginx.workers()[0], signal.SIGKILL)
    wait_until(lambda: not refused(client, f"{nginx.url}/hello"), 5, "an answer after a worker's death")
    expect_files(client, nginx.url, ["k64"])
    nginx.kill()
    wait_until(lambda: refused(client, f"{nginx.url}/hello"), 3, "the refusal of what was killed")
    redis_cli(client, server.address, "set", "k", "v")
    expect_equal("what redis has", redis_cli(client, server.address, "get", "k"), "v")
    expect(wrk.running(), f"wrk has ended: {wrk.output()[-300:]}")
    again = Nginx(server, workers=2).start()
    expect_files(client, again.url, ["k64", "m1"])
    expect_wrk(client, f"{kernels.url}/k8", seconds=1, connections=4, at_least=20)
    held = kernel_objects([*again.all_pids(), redis.pid, wrk.pid])
    expect_equal("kinds of what they hold in the kernel", {kind for kind, _ in held} >= {"map", "link"}, True)
    again.stop_forking()
    for pid in (*again.all_pids(), redis.pid, wrk.pid):
        kill(pid, signal.SIGKILL)
    for program in (again.program, redis, wrk):
        program.child.wait()
    expect_nothing_left(server)
    wait_until(lambda: not any(is_there(*o) for o in held), 5, "the end of programs, maps and links")
    for port in (8080, 6379):
        expect_refused(client, f"http://{server.address}:{port}/", f"port {port} of what was killed")
    after = Nginx(server.kernel_side(), greeting="after").start()
    expect_equal("the kernel's answer on that port", get(client, f"{after.url}/hello"), "after\n")
    after.stop()
    time.sleep(0.2)


everything_test("share-everything-at-once", 1)
everything_test("share-everything-at-once-4-workers", 4)


def gap_test(name, share, **options):
    @test(name, shim_only=True, **options)
    def run(context):
        """Connections that nobody has accepted wait for the next worker, while only nginx's master has the listener and another program has a
        stack on the interface: neither that nor the kernel, which listens as well, resets or refuses any."""
        server, client = context.veth(driver="af_xdp", share=share, queues=4)
        upstream = Nginx(client, port=9000).start()
        nginx = Nginx(server, workers=2, server=PID).start()
        wrk = server.start("wrk", "-t1", "-c8", "-d60", f"{upstream.url}/k8")
        wait_until(lambda: counters_of(wrk.pid, check=False).get("active_opens", 0) > 0, 10, "wrk's connections on the stack")
        wait_until(lambda: len(nginx.workers()) == 2, 10, "2 workers")
        load = client.start(PYTHON, HERE / "flows.py", "--patient", "load", server.address, nginx.port, "/k8", 4, 16, 0)
        time.sleep(1)
        without_workers(nginx, signal.SIGQUIT, 2)
        expect_no_failure(result_of(load), 500)
        wrk.kill()
        for program in (nginx, upstream):
            program.stop()

    return run


gap_test("share-workers-leave-before-their-successors-come", True)
gap_test("share-by-xdp-workers-leave-before-their-successors-come", "generic", long_only=True)


@test("share-two-nginx", shim_only=True)
def two_nginx(context):
    """Two masters with workers of their own: each has its connections, and neither notices that the other is reloaded or killed."""
    server, client = context.veth(driver="af_xdp", share=True, queues=4)
    one, two = (Nginx(server, port=port, workers=2, greeting=str(port), server=PID).start() for port in (8080, 8081))
    for nginx in (one, two):
        wait_until(lambda nginx=nginx: len(nginx.workers()) == 2, 10, "2 workers")
        wait_until(lambda nginx=nginx: get(client, f"{nginx.url}/hello") and stack_opens(nginx) > 0, 10, "an answer of the stack's")
    load = start_flows(client, "load", two, "/k8", 4, 4, 4)
    others = start_flows(client, "load", one, "/k8", 1, 4, 4)
    old = one.workers()
    one.command("reload")
    one.wait_gone(old)
    expect_no_failure(result_of(others), 100)
    expect_equal("the greeting of the first", get(client, f"{one.url}/hello"), "8080\n")
    for pid in one.all_pids():
        kill(pid, signal.SIGKILL)
    one.program.child.wait()
    wait_until(lambda: refused(client, f"{one.url}/hello"), 3, "the refusal of what was killed")
    expect_no_failure(result_of(load), 100)
    expect_equal("the greeting of the second", get(client, f"{two.url}/hello"), "8081\n")
    two.stop()
