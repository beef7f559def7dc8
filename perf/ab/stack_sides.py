"""mtcp on one end or both: over memif, a veth of its own, AF_XDP, or an interface that it shares with the kernel."""

import pwd

from side import Side
from system import Namespace


def on_stack(shim, config):
    """The environment of a program on the stack."""
    return {"LD_PRELOAD": shim, "MTCP_CONF": config}


def write_config(path, port, address, device="", more="", interface=None):
    """`device`: more keys of [device]; `more`: further tables; `interface`: the value of [interface] address, if it is not that address. The rule
    makes a server that gives up root before it listens open its device in time."""
    rule = (f'[[rule]]\nmatch = {{ program = "{Side.server_program}", role = "listen", address = "{address}/32" }}\nto = "stack"\n'
            if Side.server_program else "")
    interface = interface or f'["{address}/24"]'
    path.write_text(f"""[device]
port = "{port}"
{device}[interface]
address = {interface}
{rule}{more}""")
    return path


def uids(*names):
    """Those of the users that exist."""
    known = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    return [known[name] for name in names if name in known]


class MemifSide(Side):
    """Both programs under the shim, joined by shared memory; a namespace with nothing in it but lo."""

    name = "memif"
    title = "mtcp, memif"
    wire = "memif"
    address = "10.77.2.1"

    def __init__(self, tag, cpus, cleanup, shim, directory):
        super().__init__(cpus)
        self.server_namespace = self.client_namespace = Namespace(f"{tag}m", cleanup)
        # A memif joins two processes: a worker and its client.
        wire, device = (f"{tag}-{{worker}}", f"queues = {self.workers}\n") if self.workers > 1 else (tag, "")
        device += "mtu = 9000\n"  # as the samples have it
        device += f"peer_users = {uids('www-data', 'nobody', 'postgres')}\n"  # whom servers run as
        socket = f"socket-abstract=yes,socket=/mtcp-{wire},id=0"
        self.server_environment, self.client_environment = (
            on_stack(shim, write_config(directory / f"memif-{role}.toml", f"net_memif0,role={role},{socket}", address, device))
            for role, address in (("server", self.address), ("client", "10.77.2.2")))


class VethSide(Side):
    """The server under the shim on its end of a veth pair with all of its offloads, the client as it is."""

    name = "veth"
    title = "mtcp server, kernel client, veth"
    address = "10.77.3.1"
    client_address = "10.77.3.2"
    device = "net_af_packet0,iface=wire"
    interface = None  # of write_config
    tag = "v"

    def __init__(self, tag, cpus, cleanup, shim, directory):
        super().__init__(cpus)
        self.join(f"{tag}{self.tag}", cleanup, self.client_address)  # the stack's address must not be the kernel's too
        self.server_environment = on_stack(shim, write_config(directory / f"{self.name}-server.toml", self.device, self.address, interface=self.interface))


class XdpSide(VethSide):
    """As the veth side, but its frames come through an AF_XDP socket."""

    name = "xdp"
    title = "mtcp server over AF_XDP, kernel client"
    address = "10.77.5.1"
    device = "net_af_xdp0,iface=wire"
    client_address = "10.77.5.2"
    tag = "x"


class ShareSide(VethSide):
    """As the veth side, but the interface and its address stay the kernel's, and the stack has the server's port of it."""

    name = "share"
    title = "mtcp server, interface shared, veth"
    address = "10.77.7.1"
    device = "net_af_xdp0,iface=wire,share=kernel"
    client_address = "10.77.7.2"
    interface = '"kernel"'
    tag = "h"

    def __init__(self, tag, cpus, cleanup, shim, directory):
        super().__init__(tag, cpus, cleanup, shim, directory)
        self.server_namespace.run("ip", "address", "add", f"{self.address}/24", "dev", "wire")


class ShareXdpSide(ShareSide):
    """As the share side, but by XDP in the driver, as on a card: what it is to share, beside the xdp side, which has the interface for itself."""

    name = "share-xdp"
    title = "mtcp server, interface shared by XDP, veth"
    address = "10.77.8.1"
    device = "net_af_xdp0,iface=wire,share=kernel,xdp=native"
    client_address = "10.77.8.2"
    tag = "n"
