"""Several programs on one interface: the second joins, whoever ends first; each goes on by itself."""

import contextlib
import signal
from pathlib import Path

from harness import children, command, expect, expect_equal, kill, wait_until
from nginx import Nginx
from registry import test
from suite_af_xdp import program_on
from suite_family import ASK
from suite_machine import NOBODY
from suite_programs import expect_benchmark, redis_cli, start_redis
from suite_share import expect_on_kernel, expect_refused, refused, serve_files
from suite_wire import counters_of, stack_opens, wait_for_stack
from suite_workers import expect_no_failure, result_of, start_flows
from web import expect_files, expect_wrk, get, get_status

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
CAPABILITIES = "+net_raw,+net_admin,+bpf,+ipc_lock"


def doors(side):
    """Abstract names of ours that are left in the namespace."""
    return [line.split()[-1] for line in side.namespace.run("cat", "/proc/net/unix").stdout.splitlines() if "@mtcp-" in line]


def expect_nothing_left(server):
    wait_until(lambda: not program_on(server.namespace), 5, "the end of the XDP program")
    wait_until(lambda: not server.namespace.run("cat", "/proc/net/packet").stdout.splitlines()[1:], 5, "the end of all packet sockets")
    expect_equal("names that are left", doors(server), [])


def opens(pid, counter="passive_opens"):
    return counters_of(pid).get(counter, 0)


def expect_on_stack(client, server, program, port):
    wait_for_stack(program, lambda: get_status(client, f"http://{server.address}:{port}/one", 3)[1] == "200")


@test("join-nginx-redis-and-a-client-on-one-interface", shim_only=True)
def together(context):
    """And what the kernel serves and asks at the same address, all at once, each on four queues."""
    server, client = context.veth(driver="af_xdp", share=True, queues=4)
    upstream = Nginx(client, port=9000).start()
    kernels = Nginx(server.kernel_side(), port=9001, greeting="kernel").start()
    nginx = Nginx(server, workers=4).start()
    redis = start_redis(context, server, client)
    loads = [start_flows(client, "load", nginx, "/k8", 5, 8, 8), start_flows(client, "load", kernels, "/k8", 5, 4, 4),
             start_flows(server.kernel_side(), "load", upstream, "/k8", 5, 4, 4)]
    expect_benchmark(client, server.address, "-n", "2000", "-t", "set,get")
    expect_wrk(server, f"{upstream.url}/k8", seconds=1, connections=8, at_least=50)
    expect_files(server, upstream.url, ["empty", "k64", "m1"])
    expect_files(client, nginx.url, ["empty", "one", "k64", "m10"])
    expect_equal("the answer to another program of the machine", get(server, f"{nginx.url}/hello"), "hello\n")
    for load in loads:
        expect_no_failure(result_of(load), 100)
    expect(stack_opens(nginx) > 50, "nginx's connections were not the stack's")
    expect(opens(redis.pid) >= 20, "redis's connections were not the stack's")
    expect_equal("connections of nginx that came to redis", opens(redis.pid, "connections_adopted"), 0)
    expect_refused(client, f"http://{server.address}:7777/", "a port that nobody has")
    redis_cli(client, server.address, "shutdown", "nosave")
    expect_equal("the status of redis", redis.wait(15), 0)
    expect_refused(client, f"http://{server.address}:6379/", "the port of what has ended")
    expect_files(client, nginx.url, ["k64"])
    nginx.stop()
    upstream.stop()
    kernels.stop()
    expect_nothing_left(server)


@test("join-the-first-is-killed-and-the-second-goes-on", shim_only=True)
def first_killed(context):
    """The device outlives the program that has opened it, and takes in others after that."""
    server, client = context.veth(driver="af_xdp", share=True)
    nginx = Nginx(server, workers=2).start()
    expect_files(client, nginx.url, ["k64"])
    redis = start_redis(context, server, client)
    redis_cli(client, server.address, "set", "k", "v")
    load = client.start("redis-benchmark", "-h", server.address, "-q", "-c", "4", "-n", "100000000", "-t", "get")
    wait_until(lambda: opens(redis.pid, "segments_received") > 1000, 10, "redis-benchmark's requests")
    nginx.kill()
    wait_until(lambda: refused(client, f"{nginx.url}/hello"), 3, "the refusal of what was killed")
    before = opens(redis.pid, "segments_received")
    wait_until(lambda: opens(redis.pid, "segments_received") > before + 1000, 10, "more requests to redis, which hears nothing any more")
    expect(load.running(), f"the connections of redis ended: {load.output()[-300:]}")
    expect_equal("what redis has", redis_cli(client, server.address, "get", "k"), "v")
    expect(program_on(server.namespace), "there is no XDP program on the interface")
    again = Nginx(server, workers=2).start()
    expect_files(client, again.url, ["empty", "k64", "m1"])
    expect(stack_opens(again) > 0, "the connections were not the stack's")
    load.kill()
    kill(redis.pid, signal.SIGKILL)
    redis.wait(5)
    expect_files(client, again.url, ["k64", "m1"])
    again.kill()
    expect_nothing_left(server)
    expect_refused(client, f"{again.url}/hello", "the port of what was killed")


