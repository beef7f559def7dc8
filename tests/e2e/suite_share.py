"""One interface, one address: the stack has its listeners and connections, the kernel all else, at the same time."""

import json
import re
import signal
import threading
import time
from functools import partial
from pathlib import Path

from harness import Stopwatch, command, expect, expect_equal, kill, wait_until
from nginx import Nginx
from registry import test
from suite_af_xdp import program_on
from suite_programs import connects, stop, use_store, wait_for_port
from suite_wire import counters_of, stack_opens, stat, wait_for_stack
from suite_workers import PID, expect_no_failure, expect_shared, result_of, start_flows
from web import expect_files, expect_wrk, get, get_status, small_files

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
RUN = HERE.parent.parent / "scripts/mtcp-run"


def refused(client, url):
    return get_status(client, url, 3)[0] == 7


def expect_refused(client, url, what):
    expect_equal(f"curl's status for {what}", get_status(client, url, 3)[0], 7)


def beside_test(name, workers, share=True):
    """nginx on the stack, another in the kernel, clients of both, and what is the kernel's alone."""

    @test(name)
    def run(context):
        server, client = context.veth(driver="af_xdp", share=share, queues=workers)
        nginx = Nginx(server, workers=workers, server=PID).start()
        other = Nginx(server.kernel_side(), port=9000, greeting="kernel").start()
        wait_until(lambda: len(nginx.workers()) == workers, 10, f"{workers} workers")
        expect_equal("the kernel's answer", get(client, f"{other.url}/hello"), "kernel\n")
        expect_files(client, nginx.url, small_files(client))
        loads = [start_flows(client, "load", n, "/k8", 2, 8, 8) for n in (nginx, other)]
        expect_equal("answered echo requests", client.run(PYTHON, HERE / "wire_tool.py", "ping", server.address).stdout.strip(), "5 of 5")
        expect_refused(client, f"http://{server.address}:7777/", "a port that nobody has")
        expect_equal("the answer on the machine itself", get(server.kernel_side(), f"{nginx.url}/hello"), "hello\n")
        for load in loads:
            expect_no_failure(result_of(load), 100)
        if workers > 1:
            expect_shared(nginx, client, workers)
        expect_wrk(client, f"{nginx.url}/m1", seconds=1, connections=8, at_least=50)
        expect_equal("PUT", get_status(client, f"{nginx.url}/put/m10", 20, "-T", context.files.root / "m10"), (0, "201"))
        same = command("cmp", context.files.root / "m10", nginx.prefix / "put/m10", check=False)
        expect_equal("the difference of what came", same.returncode, 0)
        if server.on_stack:
            queues = sum(int(re.search(r"^share .* queues=(\d+)", stat(pid, "-r"), re.MULTILINE)[1]) for pid in nginx.workers())
            expect(queues == workers if isinstance(share, str) else queues >= workers, f"{workers} workers have {queues} queues")
            expect(stack_opens(nginx) > 100, "the connections were not the stack's")
            expect_equal("the program on the interface", program_on(server.namespace), "xdp" if isinstance(share, str) else "classifier")
            by = {"generic": "xdp-generic", "native": "xdp-copy", True: "packet-socket"}[share]  # what copies nothing takes a card
            said = {re.search(r"^wire .*\bby=(\S+)", stat(pid, "-r"), re.MULTILINE)[1] for pid in nginx.workers()}
            expect_equal("what is said of how frames are taken", said, {by})
        nginx.stop()
        wait_until(lambda: not program_on(server.namespace), 5, "the end of the program on the interface")
        expect_refused(client, f"{nginx.url}/hello", "the port of what has ended")
        expect_equal("the kernel's answer", get(client, f"{other.url}/hello"), "kernel\n")
        other.stop()

    return run


beside_test("share-beside-the-kernel", 1)
beside_test("share-beside-the-kernel-4-workers", 4)
beside_test("share-by-xdp-beside-the-kernel", 1, "generic")
beside_test("share-by-native-xdp-beside-the-kernel", 1, "native")
beside_test("share-by-native-xdp-beside-the-kernel-2-workers", 2, "native")
beside_test("share-by-xdp-beside-the-kernel-4-workers", 4, "generic")


