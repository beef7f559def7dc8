"""What the benchmark changes on the machine, and how all of it is undone: processes, namespaces, huge pages, files."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path


ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # the exit status


class BenchmarkError(Exception):
    """Something that the user has to know and that ends the run."""


class Cleanup:
    """Undoes in reverse order. Used as a context manager around everything."""

    def __init__(self):
        self._actions = []

    def add(self, action, *arguments):
        self._actions.append((action, arguments))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second interrupt must not leave half of it behind.
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)
        while self._actions:
            action, arguments = self._actions.pop()
            try:
                action(*arguments)
            except (OSError, subprocess.SubprocessError) as error:
                print(f"clean-up: {error}", flush=True)


def run_orderly(program, run, arguments):
    """run(arguments, cleanup), and the clean-up, whatever ends it. Returns the exit status."""
    for number in ENDS:
        signal.signal(number, signal.default_int_handler)
    try:
        with Cleanup() as cleanup:
            return run(arguments, cleanup)
    except BenchmarkError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def warn_if_busy(load):
    """`load`: the average of before the run."""
    if load > 0.5:
        print(f"warning: the machine is busy (load average {load:.1f}): the figures will suffer")


def command(*words, cwd=None):
    """Runs a command that must succeed. Returns what it has printed."""
    words = [str(word) for word in words]
    done = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                          check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(words)}: {done.stdout.strip()[-2000:]}")
    return done.stdout


def kernel_tuning():
    """Set inside our namespaces only. Without it the kernel's short connections fail for want of ports or drown in a
    full backlog, and the comparison would flatter us. BBR, where it is the default, paces: it costs the kernel a third
    of its throughput here. A namespace may choose only among the allowed ones, which CUBIC may not be."""
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    return {
        "net.core.somaxconn": "65535",
        "net.ipv4.tcp_max_syn_backlog": "65535",
        "net.ipv4.ip_local_port_range": "1024 65535",
        "net.ipv4.tcp_tw_reuse": "1",
        "net.ipv4.tcp_congestion_control": "cubic" if "cubic" in allowed else "reno",
    }


def choose_control(space, subnet, address, control):
    """The kernel's congestion control of connections over `subnet`. By the route, because it takes what a namespace may not have as its
    default. Returns what it is: the kernel may lack it."""
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    if control not in available:
        control = "reno"
    space.run("ip", "route", "replace", subnet, "dev", "wire", "proto", "kernel", "scope", "link", "src", address, "congctl", control)
    return control


class Namespace:
    """A network namespace of ours with lo up and the kernel tuned for this benchmark."""

    def __init__(self, name, cleanup):
        self.name = name
        command("ip", "netns", "add", name)
        cleanup.add(command, "ip", "netns", "del", name)
        self.run("ip", "link", "set", "lo", "up")
        for key, value in kernel_tuning().items():
            self.run("sysctl", "-qw", f"{key}={value}")

    def run(self, *words):
        return command(*self.prefix(), *words)

    def prefix(self):
        return ["ip", "netns", "exec", self.name]


def connect_namespaces(server, client):
    """A veth pair with one end named "wire" in each."""
    a, b = f"{server.name}-a", f"{server.name}-b"
    command("ip", "link", "add", a, "type", "veth", "peer", "name", b)
    for end, namespace in ((a, server), (b, client)):
        command("ip", "link", "set", end, "netns", namespace.name)
        namespace.run("ip", "link", "set", end, "name", "wire")
        namespace.run("ip", "link", "set", "wire", "up")


def connect_through(middle, server, client):
    """A veth pair from each to the namespace in the middle, where its ends are named "to-server" and "to-client": for tests/bad_wire. Without
    offloads: a frame is what it is on a wire."""
    for near, namespace in (("to-server", server), ("to-client", client)):
        command("ip", "-n", middle.name, "link", "add", "name", near, "type", "veth", "peer", "name", "wire", "netns", namespace.name)
        for place, name in ((middle, near), (namespace, "wire")):
            place.run("ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
            place.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
            place.run("ip", "link", "set", name, "up")


def temporary_directory(cleanup):
    """Readable by the user that nginx drops to."""
    path = Path(tempfile.mkdtemp(prefix="mtcp-ab-"))
    cleanup.add(shutil.rmtree, path, True)
    path.chmod(0o755)
    return path


def reserve_huge_pages(cleanup, megabytes):
    """Makes the kernel keep so many MB of 2 MB pages while we run. Returns how many MB there are."""
    knob = Path("/proc/sys/vm/nr_hugepages")
    if not knob.exists():
        return 0
    before = int(knob.read_text())
    wanted = megabytes // 2
    if before < wanted:
        available = int(next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines()
                             if line.startswith("MemAvailable:"))) // 1024
        if available > 3 * megabytes:
            cleanup.add(knob.write_text, str(before))
            try:
                knob.write_text(str(wanted))
            except OSError:
                return before * 2
    return int(knob.read_text()) * 2


class Process:
    """A program in a session of its own, so that all of its children are found and stopped with it."""

    def __init__(self, words, cleanup, log):
        self.log = log
        with open(log, "ab") as output:
            self.child = subprocess.Popen([str(w) for w in words], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                          start_new_session=True)
        cleanup.add(self.kill)

    def session(self):
        """The living processes that it has started, and itself: those of its session, and those of its descendants that have made one
        of their own (PostgreSQL's)."""
        parents, found = {}, set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := stat_fields(entry)):
                parents[int(entry.name)] = int(fields[1])
                if int(fields[3]) == self.child.pid:
                    found.add(int(entry.name))
        while grown := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= grown
        return sorted(found)

    def cpu_seconds(self, pids=None):
        """`pids`: what session() has just said, if somebody has asked it."""
        ticks = 0
        for pid in self.session() if pids is None else pids:
            if fields := stat_fields(Path("/proc") / str(pid)):
                ticks += sum(map(int, fields[11:15]))  # its own, and that of children that have ended
        return ticks / os.sysconf("SC_CLK_TCK")

    def running(self):
        return self.child.poll() is None

    def stop(self, number=signal.SIGTERM, patience=5):
        """Asks it to end. Returns its exit status; None if it had to be killed."""
        if self.running():
            self.child.send_signal(number)
        try:
            status = self.child.wait(patience)
        except subprocess.TimeoutExpired:
            status = None
        self.kill()
        return status

    def kill(self):
        for pid in self.session():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.child.wait()

    def output(self):
        return Path(self.log).read_text(errors="replace")


def stat_fields(directory):
    """/proc/PID/stat after the command name, or None if the process is gone. [0] is the state, [3] the session."""
    try:
        return (directory / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
