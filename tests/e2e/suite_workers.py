"""Several nginx workers, each with a stack of its own, on one device: sharing, reload, sudden death, a second program."""

import json
import os
import pwd
import signal
import time
from pathlib import Path

from harness import Stopwatch, children, descriptors, expect, expect_equal, kill, wait_until
from nginx import Nginx
from registry import test
from suite_wire import stat
from web import expect_files, expect_wrk, get

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
PID = 'location = /pid { add_header Connection-Id $connection; return 200 "$pid\\n"; }'


def serve(context, workers, queues, driver="af_packet", **options):
    """(nginx, client side): `workers` workers on a device with `queues` queues."""
    server, client = context.veth(device=f"queues = {queues}\n", driver=driver)
    nginx = Nginx(server, workers=workers, server=PID, **options).start()
    wait_until(lambda: len(nginx.workers()) == workers, 10, f"{workers} workers")
    return nginx, client


def flows(client, mode, nginx, path, *arguments, timeout=90):
    words = [PYTHON, HERE / "flows.py", mode, nginx.side.address, nginx.port, path, *arguments]
    return json.loads(client.run(*words, timeout=timeout).stdout)


def start_flows(client, mode, nginx, path, *arguments):
    return client.start(PYTHON, HERE / "flows.py", mode, nginx.side.address, nginx.port, path, *arguments)


def result_of(program, seconds=60):
    """What a program started by start_flows() has found."""
    expect_equal("the client's status", program.wait(seconds), 0)
    return json.loads(program.output().splitlines()[-1])


def expect_no_failure(result, at_least):
    expect_equal("failed requests", result["failed"], 0) if not result["failures"] else expect(
        False, f"{result['failed']} of {result['requests']} requests failed, for example {result['failures'][:3]}")
    expect(result["requests"] >= at_least, f"{result['requests']} requests, expected {at_least}")


def jain(counts):
    """Jain's fairness index: 1 is equal shares, 1/n is all for one."""
    return sum(counts) ** 2 / (len(counts) * sum(c * c for c in counts))


def owner(pid):
    return pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name


def expect_shared(nginx, client, workers):
    """A thousand flows, all answered, and every worker has its share. The kernel's own sharing among sleeping workers is
    no even one: there only the answers count."""
    result = flows(client, "spread", nginx, "/pid", 1000, 50)
    expect_no_failure(result, 1000)
    counts = [result["bodies"].get(str(pid), 0) for pid in nginx.workers()]
    expect_equal("answers of the present workers", sum(counts), 1000)
    if nginx.side.on_stack:
        expect(len(counts) == workers and jain(counts) >= 0.95, f"the workers' shares are {counts}: Jain's index {jain(counts):.3f}")


def share_test(name, workers, queues, mutex="off", **options):
    @test(name)
    def run(context):
        nginx, client = serve(context, workers, queues, daemon="on", accept_mutex=mutex, **options)
        wait_until(lambda: {owner(pid) for pid in nginx.workers()} == {"www-data"}, 5, "the workers' drop to www-data")
        if mutex == "off":
            expect_shared(nginx, client, workers)
        else:
            expect_no_failure(flows(client, "spread", nginx, "/pid", 1000, 50), 1000)
        expect_files(client, nginx.url, ["empty", "k8", "m1"])
        expect_wrk(client, f"{nginx.url}/k8", seconds=1, connections=32)
        nginx.stop()

    return run


share_test("workers-2-on-1-queue", 2, 1)
share_test("workers-2-on-2-queues", 2, 2)
share_test("workers-2-on-4-queues", 2, 4)
share_test("workers-4-on-2-queues", 4, 2)
share_test("workers-4-on-4-queues-reuseport", 4, 4, listen_options="reuseport")
share_test("workers-2-on-2-queues-accept-mutex", 2, 2, mutex="on")


