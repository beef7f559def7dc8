"""The machine's own interface, and a client on another host: the kernel's TCP on it, and mtcp that shares it. Nothing of the machine is changed
but what mtcp itself does on the interface."""

import json
import shlex

from side import Side, pinned
from stack_sides import on_stack, write_config
from system import BenchmarkError, command


def address_of(interface):
    """The first IPv4 address that others can reach."""
    (found, *_) = json.loads(command("ip", "-j", "-4", "address", "show", "dev", interface)) or [{}]
    addresses = [entry["local"] for entry in found.get("addr_info", ()) if entry.get("scope") == "global"]
    if not addresses:
        raise BenchmarkError(f"{interface} has no IPv4 address")
    return addresses[0]


class OtherHost:
    """Where the client runs: how a command is run there, from here."""

    def __init__(self, words, patience):
        self.words = [*shlex.split(words)]
        self.is_ssh = self.words[0].rpartition("/")[2] == "ssh"  # which gives what it gets to a shell
        self.patience = patience

    def command(self, words):
        """It ends by itself: whoever is killed here leaves nothing there for longer than that."""
        there = ["timeout", "-k", "1", f"{self.patience:g}", *map(str, words)]
        return [*self.words, *([shlex.join(there)] if self.is_ssh else there)]


class AttachedKernelSide(Side):
    name = "kernel"
    title = "kernel"
    wire = "interface"
    on_kernel = True
    client_elsewhere = True

    def __init__(self, interface, cpus, host, _shim, _directory):
        super().__init__(cpus)
        self.address, self.host = address_of(interface), host

    def server_words(self):
        return pinned(None, self.server_cpu, self.server_environment)

    def for_client(self, words):
        return self.host.command(words)


class AttachedShareSide(AttachedKernelSide):
    """The server under the shim; the interface and its address stay the kernel's."""

    name = "share"
    title = "mtcp server, interface shared"
    on_kernel = False

    def __init__(self, interface, cpus, host, shim, directory):
        super().__init__(interface, cpus, host, shim, directory)
        self.server_environment = on_stack(shim, write_config(directory / "attached.toml", f"net_af_xdp0,iface={interface},share=kernel", self.address,
                                                              interface='"kernel"'))


ATTACHED_SIDES = {side.name: side for side in (AttachedKernelSide, AttachedShareSide)}
