"""The ways to connect a server and a client: kernel to kernel, mtcp to mtcp, and mtcp to kernel."""

import os
import pwd
from pathlib import Path

from system import Namespace, connect_namespaces

TITLES = {
    "kernel": "kernel, veth",
    "memif": "mtcp, memif",
    "veth": "mtcp server, kernel client, veth",
    "xdp": "mtcp server over AF_XDP, kernel client",
    "loopback": "kernel, loopback",
}
# Which wire both programs use: only figures of one wire are compared with each other without a word.
WIRES = {"kernel": "veth", "memif": "memif", "veth": "veth", "xdp": "veth", "loopback": "lo"}


class Side:
    """Says with which words in front a server or a client is started, and where the server is reached."""

    name = ""
    realtime = False  # for all sides: ahead of everything else on the machine
    server_program = ""  # for all sides: its name, for servers that give up root before they listen
    workers = 1       # for all sides: of the server, and as many clients; several share both processors

    def __init__(self, cpus):
        self.server_cpu, self.client_cpu = cpus if self.workers == 1 else (",".join(map(str, cpus)),) * 2

    def server_words(self):
        """Before the server's command line."""
        raise NotImplementedError

    def client_words(self):
        """Before the client's command line."""
        raise NotImplementedError

    @property
    def title(self):
        return TITLES[self.name]


def pinned(namespace, cpu, environment=None):
    words = [*namespace.prefix(), "taskset", "-c", str(cpu)]
    if Side.realtime:
        words += ["chrt", "-f", "1"]
    if environment:
        words += ["env", *(f"{key}={value}" for key, value in environment.items())]
    return words


class KernelSide(Side):
    """Both programs as they are; two namespaces and a veth pair with all of its offloads."""

    name = "kernel"
    address = "10.77.1.1"

    def __init__(self, tag, cpus, cleanup, _shim, _directory):
        super().__init__(cpus)
        self.server_namespace = Namespace(f"{tag}ks", cleanup)
        self.client_namespace = Namespace(f"{tag}kc", cleanup)
        connect_namespaces(self.server_namespace, self.client_namespace)
        self.server_namespace.run("ip", "address", "add", f"{self.address}/24", "dev", "wire")
        self.client_namespace.run("ip", "address", "add", "10.77.1.2/24", "dev", "wire")

    def server_words(self):
        return pinned(self.server_namespace, self.server_cpu)

    def client_words(self):
        return pinned(self.client_namespace, self.client_cpu)


def write_config(path, port, address, device=""):
    """`device`: more keys of [device]. The rule makes a server that gives up root before it listens open its device in time."""
    rule = (f'[[rule]]\nmatch = {{ program = "{Side.server_program}", role = "listen", address = "{address}/32" }}\nto = "stack"\n'
            if Side.server_program else "")
    path.write_text(f"""[device]
port = "{port}"
{device}[interface]
address = ["{address}/24"]
{rule}""")
    return path


def uids(*names):
    """Those of the users that exist."""
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return [known[name] for name in names if name in known]


class MemifSide(Side):
    """Both programs under the shim, joined by shared memory; a namespace with nothing in it but lo."""

    name = "memif"
    address = "10.77.2.1"

    def __init__(self, tag, cpus, cleanup, shim, directory):
        super().__init__(cpus)
        self.namespace = Namespace(f"{tag}m", cleanup)
        self.shim = shim
        # A memif joins two processes: a worker and its client.
        wire, device = (f"{tag}-{{worker}}", f"queues = {self.workers}\n") if self.workers > 1 else (tag, "")
        device += f"peer_users = {uids('www-data', 'nobody', 'postgres')}\n"  # whom servers run as
        socket = f"socket-abstract=yes,socket=/mtcp-{wire},id=0,rsize=10,bsize=2048"
        self.server_config = write_config(directory / "memif-server.toml", f"net_memif0,role=server,{socket}", self.address, device)
        self.client_config = write_config(directory / "memif-client.toml", f"net_memif0,role=client,{socket}", "10.77.2.2", device)

    def server_words(self):
        return pinned(self.namespace, self.server_cpu, {"LD_PRELOAD": self.shim, "MTCP_CONF": self.server_config})

    def client_words(self):
        return pinned(self.namespace, self.client_cpu, {"LD_PRELOAD": self.shim, "MTCP_CONF": self.client_config})


class VethSide(Side):
    """The server under the shim on its end of a veth pair with all of its offloads, the client as it is."""

    name = "veth"
    address = "10.77.3.1"
    client_address = "10.77.3.2"
    device = "net_af_packet0,iface=wire"
    tag = "v"

    def __init__(self, tag, cpus, cleanup, shim, directory):
        super().__init__(cpus)
        self.server_namespace = Namespace(f"{tag}{self.tag}s", cleanup)
        self.client_namespace = Namespace(f"{tag}{self.tag}c", cleanup)
        self.shim = shim
        connect_namespaces(self.server_namespace, self.client_namespace)
        # The stack's address must not be the kernel's too.
        self.client_namespace.run("ip", "address", "add", f"{self.client_address}/24", "dev", "wire")
        self.config = write_config(directory / f"{self.name}-server.toml", self.device, self.address)

    def server_words(self):
        return pinned(self.server_namespace, self.server_cpu, {"LD_PRELOAD": self.shim, "MTCP_CONF": self.config})

    def client_words(self):
        return pinned(self.client_namespace, self.client_cpu)


class XdpSide(VethSide):
    """As the veth side, but its frames come through an AF_XDP socket."""

    name = "xdp"
    address = "10.77.5.1"
    device = "net_af_xdp0,iface=wire"
    client_address = "10.77.5.2"
    tag = "x"


class LoopbackSide(Side):
    """Both programs as they are in one namespace, over lo: the kernel's fastest way on one machine."""

    name = "loopback"
    address = "127.0.0.1"

    def __init__(self, tag, cpus, cleanup, _shim, _directory):
        super().__init__(cpus)
        self.namespace = Namespace(f"{tag}l", cleanup)

    def server_words(self):
        return pinned(self.namespace, self.server_cpu)

    def client_words(self):
        return pinned(self.namespace, self.client_cpu)


SIDES = {side.name: side for side in (KernelSide, MemifSide, VethSide, XdpSide, LoopbackSide)}


def choose_cpus():
    """Two processors that we may use, on different cores where there are such. None if there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    cores = {}
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            key = ((topology / "physical_package_id").read_text(), (topology / "core_id").read_text())
        except OSError:
            key = (str(cpu), "")
        cores.setdefault(key, cpu)
    chosen = list(cores.values()) if len(cores) >= 2 else allowed
    return tuple(chosen[:2]) if len(chosen) >= 2 else None
