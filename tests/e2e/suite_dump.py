"""mtcp-dump: what it captures on each device, whom it serves, and what it leaves behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pcapng
from harness import command, descriptors, expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from suite_wire import stat
from web import expect_files, get

STAT = Path(__file__).resolve().parent.parent.parent / "scripts/mtcp-stat"

# A server and its client in one process, on the loopback wire.
TALKS = ("import socket,sys,threading\n"
         "l=socket.create_server(('10.99.0.2',9000))\n"
         "print('ready',flush=True)\n"
         "sys.stdin.readline()\n"
         "def serve():\n"
         "  c,_=l.accept()\n"
         "  c.sendall(b'pong '+c.recv(100))\n"
         "  c.close()\n"
         "t=threading.Thread(target=serve)\n"
         "t.start()\n"
         "s=socket.create_connection(('10.99.0.2',9000))\n"
         "s.sendall(b'ping')\n"
         "while s.recv(100): pass\n"
         "s.close()\n"
         "t.join()\n"
         "print('talked',flush=True)\n"
         "sys.stdin.readline()\n")


class Dump:
    """mtcp-dump on one side of the wire, capturing when this returns."""

    def __init__(self, side, *words, file=None):
        self.file = file or side.context.new_file("dump.pcapng")
        self.program = side.kernel_side().start(side.context.build / "scripts/dump/mtcp-dump", "-w", self.file, *words)
        self.program.says("capturing on")

    def end(self):
        """Interrupts it. (interfaces, packets), and tcpdump's lines of the same."""
        self.program.signal(signal.SIGINT)
        return self.result()

    def result(self):
        expect_equal("mtcp-dump's status", self.program.wait(), 0)
        interfaces, packets = pcapng.read(self.file)
        expect(f"{len(packets)} packets captured" in self.program.output(), f"{len(packets)} packets in the file: {self.program.output()}")
        lines = command("tcpdump", "-tt", "-n", "-K", "-r", self.file).stdout.splitlines()
        return interfaces, packets, lines


def check_request(pid, server, dump, ends):
    """A request and its answer over one connection, from handshake to FIN."""
    interfaces, packets, lines = dump.end()
    (interface,) = interfaces
    expect(re.fullmatch(rf"nginx\[{pid}\] stack \d+", interface.name) and f"process {pid}" in interface.description, f"the interface: {interface}")
    expect_equal("dropped", (interface.received, interface.dropped), (len(packets), 0))
    listener = f"{server.address}.8080"
    inward, outward = rf"IP \S+ > {re.escape(listener)}", rf"IP {re.escape(listener)} > \S+"
    text = "\n".join(lines)
    order = [rf"{inward}: Flags \[S[.EW]*\]", rf"{outward}: Flags \[S\.E?\]", rf"{inward}: Flags \[P\.\].*GET /hello HTTP", rf"{outward}: Flags \[F?P\.\].*HTTP/1.1 200 OK"]
    places = [match.start() if (match := re.search(pattern, text)) else -1 for pattern in order]
    expect(-1 not in places and places == sorted(places), f"handshake, request, answer at {places} of:\n{text}")
    for way in (inward, outward):
        expect(re.search(rf"{way}: Flags \[F", text), f"no FIN {way}:\n{text}")
    for packet, line in zip(packets, lines):
        expect_equal(f"the direction of {line}", packet.direction, "in" if re.search(inward, line) else "out")
        expect(abs(packet.nanoseconds / 1e9 - time.time()) < 60, f"it was at {packet.nanoseconds}")
    expect_equal("packets that tcpdump reads", len(lines), len(packets))
    expect(ends(packets), "a payload is missing or cut")