@test("join-one-that-listens-on-the-wildcard-address-is-waited-for", shim_only=True)
def late_listener(context):
    """Until it has its stack, the programs that are there leave alone what comes for it; and they refuse what is for a program of the kernel's."""
    server, client = context.veth()
    first = serve_files(server, 8080)
    expect_on_stack(client, server, first, 8080)
    kernels = serve_files(server.kernel_side(), 8082)
    kernels.says("Serving HTTP")
    late = server.start(PYTHON, "-u", HERE / "family.py", "late", server.address, "8081")
    late.says("listens")
    expect_refused(client, f"http://{server.address}:8082/", "the port of a program of the kernel's")
    expect_equal("the answer", client.run(PYTHON, "-c", ASK, server.address, "8081").stdout.split()[0], "late")
    late.says("[0]")
    expect_refused(client, f"http://{server.address}:8081/", "the port of what has ended")


@test("join-another-users-program-runs-on-the-kernel", shim_only=True)
def another_user(context):
    """With all the capabilities that it takes, but the device is root's."""
    server, client = context.veth(driver="af_xdp", share=True)
    nginx = Nginx(server).start()
    program = server.start("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", f"--inh-caps={CAPABILITIES}",
                           f"--ambient-caps={CAPABILITIES}", "/usr/bin/python3", "-u", "-m", "http.server", "8081", "--directory", context.files.root)
    expect_on_kernel(client, server, program, 8081, "in use by another program")
    expect_equal("warnings of it", program.output().count("mtcp["), 1)
    expect_files(client, nginx.url, ["k64"])
    program.kill()
    nginx.stop()
    expect_nothing_left(server)


@test("join-one-that-is-stopped-keeps-nobody-waiting", shim_only=True)
def stopped(context):
    """The second asks for a few seconds, and goes to the kernel then."""
    server, client = context.veth(driver="af_xdp", share=True)
    first = serve_files(server, 8080)
    wait_until(lambda: get_status(client, f"http://{server.address}:8080/one", 3)[1] == "200", 10, "an answer")
    kill(first.pid, signal.SIGSTOP)
    second = serve_files(server, 8081)
    wait_until(lambda: "This program runs on the kernel" in second.output(), 10, "the decision of the second")
    expect_on_kernel(client, server, second, 8081, "in use by another program")
    kill(first.pid, signal.SIGCONT)
    second.kill()
    third = serve_files(server, 8082)
    expect_on_stack(client, server, third, 8082)
    for program in (third, first):
        program.kill()
    expect_nothing_left(server)


# Sees the name of a door, and has it when its owner has ended. Zeros in it look as @ does.
SQUAT = """
import itertools, socket, sys, time
TAG = b'@mtcp-door-03@'
def after_tag(text):
    at = text.find(TAG)
    return text[at + len(TAG):][:16] if at >= 0 else b''
def seen():
    with open('/proc/net/unix', 'rb') as names:
        return after_tag(names.read())
while not seen():
    time.sleep(0.01)
name, held = seen(), []
print('seen', flush=True)
for each in itertools.product(*[(0, 64) if c == 64 else (c,) for c in name]):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    while s not in held:
        try:
            s.bind(TAG.replace(b'@', b'\\0') + bytes(each))
            held.append(s)
        except OSError:
            time.sleep(0.001)
    if sys.argv[1] != 'silent':
        s.listen(0 if sys.argv[1] == 'full' else 16)
    while sys.argv[1] == 'full':
        held.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        held[-1].setblocking(False)
        if held[-1].connect_ex(s.getsockname()) != 0:
            break
print('taken', flush=True)
time.sleep(60)
"""


@test("join-a-name-that-another-user-has-taken", shim_only=True)
def name_taken(context):
    """It can be read while a program has the device. The next ones share it all the same, whether they are heard, refused or never accepted there."""
    server, client = context.veth()
    for manner in ("listening", "silent", "full"):
        squatter = server.kernel_side().start(PYTHON, "-c", SQUAT, manner, user=NOBODY)
        first = serve_files(server, 8080)
        expect_on_stack(client, server, first, 8080)
        squatter.says("seen")
        first.kill()
        squatter.says("taken")
        programs = [serve_files(server, port) for port in (8081, 8082)]
        for program, port in zip(programs, (8081, 8082)):
            expect_on_stack(client, server, program, port)
            expect_files(client, f"http://{server.address}:{port}", ["k64"])
        expect("they have another one now" in "".join(p.output() for p in programs), f"nobody says whose the name is ({manner})")
        for program in (*programs, squatter):
            program.kill()


