"""Rows over a bad wire (tests/bad_wire): the kernel's server and the stack's in turn, one download each, the same faults; or
both at once through one bottleneck. The client is the kernel's."""

import dataclasses
import signal
import subprocess
import time

from side import Side
from stack_sides import on_stack, write_config
from system import BenchmarkError, Namespace, Process, choose_control, command, connect_through

BIG = "big"           # the file that is downloaded: larger than anything that gets through
SMALL = 8192          # and the one whose content is checked first
CLIENT_ON_STACK = "10.77.4.4"


class WireSide(Side):
    """A server in a namespace behind the bridge."""

    def __init__(self, name, cpus, server, client, address, environment):
        super().__init__(cpus)
        self.name, self.address, self.server_environment = name, address, environment
        self.server_namespace, self.client_namespace = server, client


class BadWire:
    """Both servers on a bridge, behind it the wire, behind that the client."""

    def __init__(self, tag, cpus, cleanup, shim, directory, build):
        self.cleanup, self.directory, self.runs = cleanup, directory, 0
        self.told = set()
        self.client_config = None  # of a client on the stack
        self.program = build / "tests/bad_wire/bad_wire"
        if not self.program.exists():
            raise BenchmarkError(f"{self.program} is missing: build first")
        self.client, self.middle, switch = (Namespace(f"{tag}{end}", cleanup) for end in ("wc", "wm", "ww"))
        connect_through(self.middle, switch, self.client)
        switch.run("ip", "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        switch.run("ip", "link", "set", "bridge", "up")
        switch.run("ip", "link", "set", "wire", "master", "bridge")
        self.client.run("ip", "address", "add", "10.77.4.2/24", "dev", "wire")
        self.sides = {}
        for name, address in (("kernel", "10.77.4.1"), ("veth", "10.77.4.3")):
            space = Namespace(f"{tag}w{name[0]}", cleanup)
            command("ip", "-n", switch.name, "link", "add", "name", name, "type", "veth", "peer", "name", "wire", "netns", space.name)
            for place, end in ((switch, name), (space, "wire")):
                place.run("ethtool", "-K", end, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
                place.run("sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=1")
                place.run("ip", "link", "set", end, "up")
            switch.run("ip", "link", "set", name, "master", "bridge")
            environment = None
            if name == "kernel":
                space.run("ip", "address", "add", f"{address}/24", "dev", "wire")
            else:
                environment = on_stack(shim, directory / "bad-wire.toml")
            self.sides[name] = WireSide(name, cpus, space, self.client, address, environment)
        with open(directory / "files" / BIG, "wb") as file:
            file.truncate(16 << 30)

    def add_client_side(self, name, shim, config):
        """The kernel's server with a client on the stack, on the same interface as the kernel's client."""
        kernel = self.sides["kernel"]
        side = WireSide("kernel", (kernel.server_cpu, kernel.client_cpu), kernel.server_namespace, self.client, kernel.address, None)
        side.client_environment = on_stack(shim, config)
        self.client_config = config
        self.sides[name] = side

    def start_wire(self, row):
        self.runs += 1
        log = self.directory / f"wire-{self.runs}.log"
        words = [*self.middle.prefix(), *(["chrt", "-f", "2"] if Side.realtime else []), self.program, "to-server", "to-client", *row.faults, f"seed={self.runs}"]
        wire = Process(words, self.cleanup, log)
        give_up = time.monotonic() + 5
        while "ready" not in wire.output():
            if time.monotonic() > give_up or not wire.running():
                raise BenchmarkError(f"bad_wire does not start: {wire.output()}")
            time.sleep(0.01)
        return wire

    def choose_control(self, control):
        kernel, stack = self.sides["kernel"], self.sides["veth"]
        has = choose_control(kernel.server_namespace, "10.77.4.0/24", kernel.address, control)
        if has != control and control not in self.told:
            print(f"this kernel has no {control}: it uses {has}", flush=True)
            self.told.add(control)
        for config, address in ((self.directory / "bad-wire.toml", stack.address), (self.client_config, CLIENT_ON_STACK)):
            if config:
                write_config(config, "net_af_packet0,iface=wire", address, more=f'[tcp]\ncongestion_control = "{control}"\n')

    def measure(self, bench, row, name, seconds, sample):
        """One download, or two through the same bottleneck: `sample.rate` is Mbit/s, or this side's part of both in percent."""
        side = self.sides[name]
        self.choose_control(row.control)
        wire = self.start_wire(row)
        servers = [bench.start_server(row, side)]
        sources = [side]
        if row.kind == "share":
            sources.append(self.sides["kernel"])
            if name != "kernel":
                servers.append(bench.start_server(row, sources[1]))
        try:
            for source in sources:
                if problem := bench.check_content(dataclasses.replace(row, size=SMALL), source):
                    sample.errors.append(problem)
                    return
            clients = [start_download(source, seconds) for source in sources]
            got = [finish(client, seconds, sample) for client in clients]
            sample.bytes_per_second = got[0]
            sample.rate = got[0] * 8 / 1e6 if row.kind == "wire" else 100 * got[0] / max(sum(got), 1)
            sample.errors += ["a server ended by itself" for server in servers if not server.running()]
        finally:
            for process in (*servers, wire):
                process.stop(signal.SIGTERM)


def start_download(side, seconds, flows=1):
    """For finish(): so many downloads at once."""
    each = [word for _ in range(flows) for word in ("-o", "/dev/null", f"http://{side.address}:8080/{BIG}")]
    words = [*side.client_words(), "curl", "-sS", *(["-Z", "--parallel-immediate"] if flows > 1 else []), "--max-time", seconds,
             "-w", "%{size_download} %{time_connect} %{time_total}\\n", *each]
    return subprocess.Popen([str(w) for w in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, start_new_session=True)


def finish(client, seconds, sample):
    """Bytes a second, of all downloads. That time is up is how a download ends; it is counted from when there was a connection."""
    try:
        out, complaint = client.communicate(timeout=seconds + 10)
    except subprocess.TimeoutExpired:
        client.kill()
        out, complaint = client.communicate()
    if client.returncode != 28:
        sample.errors.append(f"curl: status {client.returncode}: {complaint.strip()[-200:]}")
    rate = 0.0
    for line in out.splitlines():
        size, connected, total = map(float, line.split())
        rate += size / max(total - connected, 1e-3)
    return rate