def several(client, server, seconds, clients=50):
    """Clients with a connection for each request, of whom some are refused; nothing else may happen to them."""
    return client.start(PYTHON, HERE / "refused_client.py", server.address, "8080", str(seconds), str(clients))


def comes_and_goes(context, share):
    """In between the kernel refuses, as for any other port, and takes over at once for who listens there without the stack."""
    server, client = context.veth(driver="af_xdp", share=share)
    load = several(client, server, 8, clients=100)
    sides = (server, server.kernel_side(), server)
    for side in sides:
        time.sleep(0.3)
        nginx = Nginx(side).start()
        wait_until(lambda: get_status(client, f"{nginx.url}/hello", 3)[1] == "200", 5, "an answer")
        time.sleep(0.7)
        nginx.stop()
        expect_refused(client, f"{nginx.url}/hello", "the port of what has ended")
    expect_equal("the client's status", load.wait(30), 0)
    result = json.loads(load.output().splitlines()[-1])
    # What a listener has not accepted is reset when it is closed.
    expect_equal("what else happened to the clients", set(result["other"]) - {"ConnectionResetError: [Errno 104] Connection reset by peer"}, set())
    expect(result["answered"] > 100 and result["refused"] > 10, f"the clients saw {result}")


@test("share-listener-comes-and-goes-under-load")
def comes_and_goes_by_classifier(context):
    comes_and_goes(context, True)


@test("share-by-xdp-listener-comes-and-goes-under-load", long_only=True)
def comes_and_goes_by_xdp(context):
    comes_and_goes(context, "generic")


class Steady:
    """Asks the kernel's server all the time, on one connection each: how long the longest answer took."""

    def __init__(self, client, url):
        self.client, self.url, self.longest, self.failures, self.ended = client, url, 0.0, [], False  # `longest`: but for what the machine stood still
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, failure, *_):
        self.ended = True
        self.thread.join()
        if failure is None:
            expect_equal("failures of the kernel's server", self.failures, [])
            expect(self.longest < 2, f"the kernel's server paused for {self.longest:.2f} s")

    def run(self):
        while not self.ended:
            watch = Stopwatch()
            try:
                get(self.client, self.url)
            except Exception as error:  # noqa: BLE001
                self.failures.append(str(error))
            self.longest = max(self.longest, watch.own())


def killed(context, share):
    """Nothing of the stack remains, and nobody else notices."""
    server, client = context.veth(driver="af_xdp", share=share, queues=4)
    other = Nginx(server.kernel_side(), port=9000, greeting="kernel").start()
    with Steady(client, f"{other.url}/hello"):
        for _ in range(2):
            nginx = Nginx(server, workers=2).start()
            load = start_flows(client, "load", nginx, "/k8", 5, 4, 4)
            time.sleep(0.5)
            victim = nginx.workers()[0]
            kill(victim, signal.SIGKILL)  # its successor and the other go on
            time.sleep(0.5)
            get(client, f"{nginx.url}/hello")
            nginx.kill()
            wait_until(lambda: not program_on(server.namespace), 2, "the end of the program on the interface")
            wait_until(lambda n=nginx: refused(client, f"{n.url}/hello"), 2, "the refusal of what was killed")
            load.kill()
            again = Nginx(server.kernel_side(), greeting="again").start()
            expect_equal("the kernel's answer on that port", get(client, f"{again.url}/hello"), "again\n")
            again.stop()
    other.stop()


@test("share-all-killed-under-load", shim_only=True)
def killed_by_classifier(context):
    killed(context, True)


@test("share-by-xdp-all-killed-under-load", shim_only=True)
def killed_by_xdp(context):
    killed(context, "generic")