@contextlib.contextmanager
def control_group(context):
    """(its directory, its path as processes see it) of a group of its own in the unified hierarchy."""
    where = context.directory / "cgroup"
    where.mkdir()
    command("mount", "-t", "cgroup2", "none", where)
    group = where / context.tag
    group.mkdir()
    try:
        yield group, f"/{context.tag}"
    finally:
        (group / "cgroup.kill").write_text("1")
        wait_until(lambda: not (group / "cgroup.procs").read_text(), 5, "an empty group")
        group.rmdir()
        command("umount", where)


# Only its own processes, files of its own in /tmp and /run, and the door of mtcp-open; the network is the host's.
CONTAINER = """mount --bind /run/mtcp-open /mnt && mount -t tmpfs tmpfs /run && mkdir /run/mtcp-open && mount --move /mnt /run/mtcp-open &&
mount -t proc proc /proc && exec "$@"
"""


@test("join-by-mtcp-open-control-groups-and-containers", shim_only=True)
def opener_by_cgroup(context):
    """A service and a container, without a capability, that may have it by their control group; the same user outside of it may not."""
    server, client = context.veth(driver="af_xdp", share=True)
    with control_group(context) as (group, path):
        inside = ("sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$@"', "sh")
        user = ("setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", "--bounding-set=-all", "--no-new-privs")
        container = ("unshare", "--mount", "--pid", "--fork", "--ipc", "--uts", "--propagation", "private", "sh", "-c", CONTAINER, "sh")
        opener = start_opener(context, server, "-m", "0666", "-u", "mail", "-C", f"/no/such,{path}")
        programs = [serve_files(server, 8080 + i, before=before) for i, before in enumerate(((*inside, *user), (*inside, *container, *user)))]
        url = f"http://{server.address}"
        for i, program in enumerate(programs):
            wait_until(lambda n=8080 + i: get_status(client, f"{url}:{n}/one", 3)[1] == "200", 10, "an answer")
            pid = [program.pid, *descendants(program.pid)][-1]
            wait_until(lambda p=pid, n=8080 + i: get_status(client, f"{url}:{n}/one", 3)[1] == "200" and opens(p) > 0, 10, "an answer of the stack's")
            expect_files(client, f"{url}:{8080 + i}", ["empty", "k64", "m1"])
            expect_equal("what it said of mtcp", [line for line in program.output().splitlines() if "mtcp[" in line], [])
        expect_on_kernel(client, server, serve_files(server, 8082, before=user), 8082, "no permission to share interface wire")
        for program in programs:
            for pid in (program.pid, *descendants(program.pid)):
                kill(pid, signal.SIGKILL)
            program.wait(5)
        wait_until(lambda: refused(client, f"{url}:8081/"), 3, "the refusal of what was killed")
        kill(opener.pid, signal.SIGTERM)
        expect_equal("the status of mtcp-open", opener.wait(5), 0)
    expect_nothing_left(server)


def descendants(pid):
    return [p for child in children(pid) for p in (child, *descendants(child))]


def start_opener(context, server, *words):
    opener = server.kernel_side().start(context.build / "preload/mtcp-open", "-c", server.config, *words)
    opener.says("is open for programs")
    return opener


@test("join-by-mtcp-open-without-any-privilege", shim_only=True)
def opener_lets_in(context):
    """Two users, neither of whom has a capability; a third is not let in."""
    server, client = context.veth(driver="af_xdp", share=True)
    server.namespace.run("ip", "route", "add", "default", "via", client.address)
    server.config = context.write_config("auto", None)
    with_sockets = Path("/run/mtcp-open")
    opener = start_opener(context, server, "-m", "0666", "-u", "www-data,daemon")
    url = f"http://{server.address}"
    programs = [serve_files(server, 8080 + i, user=user) for i, user in enumerate(("www-data", "daemon"))]
    for i, program in enumerate(programs):
        expect_on_stack(client, server, program, 8080 + i)
        expect_files(client, f"{url}:{8080 + i}", ["empty", "k64", "m1"])
        expect_equal("what it said of mtcp", [line for line in program.output().splitlines() if "mtcp[" in line], [])
    third = serve_files(server, 8082, user="mail")
    expect_on_kernel(client, server, third, 8082, "no permission to share interface wire")
    third.kill()
    kill(programs[0].pid, signal.SIGKILL)
    programs[0].wait(5)
    wait_until(lambda: refused(client, f"{url}:8080/"), 3, "the refusal of what was killed")
    expect_files(client, f"{url}:8081", ["k64"])
    kill(programs[1].pid, signal.SIGKILL)
    programs[1].wait(5)
    wait_until(lambda: refused(client, f"{url}:8081/"), 3, "the refusal of what was killed, with nobody left but mtcp-open")
    again = serve_files(server, 8081, user="daemon")
    expect_on_stack(client, server, again, 8081)
    status = Path(f"/proc/{opener.pid}/status").read_text(encoding="ascii")
    expect("CapEff:\t0000000000000000" in status, "mtcp-open has kept capabilities")
    again.kill()
    kill(opener.pid, signal.SIGTERM)
    expect_equal("the status of mtcp-open", opener.wait(5), 0)
    expect(not list(with_sockets.glob("wire.sock")), "its socket is left")
    expect_nothing_left(server)