def anonymous(pid):
    """MiB of memory that no file lies behind, whoever else has the same pages: which of them are a process's alone changes
    with what its children write to."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def reload_test(name, queues=2, **options):
    """Nobody may notice a reload but by the close of an idle connection: not with a connection per request, and not on
    kept ones."""

    @test(name)
    def run(context):
        rounds = 30 if context.long else 5
        nginx, client = serve(context, 2, queues, **options)
        wait_until(lambda: get(client, f"{nginx.url}/hello") == "hello\n", 10, "an answer")
        before = {pid: (descriptors(pid), anonymous(pid)) for pid in nginx.all_pids()}
        load = start_flows(client, "load", nginx, "/k8", rounds + 2, 8, 8)
        generations = [nginx.workers()]
        for _ in range(rounds):
            time.sleep(1)
            nginx.command("reload")
            wait_until(lambda: not set(nginx.workers()) <= set(generations[-1]), 10, "new workers")
            generations.append(nginx.workers())
        result = result_of(load)
        expect_no_failure(result, 100 * rounds)
        wait_until(lambda: len(nginx.workers()) == 2, 15, "the end of the old workers")
        # Of all generations only the master is still there.
        master, fresh = nginx.pid(), nginx.workers()
        # It closes the channel to a worker a moment after that one is gone.
        wait_until(lambda: descriptors(master) <= before[master][0], 5, f"the master's descriptors: {before[master][0]}, then {descriptors(master)}")
        expect(anonymous(master) <= before[master][1] + 1, f"the master's memory: {before[master][1]:.1f}, then {anonymous(master):.1f} MiB")
        fewest = min(n for pid, (n, _) in before.items() if pid != master)
        expect(max(descriptors(pid) for pid in fresh) <= fewest + 40, f"descriptors: {before}, then {[descriptors(p) for p in fresh]}")
        expect_shared(nginx, client, 2)
        nginx.stop()

    return run


reload_test("workers-reload-under-load")
reload_test("workers-reload-under-load-reuseport", listen_options="reuseport")


def reload_under_load(nginx, client, path, rounds):
    """No request fails while it is reloaded every second."""
    load = start_flows(client, "load", nginx, path, rounds + 2, 8, 8)
    for _ in range(rounds):
        time.sleep(1)
        old = set(nginx.workers())
        nginx.command("reload")
        wait_until(lambda old=old: len(set(nginx.workers()) - old) == 2, 10, "new workers")
    expect_no_failure(result_of(load), 100 * rounds)


@test("workers-reload-under-load-accept-mutex", long_only=True)
def reload_with_mutex(context):
    """Connections go from worker to worker with the mutex, and none of their segments is refused on the way."""
    nginx, client = serve(context, 2, 2, accept_mutex="on")
    reload_under_load(nginx, client, "/k8", 30)
    nginx.stop()


@test("workers-reload-of-a-proxy-under-load")
def reload_of_proxy(context):
    """Old and new workers connect to one upstream at the same time, and keep those connections: none chooses what another has."""
    server, client = context.veth(device="queues = 2\n")
    upstream = Nginx(client, port=9000, workers=2).start()
    pool = f"upstream pool {{ server {client.address}:9000; keepalive 16; }}"
    location = 'location /up/ { proxy_pass http://pool/; proxy_http_version 1.1; proxy_set_header Connection ""; }'
    nginx = Nginx(server, workers=2, http=pool, server=location + PID).start()
    wait_until(lambda: len(nginx.workers()) == 2, 10, "2 workers")
    reload_under_load(nginx, client, "/up/k8", 30 if context.long else 4)
    nginx.stop()
    upstream.stop()


@test("workers-leave-before-their-successors-come")
def gap(context):
    """While only the master has the listener, connections wait: those that were being opened as well as new ones."""
    rounds = 10 if context.long else 1
    nginx, client = serve(context, 2, 2)
    for _ in range(rounds):
        load = client.start(PYTHON, HERE / "flows.py", "--patient", "load", nginx.side.address, nginx.port, "/k8", 16, 16, 0)
        time.sleep(1)
        without_workers(nginx, signal.SIGQUIT, 3)
        expect_no_failure(result_of(load), 500)
    nginx.stop()


@test("workers-all-killed-and-nobody-comes-for-a-while")
def nobody(context):
    nginx, client = serve(context, 2, 2)
    expect_no_failure(flows(client, "spread", nginx, "/pid", 100, 10), 100)
    waiting = []

    def open_some():
        for _ in range(3):
            waiting.append(client.start(PYTHON, HERE / "flows.py", "--patient", "spread", nginx.side.address, nginx.port, "/pid", 20, 20))
            time.sleep(1)

    without_workers(nginx, signal.SIGKILL, 4, open_some)
    for load in waiting:
        expect_no_failure(result_of(load), 20)
    nginx.command("stop")
    nginx.wait_gone([nginx.program.pid])


def without_workers(nginx, number, seconds, meanwhile=lambda: None):
    """All workers end by this signal, and the master, which is stopped, starts no others for so long."""
    old = nginx.workers()
    kill(nginx.pid(), signal.SIGSTOP)
    for pid in old:
        kill(pid, number)
    nginx.wait_gone(old)
    meanwhile()
    time.sleep(seconds)
    kill(nginx.pid(), signal.SIGCONT)
    wait_until(lambda: len(nginx.workers()) == 2 and not set(nginx.workers()) & set(old), 10, "new workers")


def free_packets(pids):
    """Of each worker's stack, by mtcp-stat. Not exact: freed packets are kept at hand in batches."""
    answers = []
    for pid in pids:
        line = next(line for line in stat(pid, "-r").splitlines() if line.startswith("stack "))
        answers.append(int(dict(word.split("=") for word in line.split()[1:])["packets_free"]))
    return sorted(answers)


