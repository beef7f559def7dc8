"""A server that sleeps, and one that computes: idle CPU, and the service thread."""

import re
import signal
import time
from pathlib import Path

from harness import Stopwatch, cpu_share, expect, expect_equal
from nginx import Nginx
from registry import test
from suite_wire import counters_of, stat
from suite_workers import expect_no_failure, flows, serve
from web import get, expect_files

PEER = Path(__file__).resolve().parent / "peer.py"
PYTHON = "/usr/bin/python3"


def expect_idle(nginx, what):
    time.sleep(1.5)
    used = cpu_share(nginx.all_pids(), 5)
    expect(used < 0.01, f"{what}: {used:.1%} of a core while idle")


@test("idle-af_packet")
def idle_veth(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    expect_idle(nginx, "nginx that has served")
    expect_files(client, nginx.url, ["m1"])
    nginx.stop()


@test("idle-with-open-connections")
def idle_connected(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    holder = client.start(PYTHON, "-u", PEER, "hold", server.address, "8080", "50")
    holder.says("holding")
    expect_idle(nginx, "nginx with 50 idle connections")
    nginx.command("stop")


@test("idle-memif")
def idle_memif(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    expect_idle(nginx, "nginx over memif that has served")
    nginx.stop()


@test("idle-memif-with-a-connected-peer")
def idle_memif_pair(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    holder = client.start(PYTHON, "-u", PEER, "hold", server.address, "8080", "5")
    holder.says("holding")
    expect_idle(nginx, "nginx over memif with 5 idle connections")
    used = cpu_share([holder.pid], 3)
    expect(used < 0.01, f"the idle client: {used:.1%} of a core")
    nginx.command("stop")


def switches_of_other_threads(pid):
    """How often threads but the first have gone to sleep."""
    count = 0
    for path in Path(f"/proc/{pid}/task").iterdir():
        if path.name != str(pid):
            count += int(next(line for line in (path / "status").read_text().splitlines() if line.startswith("voluntary")).split()[1])
    return count


def start_busy(context, server):
    busy = server.start(context.build / "tests/e2e/busy_server", server.address, "7000")
    busy.says("ready")
    return busy


@test("service_thread-acknowledges-while-the-program-computes")
def service_thread_acks(context):
    server, client = context.veth()
    busy = start_busy(context, server)
    out = client.run(PYTHON, PEER, "acks", server.address, "7000", timeout=20).stdout
    expect("acknowledged" in out, f"the peer saw: {out}")
    expect_equal("the server's status", busy.wait(15), 0)


@test("service_thread-retransmits-while-the-program-computes")
def service_thread_retransmits(context):
    server, client = context.veth()
    busy = start_busy(context, server)
    out = client.run(PYTHON, PEER, "retransmits", server.address, "7000", timeout=20).stdout
    expect("arrived" in out, f"the peer saw: {out}")
    expect_equal("the server's status", busy.wait(15), 0)


@test("service_thread-keeps-other-connections-alive")
def service_thread_others(context):
    server, client = context.veth()
    busy = start_busy(context, server)
    watch = Stopwatch()
    out = client.run(PYTHON, PEER, "connects", server.address, "7000", timeout=20).stdout
    expect("connected" in out, f"the peer saw: {out}")
    expect(float(re.search(r"connection after ([\d.]+) s", out)[1]) < 2 + watch.stalled(), f"the peer saw: {out}")
    expect_equal("the server's status", busy.wait(15), 0)


@test("service_thread-sleeps-while-the-program-works-and-sleeps-in-turn", shim_only=True)
def service_thread_sleeps(context):
    """Hundreds of requests a second are no reason to wake it for each."""
    server, client = context.veth()
    nginx = Nginx(server).start()
    worker = nginx.workers()[0]
    asks = client.start(PYTHON, "-u", PEER, "ask", server.address, "8080", "400", "0.0025")
    asks.says("begins")
    before, started = switches_of_other_threads(worker), time.monotonic()
    asks.says("asked")
    took = time.monotonic() - started
    switches = switches_of_other_threads(worker) - before
    # Each of them would be two: to be woken, and to look once more after a tick.
    expect(switches < max(400, 300 * took), f"{switches} times in {took:.2f} s and 400 requests")
    nginx.stop()


@test("killed-by-a-signal-its-peer-is-told")
def killed(context):
    """The default action of a signal ends the program; its connections end as the kernel's would."""
    server, client = context.veth(stack="client")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        port = str(7000 + number)
        peer = server.start(PYTHON, "-u", PEER, "await_end", server.address, port)
        peer.says("listening")
        program = client.start(PYTHON, PEER, "stay", server.address, port)
        peer.says("connected")
        program.signal(number)
        expect_equal("how it ended", program.wait(5), -number)
        peer.says("ended")  # of itself it would not within the ten seconds that the peer gives it


def sleeps(pids):
    """How often the threads of these processes have gone to sleep."""
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", path.read_text(), re.M)[1])
               for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/status"))


def migrations(pids):
    """Connections that these workers have given to others before they had accepted them."""
    return sum(counters_of(pid).get("connections_handed_over", 0) for pid in pids)


def shares(pids):
    """What mtcp-stat says of the workers' shares of the device, by worker."""
    lines = [next(line for line in stat(pid).splitlines() if line.startswith("share")) for pid in pids]
    return [dict(word.split("=") for word in line.split()[1:]) for line in lines]


@test("workers-idle")
def idle(context):
    """Many more workers than cores: each has a socket, on which its own packets come, and those that have nothing to do sleep."""
    workers = 16
    nginx, client = serve(context, workers, '"auto"')
    expect_no_failure(flows(client, "spread", nginx, "/pid", 400, 50), 400)
    pids = nginx.workers()
    some = pids[:4]  # to ask takes its time
    if nginx.side.on_stack:
        before, migrated = shares(some), migrations(some)
        expect(all(int(s["queues"]) >= 1 for s in before), f"queues: {[s['queues'] for s in before]}")
        expect_no_failure(flows(client, "spread", nginx, "/pid", 1000, 50), 1000)
        passed_on = sum(int(s["forwarded"]) for s in shares(some)) - sum(int(s["forwarded"]) for s in before)
        migrated = migrations(some) - migrated
        # A worker that has not had the CPU for long gives connections to others that wait, and then what was on its way to it.
        expect(passed_on < 25 + 4 * migrated, f"four of the workers have passed on {passed_on} frames, and {migrated} connections")
    time.sleep(1)
    watch, times = Stopwatch(), sleeps(pids)
    cpu = cpu_share(pids, 2) / workers
    times = (sleeps(pids) - times) / watch.seconds()
    expect(times < 25 * workers, f"{workers} idle workers wake up {times:.0f} times a second")
    expect(cpu < 0.01, f"{workers} idle workers use {cpu:.1%} of a core each")
    nginx.stop()