def dump_request(server, client, *words):
    nginx = Nginx(server).start()
    get(client, f"{nginx.url}/hello")  # ARP is over
    worker = nginx.workers()[0]
    dump = Dump(server, "-i", worker, *words, "tcp", "port", "8080")
    get(client, f"{nginx.url}/hello", 10, "-H", "Connection: close")
    wait_until(lambda: not re.search(r"^(ESTAB|FIN-WAIT|CLOS|LAST-ACK)", stat(worker), re.M), what="the end of the connection, with its last ACK")
    check_request(worker, server, dump, lambda packets: any(p.bytes.endswith(b"\r\n\r\nhello\n") for p in packets))
    nginx.stop()


@test("dump-af_packet", shim_only=True)
def dump_af_packet(context):
    dump_request(*context.veth())


@test("dump-af_xdp", shim_only=True)
def dump_af_xdp(context):
    dump_request(*context.veth(driver="af_xdp"))


@test("dump-share", shim_only=True)
def dump_share(context):
    dump_request(*context.veth(driver="af_xdp", share=True))


@test("dump-memif-live-through-a-pipe", shim_only=True)
def dump_memif(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    get(client, f"{nginx.url}/hello")
    worker = nginx.workers()[0]
    words = [*server.namespace.prefix(), context.build / "scripts/dump/mtcp-dump", "-i", worker, "-s", "128", "-w", "-", "tcp", "port", "8080"]
    with subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as dump:
        try:
            while f"nginx[{worker}]" not in (said := dump.stderr.readline()):
                expect(said, "mtcp-dump has ended")
            read_live(dump, client, nginx)
        finally:
            dump.kill()
    expect_equal("mtcp-dump's status", dump.returncode, 0)
    nginx.stop()


def read_live(dump, client, nginx):
    with subprocess.Popen(["tcpdump", "-l", "-n", "-K", "-r", "-"], stdin=dump.stdout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as reader:
        try:
            get(client, f"{nginx.url}/hello")
            line = reader.stdout.readline()  # now, not when a buffer is full
            expect("Flags [S]" in line, f"the first line: {line}")
            dump.send_signal(signal.SIGTERM)
            rest = reader.stdout.read()
            expect("HTTP: GET /hello" in rest and "Flags [F.]" in rest, f"tcpdump reads: {rest}")
            dump.wait(10)
        finally:
            reader.kill()


@test("dump-loopback-wire", shim_only=True)
def dump_loopback(context):
    server, _ = context.veth()
    read_end, write_end = os.pipe()
    log = context.new_file("talks.log")
    env = [f"{key}={value}" for key, value in server.env.items()]
    with open(log, "wb") as output, subprocess.Popen([*server.namespace.prefix(), "env", *env, "/usr/bin/python3", "-c", TALKS], stdin=read_end, stdout=output, stderr=output) as talker:
        try:
            wait_until(lambda: b"ready" in log.read_bytes(), what="the listener")
            wait_until(lambda: "device" in command(sys.executable, STAT, talker.pid, check=False).stdout, what="its stack, which begins by itself")
            dump = Dump(server, "tcp")
            os.write(write_end, b"\n")
            wait_until(lambda: b"talked" in log.read_bytes(), what="the talk")
            _, packets, lines = dump.end()
            os.write(write_end, b"\n")
            expect_equal("the talker's status", talker.wait(10), 0)
        finally:
            talker.kill()
    os.close(read_end)
    os.close(write_end)
    text = "\n".join(lines)
    expect(all(p.direction == "in" for p in packets) and any(p.bytes.endswith(b"ping") for p in packets) and any(p.bytes.endswith(b"pong ping") for p in packets),
           f"the talk as it is dumped:\n{text}")
    expect("Flags [S]" in text and text.count("Flags [F.]") + text.count("Flags [FP.]") == 2, f"handshake and ends:\n{text}")


def memory_of_dumps(pid):
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:mtcp-dump")


@test("dump-drops-are-counted-and-nothing-waits-for-the-reader", shim_only=True)
def dump_drops(context):
    server, client = context.veth()
    nginx = Nginx(server, sendfile="off").start()  # which may send few and large packets
    get(client, f"{nginx.url}/hello")  # it has a stack
    worker = nginx.workers()[0]
    dump = Dump(server, "-i", worker, "-B", "256", "-s", "200", "tcp", "src", "port", "8080")
    every = Dump(server, "-i", worker, "-B", "16384", "tcp", "src", "port", "8080")
    dump.program.signal(signal.SIGSTOP)
    expect_files(client, nginx.url, ["m10"])
    dump.program.signal(signal.SIGCONT)
    (interface,), packets, _ = dump.end()
    expect(interface.dropped > 0, "nothing was dropped")
    expect_equal("received", interface.received, len(packets) + interface.dropped)
    expect_equal("the longest", max(len(p.bytes) for p in packets), 200)
    expect(max(p.length for p in packets) > 1000, "the packets' own length is not told")
    expect(f"{interface.dropped} packets dropped" in dump.program.output(), dump.program.output())
    (interface,), packets, _ = every.end()
    expect_equal("of one that reads, dropped", interface.dropped, 0)
    expect(sum(p.length for p in packets) > 10 << 20 and all(p.direction == "out" for p in packets), "not all that was sent")
    nginx.stop()


@test("dump-killed-reader-and-killed-worker", shim_only=True)
def dump_killed(context):
    server, client = context.veth()
    nginx = Nginx(server, workers=2).start()
    one, other = wait_until(lambda: len(nginx.workers()) == 2 and sorted(nginx.workers()), what="two workers")
    get(client, f"{nginx.url}/hello")
    before = descriptors(one)
    for _ in range(3):
        dumps = [Dump(server, "-i", one) for _ in range(4)]
        expect_equal("buffers of four readers", memory_of_dumps(one), 4)
        fifth = server.kernel_side().run(context.build / "scripts/dump/mtcp-dump", "-i", one, "-w", "/dev/null", check=False)
        expect(fifth.returncode == 1 and "others capture" in fifth.stderr, f"a fifth is told: {fifth.stderr}")
        for dump in dumps:
            dump.program.kill()
        wait_until(lambda: memory_of_dumps(one) == 0 and descriptors(one) == before, what="the end of what the killed ones had")
    get(client, f"{nginx.url}/hello")
    dump = Dump(server, "-i", other, "tcp")
    for _ in range(8):  # so that some go to it
        get(client, f"{nginx.url}/hello")
    os.kill(other, signal.SIGKILL)
    interfaces, packets, _ = dump.result()
    expect("has ended" in dump.program.output() and interfaces[0].received == len(packets), f"of the killed worker: {dump.program.output()}")
    get(client, f"{nginx.url}/hello")
    nginx.kill()


@test("dump-who-may-and-what-it-refuses", shim_only=True)
def dump_refused(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    get(client, f"{nginx.url}/hello")
    worker = nginx.workers()[0]
    program = context.build / "scripts/dump/mtcp-dump"
    # www-data is the worker's user; but it was root before, and www-data may not look into it.
    for user, reason in (("nobody", "run as root"), ("www-data", "run as root")):
        done = server.kernel_side().run("setpriv", f"--reuid={user}", "--clear-groups", program, "-i", worker, "-w", "/dev/null", check=False)
        expect(done.returncode == 1 and reason in done.stderr, f"{user} is told {done.returncode}: {done.stderr}")
    for words, status, reason in ((["-i", worker, "tcp", "prot", "80"], 1, "syntax error"), (["-i", "x"], 2, "process's number"), (["-c", "0"], 2, "number of packets"),
                                  (["-B", "3"], 2, "KiB"), (["-i", os.getpid()], 1, "has no stack"), (["-i", 999999999], 1, "no process"),
                                  (["-w", "/none/x"], 1, "No such file")):
        done = server.kernel_side().run(program, "-w", "/dev/null", *words, check=False)
        expect(done.returncode == status and reason in done.stderr, f"{words}: {done.returncode}: {done.stderr}")
    dump = Dump(server, "-i", worker, "-c", "5")
    get(client, f"{nginx.url}/hello")
    _, packets, _ = dump.result()
    expect_equal("packets with -c 5", len(packets), 5)
    nginx.stop()