def check_kill(failures, pid, when, new_pids, slack):
    """What the clients saw of one death, which took so long at most that who connected within `slack` could still meet it."""
    for failure in failures:
        mine = failure["body"] == str(pid)
        opening = failure["fresh"] and failure["opened"] < when + slack
        expect(mine or opening, f"worker {pid} was killed at {when:.3f}, new ones {new_pids}, and this broke: {failure}")
        expect(failure["kind"] in ("closed", "ECONNRESET", "EPIPE"), f"not told of the death of {pid} at {when:.3f}: {failure}")
        expect(failure["time"] - when < 2 + slack, f"told {failure['time'] - when:.1f} s after the death of {pid}")


def successor(nginx, old):
    """The one of two workers that was not there before; None if there is none. Looks once: a dead one may be gone between
    two looks."""
    now = set(nginx.workers())
    return (now - set(old)).pop() if len(now) == 2 and now != set(old) else None


def kill_under_load(context, queues, driver):
    rounds, pause = (50, 1.2) if context.long else (8, 1.2)
    nginx, client = serve(context, 2, queues, driver)
    expect_no_failure(flows(client, "spread", nginx, "/pid", 100, 10), 100)
    before = free_packets(nginx.workers()) if nginx.side.on_stack else None
    watch = start_flows(client, "watch", nginx, "/pid", rounds * (pause + 2) + 20, 40, 8)
    time.sleep(0.5)
    kills, successors, slacks, stopwatch = [], [], [], Stopwatch()
    for i in range(rounds):
        old = nginx.workers()
        victim = old[i % 2]
        kills.append((time.monotonic(), victim))
        kill(victim, signal.SIGKILL)
        successors.append(wait_until(lambda old=old: successor(nginx, old), 10, "a new worker"))
        slacks.append(time.monotonic() - kills[-1][0] + 0.5)  # its successor is there, so it is gone
        time.sleep(pause)
    stalled = stopwatch.stalled()
    time.sleep(1)
    watch.signal(signal.SIGTERM)
    result = result_of(watch)
    times = [t for t, _ in kills] + [float("inf")]
    for (when, pid), until, slack in zip(kills, times[1:], slacks):
        check_kill([f for f in result["failures"] if when <= f["time"] < until], pid, when, nginx.workers(), slack + stalled)
    if nginx.side.on_stack:  # the kernel gives a new worker its share whenever it likes
        check_successors(result, kills, successors, stalled)
    early = [f for f in result["failures"] if f["time"] < kills[0][0]]
    expect(not early, f"broken before any death: {early[:3]}")
    expect(result["failed"] >= rounds, f"{rounds} deaths broke only {result['failed']} connections")
    expect_no_failure(flows(client, "spread", nginx, "/pid", 200, 10), 200)
    if before:
        after = free_packets(nginx.workers())
        expect(after[0] > before[0] - 300, f"free packets: {before}, then {after}")
    nginx.command("stop")
    nginx.wait_gone([nginx.program.pid])
    complaints = [line for line in nginx.log().splitlines() if "[alert]" in line and "exited on signal 9" not in line]
    expect(not complaints, f"nginx complains: {complaints[:3]}")


