"""The kernel's TCP at its best: over a veth, over loopback, polling the device's queue, past its own TCP."""

import json
import os
import subprocess
import time

from places import helper
from side import Side
from system import BenchmarkError, Namespace, Process, command


class KernelSide(Side):
    """Both programs as they are; two namespaces and a veth pair with all of its offloads."""

    name = "kernel"
    title = "kernel, veth"
    on_kernel = True
    address = "10.77.1.1"
    client_address = "10.77.1.2"
    tag = "k"

    def __init__(self, tag, cpus, cleanup, _shim, _directory):
        super().__init__(cpus)
        self.join(f"{tag}{self.tag}", cleanup, self.client_address)
        self.server_namespace.run("ip", "address", "add", f"{self.address}/24", "dev", "wire")


class LoopbackSide(Side):
    """Both programs as they are in one namespace, over lo: the kernel's fastest way on one machine."""

    name = "loopback"
    title = "kernel, loopback"
    wire = "lo"
    on_kernel = True
    address = "127.0.0.1"
    tag = "l"

    def __init__(self, tag, cpus, cleanup, _shim, _directory):
        super().__init__(cpus)
        self.server_namespace = self.client_namespace = Namespace(f"{tag}{self.tag}", cleanup)


# A hundred bytes there and back through epoll sets, then by which queue of the device they have come. EPIOCSPARAMS is of Linux 6.9.
BUSY_PROBE = """import fcntl, select, socket, struct, sys
server = sys.argv[1] == 'server'
if server:
    listener = socket.create_server((sys.argv[2], 9))
    print('ready', flush=True)
    end, _ = listener.accept()
else:
    end = socket.create_connection((sys.argv[2], 9), 5)
waits = select.epoll()
try:
    fcntl.ioctl(waits.fileno(), 0x40088a01, struct.pack('IHBB', 5000, 8, 1, 0))
except OSError as error:
    sys.exit(f'EPIOCSPARAMS, which needs Linux 6.9: {error.strerror}')
waits.register(end, select.EPOLLIN)
for _ in range(100):
    if not server:
        end.sendall(b'x')
    if not waits.poll(5):
        sys.exit('no answer')
    end.recv(1)
    if server:
        end.sendall(b'x')
print(end.getsockopt(socket.SOL_SOCKET, 56))
"""


class BusySide(KernelSide):
    """As the kernel's side, but both programs poll the device's queue while they wait. A veth has such queues only where GRO is on and the
    other end does no TSO."""

    name = "busy"
    title = "kernel, veth, busy polling"
    address = "10.77.6.1"
    client_address = "10.77.6.2"
    tag = "b"

    def __init__(self, tag, cpus, cleanup, shim, directory):
        super().__init__(tag, cpus, cleanup, shim, directory)
        self.server_environment = self.client_environment = {"LD_PRELOAD": helper("libmtcp_busy_poll.so", shim)}
        for space in (self.server_namespace, self.client_namespace):
            space.run("ethtool", "-K", "wire", "tso", "off", "gro", "on")
            # Its interrupts wait for whoever polls, for a fifth of a millisecond.
            space.run("sh", "-c", "cd /sys/class/net/wire && echo 100 >napi_defer_hard_irqs && echo 200000 >gro_flush_timeout")
        self.check()
        self.before = self.polled()

    def check(self):
        """Without a queue's number on both ends nothing would be polled, and the side would be the other one under another name."""
        words = ["python3", "-c", BUSY_PROBE]
        with subprocess.Popen([*self.server_namespace.prefix(), *words, "server", self.address], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True) as server:
            try:
                ready = server.stdout.readline()
                client = command(*self.client_namespace.prefix(), *words, "client", self.address).strip() if ready == "ready\n" else ready
                said = server.stdout.read().strip()
            finally:
                server.kill()
        if not (said.isdigit() and client.isdigit() and int(said) and int(client)) or not all(self.polled()):
            raise BenchmarkError(f"this kernel does not busy-poll over a veth (the server's end says {said[-200:] or ready}, the client's {client}, "
                                 f"packets {self.polled()}): leave the side out")

    def polled(self):
        """Packets that the server's and the client's namespace have had by polling so far."""
        def count(space):
            lines = space.run("cat", "/proc/net/netstat").splitlines()
            return next((int(values.split()[names.split().index("BusyPollRxPackets")]) for names, values in zip(lines, lines[1:])
                         if "BusyPollRxPackets" in names), 0)
        return tuple(map(count, (self.server_namespace, self.client_namespace)))

    def remark(self):
        server, client = (now - before for now, before in zip(self.polled(), self.before))
        return f"busy polling has had {server:,} packets for the server, {client:,} for the client" + (
            "; programs that wait by other means than epoll or a blocking read do not poll" if not (server and client) else "")


class SockmapSide(LoopbackSide):
    """As over loopback, but what one end writes is put into the other end's queue (sockmap), past TCP. Only connections are TCP's."""

    name = "sockmap"
    title = "kernel, loopback, sockmap"
    tag = "p"

    def __init__(self, tag, cpus, cleanup, shim, directory):
        super().__init__(tag, cpus, cleanup, shim, directory)
        mount = directory / "cgroup"
        mount.mkdir(exist_ok=True)
        command("mount", "-t", "cgroup2", "none", mount)
        cleanup.add(command, "umount", "-l", mount)  # whatever is in it: the directory is removed next
        self.group = mount / f"{tag}{self.tag}"
        self.group.mkdir()
        cleanup.add(remove_group, self.group)
        loader = helper("sockmap_loader", shim)
        self.loader = Process([*self.server_namespace.prefix(), loader, helper("sockmap.bpf.o", shim), self.group], cleanup, directory / "sockmap.log")
        give_up = time.monotonic() + 15
        while "ready\n" not in (said := self.loader.output()):
            if not self.loader.running() or time.monotonic() > give_up:
                raise BenchmarkError(f"this kernel redirects nothing by sockmap ({said.strip()[-300:]}): leave the side out")
            time.sleep(0.02)

    def server_words(self):
        return [*self.in_group(), *super().server_words()]

    def client_words(self):
        return [*self.in_group(), *super().client_words()]

    def in_group(self):
        return ["sh", "-c", f'echo 0 >{self.group}/cgroup.procs && exec "$@"', "in-group"]

    def remark(self):
        if self.loader.stop() != 0:
            return f"sockmap's programs had an end: {self.loader.output()[-300:]}"
        counts = json.loads(self.loader.output().splitlines()[-1])
        return f"sockmap has redirected {counts['redirected']:,} messages; {counts['by_tcp']:,} went by TCP"


def remove_group(path):
    """Who has just been killed may be in it for a moment."""
    give_up = time.monotonic() + 3
    while True:
        try:
            return os.rmdir(path)
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
