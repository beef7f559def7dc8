"""What others on the machine do: other users, the kernel, the interface, a worker that has been taken over. Each where the kernel
stands is the measure, too."""

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path

from harness import Stopwatch, command, cpu_share, expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from suite_config import EX_CONFIG
from web import expect_files, get_status

PYTHON = "/usr/bin/python3"
MTCP_STAT = Path(__file__).resolve().parent.parent.parent / "scripts/mtcp-stat"
NOBODY = "65534"


def seconds_of(client, url, limit=20):
    watch = Stopwatch()
    expect_equal("the answer", get_status(client, url, limit), (0, "200"))
    return watch.own()


@test("interface-down-and-up")
def bounce(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    expect_files(client, nginx.url, ["s64"])
    workers = nginx.workers()
    for _ in range(2):
        server.namespace.run("ip", "link", "set", "wire", "down")
        expect(cpu_share(workers, 1.5) < 0.2, "the worker spins while the link is down")
        server.namespace.run("ip", "link", "set", "wire", "up")
        took = seconds_of(client, f"{nginx.url}/s64")
        expect(took < 3, f"the first request after the link was up again took {took:.1f} s")
        expect(cpu_share(workers, 1) < 0.3, "the worker spins when the link is up again")
    nginx.stop()


SLOW_READER = """
import hashlib,socket,sys,time
s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536); s.connect((sys.argv[1],int(sys.argv[2])))
s.sendall(b'GET /m10 HTTP/1.0\\r\\n\\r\\n'); got=b''; first=True
while True:
    part=s.recv(65536)
    if not part: break
    got+=part
    if first: print('begun',flush=True); first=False
    if len(got) < 4<<20: time.sleep(0.02)
print(hashlib.sha256(got.partition(b'\\r\\n\\r\\n')[2]).hexdigest())
"""


@test("interface-mtu-lowered")
def mtu_lowered(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    reader = client.start(PYTHON, "-c", SLOW_READER, nginx.side.address, nginx.port)
    reader.says("begun")
    server.namespace.run("ip", "link", "set", "wire", "mtu", "1000")
    expect_equal("the reader's status", reader.wait(30), 0)
    expect(context.files.sums["m10"] in reader.output(), "the file arrived damaged")
    expect_files(client, nginx.url, ["m1"])
    nginx.stop()


# Goes on reading while the link is down: what opens its window is lost as well.
PAUSING_READER = SLOW_READER.replace("first=False", "first=False; time.sleep(0.3)").replace("time.sleep(0.02)", "pass")


@test("interface-down-while-data-is-on-its-way")
def bounce_in_transfer(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    for side in (server, client):
        reader = client.start(PYTHON, "-c", PAUSING_READER, nginx.side.address, nginx.port)
        reader.says("begun")
        side.namespace.run("ip", "link", "set", "wire", "down")
        time.sleep(0.5)
        side.namespace.run("ip", "link", "set", "wire", "up")
        expect_equal("the reader's status", reader.wait(20), 0)
        expect(context.files.sums["m10"] in reader.output(), "the file arrived damaged")
    nginx.stop()


TALKER = """
import socket,sys,time
l=socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind((sys.argv[1],7002)); l.listen()
print('ready',flush=True)
c,_=l.accept(); c.recv(1)
while True:
    time.sleep(0.01)
    try:
        with open(sys.argv[2]): break
    except FileNotFoundError: pass
c.sendall(b'x'); c.recv(1); print('done')
"""
LISTENER = """
import socket,sys,time
s=socket.create_connection((sys.argv[1],7002)); s.sendall(b'a'); print('connected',flush=True)
s.recv(1); print('%.3f' % time.time(),flush=True); s.sendall(b'b')
"""


@test("interface-peer-has-another-mac-address")
def moved(context):
    server, client = context.veth()
    go = context.new_file("go")
    talker = server.start(PYTHON, "-c", TALKER, server.address, go)
    talker.says("ready")
    listener = client.start(PYTHON, "-c", LISTENER, server.address)
    listener.says("connected")
    time.sleep(0.3)
    # Without a word to anybody.
    client.namespace.run("sysctl", "-qw", "net.ipv4.conf.wire.arp_notify=0")
    client.namespace.run("ip", "link", "set", "wire", "address", "02:00:00:00:77:01")
    client.namespace.run("ip", "neigh", "flush", "dev", "wire", check=False)
    start, watch = time.time(), Stopwatch()
    go.write_text("")
    listener.wait(30)
    took = float(listener.output().split()[1]) - start
    expect(took < (6 if server.on_stack else 25) + watch.stalled(), f"it took {took:.1f} s to find the peer's new MAC address")


@test("address-is-the-kernels-too", shim_only=True)
def shared_address(context):
    server, client = context.veth()
    server.namespace.run("ip", "address", "add", f"{server.address}/24", "dev", "wire")
    done = server.run(PYTHON, "-c", "import socket,sys; s=socket.socket(); s.bind((sys.argv[1],7001)); s.listen(); s.accept()", server.address, check=False)
    expect_equal("the status of a server", done.returncode, EX_CONFIG)
    expect(f"run: sudo ip addr del {server.address}/24 dev wire" in done.stderr, f"no line to type: {done.stderr}")
    server.namespace.run("ip", "addr", "del", f"{server.address}/24", "dev", "wire")
    nginx = Nginx(server).start()
    expect_files(client, nginx.url, ["s64"])
    server.namespace.run("ip", "address", "add", f"{server.address}/24", "dev", "wire")
    worker = nginx.workers()[0]
    wait_until(lambda: "address_conflict" in server.run(PYTHON, MTCP_STAT, "-c", str(worker)).stdout, 5, "a conflict in mtcp-stat")
    nginx.stop()


SQUAT = """
import os,socket,sys,time
held=[]
for name in [b'mtcp-device-wire']+[b'mtcp-stat-%d'%i for i in range(int(sys.argv[1]),int(sys.argv[1])+400)]+[b'mtcp-stat-%d-0123456789abcdef'%i for i in range(int(sys.argv[1]),int(sys.argv[1])+400)]:
    s=socket.socket(socket.AF_UNIX)
    try: s.bind(b'\\0'+name); s.listen(4); held.append(s)
    except OSError: pass
print('squatted',flush=True); time.sleep(60)
"""


@test("names-taken-by-another-user", shim_only=True)
def squatted(context):
    server, client = context.veth()
    last = int(Path("/proc/loadavg").read_text().split()[-1])
    squatter = server.kernel_side().start(PYTHON, "-c", SQUAT, last, user=NOBODY)
    squatter.says("squatted")
    nginx = Nginx(server).start()
    expect_files(client, nginx.url, ["s64"])
    worker = nginx.workers()[0]
    text = server.run(PYTHON, MTCP_STAT, "-r", str(worker)).stdout
    expect(f"process pid={worker} " in text and "link=up" in text, f"another's statistics: {text[:300]}")
    nginx.stop()


EVIL = """
import os,socket,sys
s=socket.socket(socket.AF_UNIX); s.bind(b'\\0mtcp-stat-%d-0123456789abcdef' % os.getpid()); s.listen(4); print('ready',flush=True)
while True:
    c,_=s.accept(); c.sendall(b'mtcp-stat 1\\nprocess pid=1 program=EVIL\\x1b]0;owned\\x07\\xc2\\x9b31m device=x\\nend\\n'); c.close()
"""


@test("mtcp-stat-prints-no-control-characters", shim_only=True)
def escapes(context):
    server, _ = context.veth()
    evil = server.kernel_side().start(PYTHON, "-c", EVIL)
    evil.says("ready")
    pid = server.namespace.pids()[-1]
    for arguments in ([], ["-r"]):
        text = server.kernel_side().run(PYTHON, MTCP_STAT, *arguments, str(pid)).stdout
        expect("program=EVIL\\x1b]0;owned\\x07" in text, f"not escaped: {text!r}")
        expect(all(c == "\n" or c.isprintable() for c in text), f"control characters: {text!r}")


@test("memif-without-a-peer", shim_only=True)
def lonely(context):
    _, client = context.memif()
    watch = Stopwatch()
    program = client.start(PYTHON, "-u", "-c", "import socket,sys; s=socket.socket(); s.settimeout(4); s.connect_ex((sys.argv[1],80)); print('over')",
                           "10.99.1.2")
    program.says("no peer yet: link down")
    expect(watch.seconds() > 0.8, "the line came too early")
    pid = program.pid
    text = client.kernel_side().run(PYTHON, MTCP_STAT, "-r", str(pid)).stdout
    expect("link=down" in text, f"mtcp-stat does not say that the link is down: {text[:300]}")
    program.wait(20)
    expect_equal("lines about it", program.output().count("no peer yet"), 1)
    expect(program.output().index("no peer yet") < program.output().index("over"), "the line came too late")


LIMITED = """
import ctypes,errno,resource,select,socket,sys
l=socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind(('127.0.0.1',7003)); l.listen(64)
def talk():
    c=socket.create_connection(('127.0.0.1',7003)); a,_=l.accept(); c.sendall(b'x'); assert a.recv(1)==b'x'; c.close(); a.close()
talk()
libc=ctypes.CDLL(None,use_errno=True); event=(ctypes.c_char*12)(1); ep=select.epoll(); most=resource.getrlimit(resource.RLIMIT_NOFILE)[0]-300
fds=[-1]*most; outcome='none failed'
size=int(open('/proc/self/statm').read().split()[0])*4096
hard=resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS,(size+(1<<20),hard))
for i in range(most):
    fds[i]=libc.socket(2,1,0)
    if fds[i]<0 or libc.epoll_ctl(ep.fileno(),1,fds[i],event)<0:
        outcome=errno.errorcode[ctypes.get_errno()]; break
resource.setrlimit(resource.RLIMIT_AS,(hard,hard))
for fd in fds:
    if fd>=0: libc.close(fd)
talk()
print(outcome, i)
"""


@test("memory-limit", shim_only=True)
def limited(context):
    space = context.namespace("l")
    config = context.write_config("", "", "[stack]\nloopback = true\n")
    done = space.run("prlimit", "--nofile=19000", "env", f"LD_PRELOAD={context.shim}", f"MTCP_CONF={config}", PYTHON, "-c", LIMITED, check=False, timeout=60)
    expect(done.returncode == 0 and re.match(r"(ENOMEM|ENFILE) ", done.stdout),
           f"status {done.returncode}: {done.stdout[-300:]} {done.stderr[-600:]}")


@test("memory-limit-from-the-start", shim_only=True)
def limited_from_the_start(context):
    """However little there is: the program has its socket, an error that it can tell, or a line says why it ends."""
    space = context.namespace("m")
    config = context.write_config("", "", "[stack]\nloopback = true\n")
    said = set()
    for megabytes in range(25, 105, 5):
        done = space.run("prlimit", f"--as={megabytes << 20}", "env", f"LD_PRELOAD={context.shim}", f"MTCP_CONF={config}", PYTHON, "-c",
                         "import socket; socket.socket()", check=False)
        reasons = re.findall(r"mtcp.*memory|MemoryError|Errno 12|cannot allocate memory|failed to map segment", done.stderr)
        said.update(reasons)
        expect(done.returncode == 0 or (done.returncode > 0 and reasons), f"{megabytes} MB: status {done.returncode}: {done.stderr[-300:]}")
    expect("mtcp: no memory" in said, f"it never lacked the engine's: {said}")


OTHERS_LISTENER = """
import socket,subprocess,sys
listener='import socket; l=socket.create_server(("127.0.0.1",7005)); print("ready",flush=True); c,_=l.accept(); c.sendall(c.recv(4)+b"!")'
other=subprocess.Popen([sys.executable,'-c',listener],env={},stdout=subprocess.PIPE); other.stdout.readline()
own=socket.create_server(('127.0.0.1',7006))
for port,answer in ((7006,b'ping'),(7005,b'ping!')):
    c=socket.create_connection(('127.0.0.1',port),5); c.sendall(b'ping')
    if port==7006: a,_=own.accept(); a.sendall(a.recv(4))
    assert c.recv(9)==answer, port
other.wait()
try: socket.create_connection(('127.0.0.1',7005),5); print('not refused')
except ConnectionRefusedError: print('well')
"""


@test("loopback-to-a-program-of-the-kernel", shim_only=True)
def loopback_to_the_kernel(context):
    """Where no listener of the stack is, the kernel's takes the connection; where none is at all, it is refused."""
    space = context.namespace("b")
    config = context.write_config("", "", "[stack]\nloopback = true\n")
    done = space.run("env", f"LD_PRELOAD={context.shim}", f"MTCP_CONF={config}", "MTCP_LOG=info", PYTHON, "-c", OTHERS_LISTENER, check=False)
    expect_equal("its words", (done.returncode, done.stdout), (0, "well\n"))
    expect("listen 127.0.0.1:7006: stack" in done.stderr, f"its own listener was not on the stack: {done.stderr[-400:]}")


LISTENS = "import select,socket,sys; s=socket.socket(); s.bind((sys.argv[1],7004)); s.listen(4); p=select.poll(); p.register(s,1); p.poll(700)"


@test("memory-limit-from-the-start-of-a-server", shim_only=True)
def server_limited_from_the_start(context):
    """However little there is: a server on a device ends with a line that says why, and is never deaf."""
    server, _ = context.veth()
    ended = 0
    for megabytes in (26, 28, 30, 33, 40, 50, 55, 58, 60, 65, 70, 80, 90):
        done = server.run("prlimit", f"--as={megabytes << 20}", PYTHON, "-c", LISTENS, server.address, check=False)
        reasons = re.findall(r"mtcp.*memory|MemoryError|Errno 12|annot allocate memory|failed to map segment", done.stderr)
        expect(reasons and done.returncode > 0 or not reasons and done.returncode == 0, f"{megabytes} MB: status {done.returncode}: {done.stderr[-300:]}")
        ended += done.returncode == 69 and "no memory for a stack" in done.stderr
    expect(ended > 0, "it never lacked a stack's")


@test("log-file-that-is-a-link", shim_only=True)
def linked_log(context):
    """In a directory where others may write a link would lead a root's log wherever they like."""
    space = context.namespace("g")
    target, link = context.new_file("target"), context.new_file("link")
    target.write_text("precious\n")
    link.symlink_to(target)
    config = context.write_config("", "", f'[stack]\nloopback = true\n[log]\nfile = "{link}"\nlevel = "info"\n')
    done = space.run("env", f"LD_PRELOAD={context.shim}", f"MTCP_CONF={config}", PYTHON, "-c", "import socket; socket.socket()")
    expect("can't open the log file" in done.stderr, f"nothing said: {done.stderr}")
    expect_equal("what the link leads to", target.read_text(), "precious\n")


def shared_maps(pid):
    """(begin, end) of what the process shares with its kin, writable. What is small is nginx's own, but for the fanout's map."""
    text = Path(f"/proc/{pid}/maps").read_text()
    maps = [(int(m[1], 16), int(m[2], 16), m[3]) for m in re.finditer(r"^([0-9a-f]+)-([0-9a-f]+) rw-s(.*)$", text, re.M)]
    return [(begin, end) for begin, end, what in maps if end - begin > 1 << 16 or "bpf-map" in what]


def scribble(pid, fill):
    """Garbage over the beginning and the end of all that is shared: the control block's head and message rings, the rings."""
    step, most = 1 << 16, 4 << 20
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for begin, end in shared_maps(pid):
            for at in {*range(begin, min(end, begin + most), step), *range(max(begin, end - most), end, step)}:
                size = min(step, end - at)
                memory.seek(at)
                memory.write(fill * size if fill else os.urandom(size))


@test("worker-taken-over", shim_only=True)
def taken_over(context):
    """One of three workers writes garbage over all that it shares with the others, through its own memory. They live."""
    server, client = context.veth(device="queues = 3\n")
    nginx = Nginx(server, workers=3).start()
    wait_until(lambda: len(nginx.workers()) == 3, 10, "three workers")
    expect_files(client, nginx.url, ["s64"])
    victim, *others = nginx.workers()
    for fill in (b"\xff", None, b"\0"):
        if Path(f"/proc/{victim}/mem").exists():
            scribble(victim, fill)
        for _ in range(5):
            get_status(client, f"{nginx.url}/s64", 1)
    for pid in others:
        expect(pid in nginx.workers(), f"worker {pid} has died: {nginx.log()[-300:]}")
    nginx.kill()


@contextlib.contextmanager
def huge_pages(count):
    """That many are reserved meanwhile, if the machine has fewer."""
    knob = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    before = int(knob.read_text())
    knob.write_text(str(max(before, count)))
    try:
        yield
    finally:
        knob.write_text(str(before))


@contextlib.contextmanager
def huge_page_limit(context, megabytes):
    """The process and what it starts meanwhile may have no more of them. False where there is no such cgroup to be had."""
    where = context.directory / "hugetlb"
    where.mkdir()
    if subprocess.run(["mount", "-t", "cgroup", "-o", "hugetlb", "none", where], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        yield False
        return
    group = where / context.tag
    group.mkdir()
    try:
        (group / "hugetlb.2MB.limit_in_bytes").write_text(str(megabytes << 20))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield True
    finally:
        (where / "cgroup.procs").write_text(str(os.getpid()))
        wait_until(lambda: not (group / "cgroup.procs").read_text(), 5, "an empty group")
        group.rmdir()
        command("umount", where)


BRIEF_LISTENER = """
import select,socket,sys
l=socket.socket(); l.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); l.bind((sys.argv[1],7003)); l.listen()
print('listening',flush=True); select.select([l],[],[],0.1)
"""

PAGE_HOLDER = """
import mmap,sys,time
pages=mmap.mmap(-1, int(sys.argv[1])<<21, flags=mmap.MAP_SHARED|mmap.MAP_ANONYMOUS|0x40000)
for i in range(0, len(pages), 2<<20): pages[i]=1
print('ready',flush=True); time.sleep(60)
"""


@test("huge-pages-that-others-have", shim_only=True)
def huge_pages_taken(context):
    """hugepages = "auto": reserved for all and used by others, or denied to us by a cgroup."""
    server, client = context.veth()
    memif, _ = context.memif()
    with huge_pages(2):
        free = int(re.search(r"HugePages_Free: *(\d+)", Path("/proc/meminfo").read_text())[1])
        holder = client.kernel_side().start(PYTHON, "-u", "-c", PAGE_HOLDER, str(free))
        holder.says("ready")
        nginx = Nginx(server).start()
        expect_files(client, nginx.url, ["k8"])
        nginx.stop()
        holder.kill()
    with huge_pages(120), huge_page_limit(context, 4) as limited:
        for side in (server, memif) if limited else ():
            program = side.start(PYTHON, "-u", "-c", BRIEF_LISTENER, side.address)
            program.says("listening")
            expect_equal("the listener's status", program.wait(), 0)
            expect("no memory" not in program.output(), program.output())