@test("share-clients")
def clients(context):
    """The stack and the kernel connect from one address to one server, out of few ports: neither takes what the other has."""
    server, client = context.veth(stack="client", driver="af_xdp", share=True, more="[tcp]\nip_local_port_range = [40000, 40999]\n")
    client.namespace.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40999")
    nginx = Nginx(server, workers=2, server='location = /port { return 200 "$remote_port\\n"; }').start()
    expect_files(client, nginx.url, ["empty", "one", "k64", "m10"])
    words = [PYTHON, HERE / "refused_client.py", "--hold", server.address, "8080", "300"]
    holders = [side.start(*words) for side in (client, client.kernel_side())]
    ports = []
    for holder in holders:
        holder.says("ports")
        ports.append(set(json.loads(holder.output().splitlines()[-1])["ports"]))
    expect_equal("the connections that each has", [len(p) for p in ports], [300, 300])
    expect_equal("ports that both have", ports[0] & ports[1], set())
    for holder in holders:
        holder.kill()
    expect_wrk(client, f"{nginx.url}/k8", seconds=1, connections=16)
    expect_wrk(client.kernel_side(), f"{nginx.url}/k8", seconds=1, connections=16)
    expect_wrk(client, f"{nginx.url}/s64", seconds=1, connections=16, more=["-H", "Connection: close"])
    nginx.stop()


@test("share-mistakes-are-named", shim_only=True)
def mistakes(context):
    server, _ = context.veth(driver="af_xdp", share=True)
    for port, words in (("net_af_xdp0,iface=wire,share=all", "write share=kernel"), ("net_af_xdp0,iface=wire,xdp=fast", "expected xdp=native or xdp=generic"),
                        ("net_af_xdp0,iface=wire,xdp=no", "xdp=no goes with share=kernel only"),
                        ("net_af_packet0,iface=wire,share=kernel,xdp=generic", "net_af_packet uses no XDP")):
        server.config = context.write_config(port, server.address)
        nginx = Nginx(server)
        done = server.run(*nginx.words(), check=False, timeout=20)
        expect_equal("the status", done.returncode, 78)
        text = nginx.log() + done.stderr
        expect(words in text, f"it said: {text}")


def serve_files(side, port, user=None, before=()):
    return side.start(*before, PYTHON, "-u", "-m", "http.server", port, "--directory", side.context.files.root, user=user)


def expect_on_kernel(client, server, program, port, reason):
    wait_until(lambda: get_status(client, f"http://{server.address}:{port}/one", 3)[1] == "200", 10, "an answer")
    for words in (reason, "This program runs on the kernel"):
        expect(words in program.output(), f"it said: {program.output()}")


@test("share-without-permission-the-program-runs-on-the-kernel", shim_only=True)
def without_permission(context):
    server, client = context.veth(driver="af_xdp", share=True)
    program = serve_files(server, 8080, user="www-data")
    expect_on_kernel(client, server, program, 8080, "no permission to share interface wire")
    expect(not program_on(server.namespace), "there is an XDP program on the interface")
    program.kill()
    dry = server.kernel_side().run("setpriv", "--reuid=www-data", "--clear-groups", RUN, "-n", "-c", server.config, "/bin/true", env={"MTCP_SHIM": context.shim},
                                   check=False)
    expect_equal("the status of mtcp-run -n", dry.returncode, 69)
    expect("The program would run on the kernel (on_failure)" in dry.stderr and "ipc_lock" not in dry.stderr, f"it said: {dry.stderr}")
    server.config = context.write_config("net_af_xdp0,iface=wire,share=kernel", server.address, device='on_failure = "exit"\n')
    program = serve_files(server, 8080, user="www-data")
    expect_equal("the status", program.wait(20), 69)


@test("share-a-program-that-has-given-up-root-runs-on-the-kernel", shim_only=True)
def gave_up_root(context):
    """It had the permission when it started, and opens its first socket without; the rule that OPERATING names is what it lacks."""
    server, client = context.veth(driver="af_xdp", share=True)
    words = ("memcached", "-l", server.address, "-p", "11211", "-U", "0", "-u", "www-data", "-m", "64")
    program = server.start(*words)
    wait_for_port(client, program, server.address, 11211)
    use_store(client, "memcached", server.address, 11211, connections=4, rounds=10)
    expect("no permission to share interface wire" in program.output() and "This program runs on the kernel" in program.output(), f"it said: {program.output()}")
    expect_equal("lines of mtcp", program.output().count("mtcp["), 1)
    stop(program)
    server.config = context.write_config("net_af_xdp0,iface=wire,share=kernel", server.address,
                                         '[[rule]]\nmatch = { role = "listen", program = "memcached" }\nto = "stack"\n')
    program = server.start(*words)
    wait_for_stack(program, lambda: connects(client, program, server.address, 11211))
    expect_equal("lines of mtcp", program.output().count("mtcp["), 0)
    stop(program)


