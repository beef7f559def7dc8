"""What every end-to-end test stands on: namespaces, a wire, programs with and without the shim, and undoing all of it.

Nothing here may depend on how fast the machine is. What only bounds a hang (wait_until, time-outs of programs) waits SLOW times as long as it
is asked to. What must be soon is measured by a Stopwatch, which knows how long the machine stood still meanwhile."""

import functools
import hashlib
import os
import pwd
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

SLOW = 3  # a machine that takes so many times as long as usual is no failure


class Failure(Exception):
    """A test did not see what it must see."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGHUP: nothing may stop the clean-up, no handler of a test may swallow it."""


def expect(condition, reason):
    if not condition:
        raise Failure(reason)


def expect_equal(what, got, wanted):
    if got != wanted:
        raise Failure(f"{what} is {got!r}, expected {wanted!r}")


class Heartbeat(threading.Thread):
    """How long the machine has kept from running whoever slept: sleeps 10 ms at a time and sums up how much later than asked it ran."""

    PAUSE, USUAL = 0.01, 0.001  # seconds; a delay of USUAL is everybody's

    def __init__(self):
        super().__init__(daemon=True)
        self.seen = 0.0, time.monotonic()  # the sum, and when the next beat is due
        self.start()

    def run(self):
        while True:
            self.seen = self.late(), time.monotonic() + self.PAUSE
            time.sleep(self.PAUSE)

    def late(self):
        """The sum up to now, in seconds."""
        late, due = self.seen
        return late + max(0.0, time.monotonic() - due - self.USUAL)


@functools.cache
def heartbeat():
    return Heartbeat()


class Stopwatch:
    """Real time since it was made. Limits are on its own(), so that a stall of the machine is not charged to mtcp, and a spin or a lost SYN is."""

    def __init__(self):
        self.late = heartbeat().late()
        self.began = time.monotonic()

    def seconds(self):
        return time.monotonic() - self.began

    def stalled(self):
        """How much of it the machine stood still. A limit on what another program has measured meanwhile is longer by that."""
        return heartbeat().late() - self.late

    def own(self):
        return self.seconds() - self.stalled()


