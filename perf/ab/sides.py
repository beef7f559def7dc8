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
KERNEL_SIDES = ("kernel", "loopback")  # where nothing runs under the shim


def want_shim(names):
    """Whether any of these sides has a program under the shim."""
    return not set(names) <= set(KERNEL_SIDES)


class Side:
    """Says with which words in front a server or a client is started, and where the server is reached. Each has `address`,
    `server_namespace` and `client_namespace`."""

    name = ""
    realtime = False  # for all sides: ahead of everything else on the machine
    server_program = ""  # for all sides: its name, for servers that give up root before they listen
    workers = 1       # for all sides: of the server, and as many clients; several share both processors
    server_environment = client_environment = None  # what puts it on the stack

    def __init__(self, cpus):
        self.server_cpu, self.client_cpu = cpus if self.workers == 1 else (",".join(map(str, cpus)),) * 2

    def server_words(self):
        """Before the server's command line."""
        return pinned(self.server_namespace, self.server_cpu, self.server_environment)

    def client_words(self):
        """Before the client's command line."""
        return pinned(self.client_namespace, self.client_cpu, self.client_environment)

    def join(self, tag, cleanup, client_address):
        """A namespace for each end and a veth pair with all of its offloads. What is the server's address is the side's own to say."""
        self.server_namespace = Namespace(f"{tag}s", cleanup)
        self.client_namespace = Namespace(f"{tag}c", cleanup)
        connect_namespaces(self.server_namespace, self.client_namespace)
        self.client_namespace.run("ip", "address", "add", f"{client_address}/24", "dev", "wire")

    @property
    def title(self):
        return TITLES[self.name]


def on_stack(shim, config):
    """The environment of a program on the stack."""
    return {"LD_PRELOAD": shim, "MTCP_CONF": config}


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
        self.join(f"{tag}k", cleanup, "10.77.1.2")
        self.server_namespace.run("ip", "address", "add", f"{self.address}/24", "dev", "wire")


def write_config(path, port, address, device="", more=""):
    """`device`: more keys of [device]; `more`: further tables. The rule makes a server that gives up root before it listens open its device in time."""
    rule = (f'[[rule]]\nmatch = {{ program = "{Side.server_program}", role = "listen", address = "{address}/32" }}\nto = "stack"\n'
            if Side.server_program else "")
    path.write_text(f"""[device]
port = "{port}"
{device}[interface]
address = ["{address}/24"]
{rule}{more}""")
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
        self.server_namespace = self.client_namespace = Namespace(f"{tag}m", cleanup)
        # A memif joins two processes: a worker and its client.
        wire, device = (f"{tag}-{{worker}}", f"queues = {self.workers}\n") if self.workers > 1 else (tag, "")
        device += f"peer_users = {uids('www-data', 'nobody', 'postgres')}\n"  # whom servers run as
        socket = f"socket-abstract=yes,socket=/mtcp-{wire},id=0,rsize=10,bsize=2048"
        self.server_environment, self.client_environment = (
            on_stack(shim, write_config(directory / f"memif-{role}.toml", f"net_memif0,role={role},{socket}", address, device))
            for role, address in (("server", self.address), ("client", "10.77.2.2")))


class VethSide(Side):
    """The server under the shim on its end of a veth pair with all of its offloads, the client as it is."""

    name = "veth"
    address = "10.77.3.1"
    client_address = "10.77.3.2"
    device = "net_af_packet0,iface=wire"
    tag = "v"

    def __init__(self, tag, cpus, cleanup, shim, directory):
        super().__init__(cpus)
        self.join(f"{tag}{self.tag}", cleanup, self.client_address)  # the stack's address must not be the kernel's too
        self.server_environment = on_stack(shim, write_config(directory / f"{self.name}-server.toml", self.device, self.address))


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
        self.server_namespace = self.client_namespace = Namespace(f"{tag}l", cleanup)


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