@test("share-clients-connect-200000-times", long_only=True)
def many_connects(context):
    """From the stack and from the kernel of one address, out of few ports, to one server: every byte is looked at, and nothing fails."""
    server, client = context.veth(stack="client", driver="af_xdp", share=True, more="[tcp]\nip_local_port_range = [32768, 40959]\n")
    client.namespace.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 40959")
    program = server.start(context.build / "perf/msg_server", server.address, "9000", "1024")
    wait_for_port(client, program, server.address, 9000)
    made = [0, 0]
    while min(made) < (200_000 if client.on_stack else 20_000):
        loads = [side.start(context.build / "perf/msg_client", server.address, "9000", "16", "5") for side in (client, client.kernel_side())]
        for i, load in enumerate(loads):
            expect_equal(f"the status of a client ({load.output()[-300:]})", load.wait(30), 0)
            done = json.loads(load.output())
            for name in ("connect_errors", "io_errors", "wrong_bytes", "closed_early"):
                expect_equal(name, done[name], 0)
            made[i] += done["connections"]
    stop(program)


@test("share-on-an-old-kernel-the-program-runs-on-the-kernel", shim_only=True)
def old_kernel(context):
    server, client = context.veth(driver="af_xdp", share=True)
    configs = {share: context.write_config(f"net_af_xdp0,iface=wire,share=kernel{share}", server.address) for share in ("", ",xdp=no", ",xdp=generic")}
    for share, lacks, reason in ((",xdp=generic", "sockets", "has no AF_XDP"), ("", "programs", "takes Linux 5.18 or later"),
                                 ("", "links", "Linux 5.9 or later does"), (",xdp=no", "links", "takes Linux 6.6 or later")):
        server.config = configs[share]
        program = serve_files(server, 8080, before=(PYTHON, HERE / "old_kernel.py", lacks))
        expect_on_kernel(client, server, program, 8080, reason)
        expect_equal("lines of mtcp", program.output().count("mtcp["), 1)
        program.kill()
    expect(not program_on(server.namespace), "there is a program on the interface")


@test("share-without-AF_XDP-a-veth-is-shared-all-the-same", shim_only=True)
def no_af_xdp(context):
    server, client = context.veth(driver="af_xdp", share=True)
    program = serve_files(server, 8080, before=(PYTHON, HERE / "old_kernel.py", "sockets"))
    wait_until(lambda: get_status(client, f"http://{server.address}:8080/one", 3)[1] == "200", 10, "an answer")
    expect_files(client, f"http://{server.address}:8080", ["k64", "m1"])
    expect(counters_of(program.pid).get("passive_opens", 0) > 0, "the connections were not the stack's")


@test("share-auto-is-the-interface-of-the-default-route", shim_only=True)
def automatic(context):
    server, client = context.veth(driver="af_xdp", share=True)
    server.config = context.write_config("auto", None)
    program = serve_files(server, 8080)
    expect_on_kernel(client, server, program, 8080, "there is no default route")
    program.kill()
    server.namespace.run("ip", "route", "add", "default", "via", client.address)
    nginx = Nginx(server).start()
    expect_files(client, nginx.url, ["empty", "k64", "m1"])
    expect(stack_opens(nginx) > 0, "the connections were not the stack's")
    nginx.stop()


@test("share-with-capabilities-instead-of-root", shim_only=True)
def capabilities(context):
    """Those that the documentation names, and no others."""
    server, client = context.veth(driver="af_xdp", share=True)
    for how, names in (("", "+net_raw,+net_admin,+bpf"), (",xdp=generic", "+net_raw,+net_admin,+bpf,+ipc_lock")):
        server.config = context.write_config(f"net_af_xdp0,iface=wire,share=kernel{how}", server.address)
        serve_with(server, client, names)