def check_successors(result, kills, successors, stalled):
    """A new worker serves soon after the death, most of them before a SYN that it has not answered comes again."""
    took = [result["first"].get(str(pid), float("inf")) - when for (when, _), pid in zip(kills, successors)]
    expect(max(took) < 2 + stalled, f"new workers served {sorted(took)[-3:]} s after the deaths of the old ones")
    expect(sorted(took)[len(took) // 2] < 0.6 + stalled, f"new workers served {sorted(took)} s after the deaths of the old ones")


@test("workers-killed-under-load")
def killed(context):
    kill_under_load(context, 2, "af_packet")


@test("workers-proxy-across-the-wire")
def proxy(context):
    server, client = context.veth(device="queues = 2\n")
    upstream = Nginx(client, port=9000).start()
    pool = f"upstream pool {{ server {client.address}:9000; keepalive 16; }}"
    location = 'location /up/ { proxy_pass http://pool/; proxy_http_version 1.1; proxy_set_header Connection ""; }'
    nginx = Nginx(server, workers=2, http=pool, server=location + PID).start()
    expect_files(client, f"{nginx.url}/up", ["empty", "k8", "m1"])
    expect_wrk(client, f"{nginx.url}/up/k8", seconds=2, connections=32)
    expect_wrk(client, f"{nginx.url}/up/k8", seconds=1, connections=16, more=["-H", "Connection: close"])
    nginx.stop()
    upstream.stop()


@test("workers-quick-answers-whoever-has-the-queue")
def wake_ups(context):
    """Half of the flows come in on the queue of the worker that does not own them, which sleeps: the way through another
    process must cost no more than 2 ms. What the machine itself takes show the kernel's workers, asked at the same time; on
    a busy one two processes wait for a processor where the kernel needs one."""
    nginx, client = serve(context, 2, 2)
    control_server, control_client = context.veth(stack="none", prefix="k")
    control = Nginx(control_server, workers=2, server=PID).start()
    flows(client, "spread", nginx, "/pid", 50, 10)
    runs = [start_flows(c, "watch", n, "/pid", 3, 12) for c, n in ((client, nginx), (control_client, control))]
    result, usual = (result_of(run) for run in runs)
    for r in (result, usual):
        expect_no_failure(r, 500)
    for part, most in (("median", 0.0005), ("p90", 0.002)):  # not p99: that is what one stall makes of it
        expect(result[part] < 2 * usual[part] + most, f"{part}: {result[part] * 1e3:.2f} ms, the kernel's {usual[part] * 1e3:.2f} ms")
    nginx.stop()
    control.stop()


@test("workers-second-program-joins", shim_only=True)
def second_program(context):
    join_second_program(context, 2, "af_packet")


def join_second_program(context, queues, driver):
    """A server and a client, on the device of the first and its address; with another address it is refused."""
    nginx, client = serve(context, 2, queues, driver)
    get(client, f"{nginx.url}/hello")
    load = start_flows(client, "load", nginx, "/k8", 4, 4, 4)
    second = Nginx(nginx.side, port=8090).start()
    expect_files(client, second.url, ["empty", "k64"])
    expect_equal("the answer", get(client, f"{second.url}/hello"), "hello\n")
    curl = nginx.side.run("curl", "-sS", "--max-time", "5", f"http://{client.address}:1/", check=False, timeout=20)
    expect(curl.returncode == 7 and "mtcp" not in curl.stderr, f"curl's status {curl.returncode}: {curl.stderr}")
    expect_no_failure(result_of(load), 200)
    nginx.stop()
    expect_files(client, second.url, ["empty", "k64"])
    second.side.config = context.write_config(f"net_{driver}0,iface=wire", "10.99.0.77", device=f"queues = {queues}\n")
    other = Nginx(second.side, port=8091, listen="10.99.0.77:8091")
    done = other.side.run(*other.words(), check=False, timeout=20)
    text = other.log() + done.stderr
    expect_equal("the status of one with another address", done.returncode, 69)
    expect("wire is in use" in text and "another program" in text, f"it said: {text}")
    expect_equal("the answer", get(client, f"{second.url}/hello"), "hello\n")
    second.kill()


def change_binary(context):
    """(nginx, client side, the old master, the new one), which serves beside the old."""
    nginx, client = serve(context, 2, 2, load="env LD_PRELOAD;\nenv MTCP_CONF;\n", daemon="on", program="/usr/sbin/nginx")
    wait_until(lambda: get(client, f"{nginx.url}/hello") == "hello\n", 10, "an answer")
    old = nginx.pid()
    kill(old, signal.SIGUSR2)
    new = wait_until(lambda: nginx.pid() not in (None, old) and nginx.pid(), 10, "a second master")
    wait_until(lambda: len(children(new)) == 2, 10, "workers of the second master")
    return nginx, client, old, new


@test("workers-binary-upgrade")
def binary_upgrade(context):
    """SIGUSR2, then SIGWINCH and SIGQUIT to the first master: the second has the listeners, and the device as soon as the
    first is gone. Who connects in between is answered when his SYN comes again; only connections that the last old worker
    has in its queue when it stops listening are reset, which the kernel would leave there for the second's."""
    nginx, client, old, new = change_binary(context)
    expect_no_failure(flows(client, "load", nginx, "/k8", 2, 8, 8), 50)  # by the first
    load = start_flows(client, "load", nginx, "/k8", 6, 8, 8)
    time.sleep(1)
    old_workers = children(old)
    kill(old, signal.SIGWINCH)
    time.sleep(0.2)
    kill(old, signal.SIGQUIT)
    nginx.wait_gone([pid for pid in [old, *old_workers] if pid != new])
    wait_until(lambda: len(nginx.workers()) == 2, 10, "workers of the second master")
    expect_equal("the master's pid", nginx.pid(), new)
    result = result_of(load)
    if nginx.side.on_stack:
        expect(result["failed"] <= 16 and all(f["kind"] == "ECONNRESET" and f["fresh"] for f in result["failures"]),
               f"{result['failed']} of {result['requests']} requests failed: {result['failures'][:3]}")
        expect(result["requests"] >= 100, f"{result['requests']} requests")
    else:
        expect_no_failure(result, 100)
    expect_no_failure(flows(client, "spread", nginx, "/k8", 200, 20), 200)
    nginx.stop()


@test("workers-binary-upgrade-and-back")
def binary_upgrade_and_back(context):
    """SIGUSR2, and then the second master is told to leave: the first has served all the time, and goes on."""
    nginx, client, old, new = change_binary(context)
    load = start_flows(client, "load", nginx, "/k8", 4, 8, 8)
    time.sleep(1)
    kill(new, signal.SIGQUIT)
    nginx.wait_gone([new])
    wait_until(lambda: nginx.pid() == old, 10, "the first master's pid in its file")
    expect_no_failure(result_of(load), 100)
    expect_equal("its workers", len(nginx.workers()), 2)
    nginx.command("quit")
    nginx.wait_gone([old])