def command(*words, check=True, timeout=20, env=None, input=None):
    """Runs a short program; its status and output are in the result. With `check` a failure ends the test."""
    done = subprocess.run([str(w) for w in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, input=input, text=True,
                          errors="replace", timeout=SLOW * timeout, env={**os.environ, **(env or {})}, check=False,
                          **({} if input is not None else {"stdin": subprocess.DEVNULL}))
    if check and done.returncode != 0:
        raise Failure(f"{' '.join(map(str, words))}: status {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done


def wait_until(condition, seconds=10, what="it", pause=0.02):
    """Calls `condition` until it answers something true and returns that. `seconds` bound a hang."""
    watch = Stopwatch()
    while True:
        if result := condition():
            return result
        if watch.own() > SLOW * seconds:
            raise Failure(f"{what} did not happen within {SLOW * seconds} s")
        time.sleep(pause)


class Namespace:
    """A network namespace with lo up. Closing it ends whatever still runs inside."""

    def __init__(self, name):
        self.name = name

    def create(self):
        command("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")
        self.run("sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno", check=False)
        self.run("sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1", "net.core.somaxconn=8192", check=False)

    def prefix(self):
        return ["ip", "netns", "exec", self.name]

    def run(self, *words, **options):
        return command(*self.prefix(), *words, **options)

    def pids(self):
        return [int(pid) for pid in command("ip", "netns", "pids", self.name, check=False).stdout.split()]

    def close(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            for _ in range(20):
                pids = self.pids()
                for pid in pids:
                    kill(pid, number)
                if not pids:
                    break
                time.sleep(0.02)
        command("ip", "netns", "del", self.name, check=False)


def kill(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Program:
    """A program that runs beside the test, with its output in a file."""

    def __init__(self, namespace, words, env, log, user=None):
        self.log = Path(log)
        self.words = [str(w) for w in words]
        start = [*namespace.prefix()]
        if user:
            start += ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        if env:
            start += ["env", *(f"{key}={value}" for key, value in env.items())]
        with open(log, "ab") as output:
            self.child = subprocess.Popen([*start, *self.words], stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    @property
    def pid(self):
        return self.child.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def running(self):
        return self.child.poll() is None

    def wait(self, seconds=10):
        try:
            return self.child.wait(SLOW * seconds)
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{self.words[0]} (pid {self.pid}) did not end within {SLOW * seconds} s") from error

    def signal(self, number):
        if self.running():
            self.child.send_signal(number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.child.wait()

    def says(self, text, seconds=10):
        """Waits until the output has `text`."""

        def look():
            if text in self.output():
                return True
            expect(self.running() or text in self.output(), f"{self.words[0]} ended before it said {text!r}: {self.output()[-600:]}")
            return False

        wait_until(look, seconds, f"{text!r} in the output of {self.words[0]}")


def cpu_seconds(pids):
    """What the processes' living threads have run so far. Not by ticks (/proc/PID/stat), which count a whole one of 10 ms against whoever
    runs at its instant: one that wakes every 10 ms, for microseconds, meets none of them or nearly all."""
    nanoseconds = 0
    for pid in pids:
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                nanoseconds += int(path.read_text().split()[0])
            except OSError:
                pass  # it has ended
    return nanoseconds / 1e9


def cpu_share(pids, seconds):
    """What the processes use of a core from now on for so long. Not what a stall has charged to the one that was running."""
    watch, before = Stopwatch(), cpu_seconds(pids)
    time.sleep(seconds)
    return max(0.0, cpu_seconds(pids) - before - watch.stalled()) / watch.seconds()


def descriptors(pid):
    """How many it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid):
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Files:
    """The files that servers serve, made once for the whole run: name -> size, and their SHA-256."""

    SIZES = {"empty": 0, "one": 1, "s64": 64, "segment": 1460, "segment1": 1461, "k8": 8192, "k64": 65536, "k100": 100_003, "m1": 1 << 20,
             "m10": (10 << 20) + 3}
    HUGE = ("g1", 1 << 30)

    def __init__(self, directory):
        self.root = Path(directory)
        self.root.mkdir(mode=0o755)
        self.sums = {}
        for name, size in self.SIZES.items():
            self._make(name, size)

    def huge(self):
        """The 1 GiB file's name; made when first wanted."""
        name, size = self.HUGE
        if name not in self.sums:
            self._make(name, size)
        return name

    def _make(self, name, size):
        block = random.Random(name).randbytes((1 << 20) + 7)  # not a power of two: a shift by a page shows
        digest = hashlib.sha256()
        with open(self.root / name, "wb") as file:
            left = size
            while left > 0:
                part = block[:left]
                file.write(part)
                digest.update(part)
                left -= len(part)
        self.sums[name] = digest.hexdigest()


class Side:
    """Where one end of the wire runs its programs: a namespace, its address, and the environment that puts it on the stack
    (empty on the kernel)."""

    def __init__(self, context, namespace, address, config=None):
        self.context, self.namespace, self.address, self.config = context, namespace, address, config

    @property
    def env(self):
        if self.config is None:
            return {}
        return {"LD_PRELOAD": self.context.shim, "MTCP_CONF": self.config}

    @property
    def on_stack(self):
        return self.config is not None

    def kernel_side(self):
        """The same place without the shim."""
        return Side(self.context, self.namespace, self.address)

    def start(self, *words, env=None, user=None, log=None):
        log = log or self.context.new_file(Path(str(words[0])).name + ".log")
        program = Program(self.namespace, words, {**self.env, **(env or {})}, log, user)
        self.context.programs.append(program)
        return program

    def run(self, *words, check=True, timeout=30, env=None, input=None):
        env = {**self.env, **(env or {})}
        prefix = ["env", *(f"{key}={value}" for key, value in env.items())] if env else []
        return self.namespace.run(*prefix, *words, check=check, timeout=timeout, input=input)


class Context:
    """Everything of one test, undone at its end: a directory, namespaces, programs."""

    count = 0

    def __init__(self, run):
        Context.count += 1
        self.tag = f"m{os.getpid() % 100000}x{Context.count}"
        self.build, self.on_kernel, self.files, self.long = run.build, run.on_kernel, run.files, run.long
        self.shim = run.build / "preload/libmtcp_shim.so"
        self.directory = Path(tempfile.mkdtemp(prefix="mtcp-e2e-"))
        self.directory.chmod(0o755)
        self.namespaces, self.programs, self.logs = [], [], 0

    def close(self):
        # A second interrupt must not leave half of it behind.
        old = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        for program in self.programs:
            if program.running():
                program.kill()
        for namespace in self.namespaces:
            namespace.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        for number, handler in old.items():
            signal.signal(number, handler)

    def new_file(self, name):
        self.logs += 1
        return self.directory / f"{self.logs:02}-{name}"

    def namespace(self, suffix):
        namespace = Namespace(f"{self.tag}{suffix}")
        self.namespaces.append(namespace)  # before it exists: an interrupt may come at any time
        namespace.create()
        return namespace

    def write_config(self, port, address, more="", device=""):
        """`device`: more keys of [device]; `more`: further tables."""
        path = self.new_file("mtcp.toml")
        device = f'[device]\nport = "{port}"\n{device}' if port else ""
        interface = f'[interface]\naddress = ["{address}/24"]\n' if address else ""
        path.write_text(f"{device}{interface}{more}")
        return path

    def veth(self, stack="server", more="", device="", driver="af_packet", offloads=(), prefix="", share=False, queues=1):
        """(server, client): two namespaces and a veth pair; the `stack` end runs under the shim over af_packet or af_xdp,
        unless this is a run on the kernel, where both ends have kernel addresses. `offloads`: the ends whose interface has all
        that it has by itself; without, frames on the wire are whole and at most an MTU long. `prefix`: of the namespaces' names,
        for a second pair. `share`: over af_xdp, the stack's end has the address in the kernel as well, and both have all offloads;
        "generic", "native": with XDP, which a veth is not shared by otherwise.
        `queues`: of each end."""
        sides, offloads = {}, ("server", "client") if share else offloads
        spaces = {end: self.namespace(prefix + end[0]) for end in ("server", "client")}
        # Never in this machine's own namespace, so that nothing of it can stay behind there.
        room = ("numrxqueues", queues, "numtxqueues", queues)
        command("ip", "-n", spaces["server"].name, "link", "add", "wire", *room, "type", "veth", "peer", "name", "wire", *room,
                "netns", spaces["client"].name)
        for end, address in (("server", "10.99.0.2"), ("client", "10.99.0.1")):
            space = spaces[end]
            if queues > 1:
                space.run("ethtool", "-L", "wire", "rx", queues, "tx", queues)
            if end not in offloads:
                space.run("ethtool", "-K", "wire", "tx", "off", "tso", "off", "gso", "off", "gro", "off", check=False)
            space.run("sysctl", "-qw", "net.ipv6.conf.wire.disable_ipv6=1", check=False)
            space.run("ip", "link", "set", "wire", "up")
            config = None
            if end == stack and not self.on_kernel:
                how = f",share=kernel,xdp={share}" if isinstance(share, str) else ",share=kernel" if share else ""
                config = self.write_config(f"net_{driver}0,iface=wire{how}", address, more, device)
            if config is None or share:
                space.run("ip", "address", "add", f"{address}/24", "dev", "wire")
            sides[end] = Side(self, space, address, config)
        return sides["server"], sides["client"]

    def bad_wire(self, *faults, stack="server", prefix=""):
        """(server, client, wire): as veth(), but what passes between the two goes through tests/bad_wire with these options."""
        middle = self.namespace(f"{prefix}w")
        sides = []
        for end, near, address in (("server", "to-server", "10.99.0.2"), ("client", "to-client", "10.99.0.1")):
            space = self.namespace(prefix + end[0])
            command("ip", "-n", middle.name, "link", "add", "name", near, "type", "veth", "peer", "name", "wire", "netns", space.name)
            for place, name in ((middle, near), (space, "wire")):
                # A frame must be what it is on a wire: whole, and no longer than an MTU.
                place.run("ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "off", check=False)
                place.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1", check=False)
                place.run("ip", "link", "set", name, "up")
            config = None
            if end == stack and not self.on_kernel:
                config = self.write_config("net_af_packet0,iface=wire", address)
            else:
                space.run("ip", "address", "add", f"{address}/24", "dev", "wire")
            sides.append(Side(self, space, address, config))
        wire = Side(self, middle, None).start(self.build / "tests/bad_wire/bad_wire", "to-server", "to-client", *faults)
        wire.says("ready")
        return (*sides, wire)

    def memif(self, more="", wires=0, any_user=True, mtus=None):
        """(server, client): both under the shim in one namespace, joined by memif; on the kernel: a veth pair. `wires`: so
        many memifs, one for each process of an end. `any_user`: whoever tests run programs as. `mtus`: of server and client."""
        if self.on_kernel:
            return self.veth()
        name, device = (f"{self.tag}-{{worker}}", f"queues = {wires}\n") if wires else (self.tag, "")
        if any_user:
            device += f"peer_users = {[pwd.getpwnam(name).pw_uid for name in ('www-data', 'nobody')]}\n"
        space = self.namespace("m")
        sides = []
        for i, (role, address) in enumerate((("server", "10.99.1.2"), ("client", "10.99.1.1"))):
            port, mtu = f"net_memif0,role={role},socket-abstract=yes,socket=/{name},id=0", f"mtu = {mtus[i]}\n" if mtus else ""
            port += "" if mtus else ",rsize=10,bsize=2048"
            sides.append(Side(self, space, address, self.write_config(port, address, more, device + mtu)))
        return tuple(sides)

    def tails(self):
        """The last lines of all logs, for a failure's report."""
        out = []
        for path in sorted(self.directory.rglob("*.log")):
            text = path.read_text(errors="replace").splitlines()[-12:]
            if text:
                out.append(f"--- {path.name}")
                out += text
        return out