def serve_with(server, client, names):
    program = server.start("setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", f"--inh-caps={names}",
                           f"--ambient-caps={names}", PYTHON, "-u", "-m", "http.server", "8080", "--directory", server.context.files.root)
    url = f"http://{server.address}:8080"
    wait_until(lambda: get_status(client, f"{url}/one", 3)[1] == "200", 10, "an answer")
    expect_files(client, url, ["k64", "m1"])
    expect_equal("what the program said of mtcp", [line for line in program.output().splitlines() if "mtcp[" in line], [])
    expect(counters_of(program.pid).get("passive_opens", 0) > 0, "the connections were not the stack's")
    program.kill()


@test("share-more-queues-than-sockets-the-program-runs-on-the-kernel", shim_only=True)
def queues(context):
    server, client = context.veth(driver="af_xdp", share=True)
    server.namespace.run("ip", "link", "add", "wide", "numrxqueues", "4", "numtxqueues", "4", "type", "veth", "peer", "name", "wide-peer")
    server.namespace.run("ethtool", "-L", "wide", "rx", "4", "tx", "2")
    for name in ("wide", "wide-peer"):
        server.namespace.run("ip", "link", "set", name, "up")
    server.config = context.write_config("net_af_xdp0,iface=wide,share=kernel,xdp=generic", server.address)
    program = serve_files(server, 8080)
    expect_on_kernel(client, server, program, 8080, "sudo ethtool -L wide rx 1 tx 1")


def raw_frames(context, what, prefix):
    """For each way of sharing an interface: nginx there, and what sends it such frames by `wire_tool.py`."""
    for number, share in enumerate((True, "generic", "native")):
        server, client = context.veth(driver="af_xdp", share=share, prefix=f"{prefix}{number}")
        nginx = Nginx(server).start()
        get(client, f"{nginx.url}/hello")
        mac = server.namespace.run("cat", "/sys/class/net/wire/address").stdout.strip()
        # The client's kernel would answer what it knows nothing of with a reset, before us.
        client.namespace.run("ip", "route", "add", "blackhole", f"{server.address}/32")
        yield nginx, partial(client.run, PYTHON, HERE / "wire_tool.py", what, server.address, client.address, mac)
        nginx.stop()


def counted(nginx, counter):
    return sum(counters_of(pid).get(counter, 0) for pid in nginx.serving_pids()) if nginx.side.on_stack else 0


@test("share-tagged-frames")
def tags(context):
    """A priority is no VLAN, and the stack has such a frame; one of a VLAN is not for this interface, and nobody answers it."""
    for nginx, send in raw_frames(context, "tagged", "w"):
        before = counted(nginx, "segments_received")
        expect_equal("frames that were answered", send().stdout.split(), ["none", "4", "priority", "4", "vlan", "0"])
        if nginx.side.on_stack:
            wait_until(lambda n=nginx, b=before: counted(n, "segments_received") - b >= 16, 5, "16 segments that the stack has had")


def every_mtu(context, share, *sizes):
    """Each of the stack's MTU and the interface's: both ends of what there may be, and what a buffer or a page just holds, and does not."""
    for mtu, wire in sizes:
        server, client = context.veth(driver="af_xdp", share=share, device=f"mtu = {mtu}\n", prefix=f"{mtu}")
        for end in (server, client):
            end.namespace.run("ip", "link", "set", "wire", "mtu", wire)
        nginx = Nginx(server).start()
        expect_files(client, nginx.url, ["empty", "one", "k64", "m1"])
        expect(stack_opens(nginx) > 0, f"with an MTU of {mtu} the connections were not the stack's")
        nginx.stop()


@test("share-every-mtu", shim_only=True)
def every_mtu_by_classifier(context):
    every_mtu(context, True, (576, 576), (1501, 1501), (2048, 2048), (4096, 4096), (9000, 9000), (9600, 9600), (1500, 9000))


@test("share-by-xdp-every-mtu", shim_only=True)
def every_mtu_by_xdp(context):
    every_mtu(context, "generic", (576, 576), (1501, 1501), (2766, 2766), (1500, 9000))
