"""Which connections and listeners are shown, in the manner of ss: by state, port, and the addresses of the ends."""

import argparse
import ipaddress

# As ss and the stack name them.
STATES = ("LISTEN", "SYN-SENT", "SYN-RECV", "ESTAB", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT",
          "UNCONN")
LONG = {"LISTENING": "LISTEN", "SYN-RECEIVED": "SYN-RECV", "ESTABLISHED": "ESTAB", "CLOSED": "UNCONN"}
# The groups that ss knows, too.
GROUPS = {
    "all": set(STATES),
    "connected": set(STATES) - {"LISTEN", "UNCONN"},
    "synchronized": set(STATES) - {"LISTEN", "UNCONN", "SYN-SENT"},
}


def plain(state):
    name = state.upper().replace("_", "-")
    return LONG.get(name, name)


def state(text):
    """A `type=` for argparse: the set of states that a name means."""
    if text.lower() in GROUPS:
        return GROUPS[text.lower()]
    if plain(text) not in STATES:
        raise argparse.ArgumentTypeError(f"{text!r} is no state: {', '.join((*GROUPS, *STATES)).lower()}")
    return {plain(text)}


def port(text):
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port (1 to 65535)")
    return int(text)


def end(text):
    """A `type=`: (network or None, port or None) of ADDRESS[/BITS][:PORT], [V6]:PORT or :PORT."""
    address, number = text, ""
    if text.startswith("["):
        address, _, number = text[1:].partition("]")
        number = number.removeprefix(":")
    elif text.count(":") == 1:
        address, number = text.split(":")
    try:
        network = ipaddress.ip_network(address, strict=False) if address else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{address!r} is no address or network") from None
    return network, port(number) if number else None


def split_end(text):
    """(address, port) of what a process writes: 10.0.0.1:80, [fd00::1]:80."""
    address, _, number = text.rpartition(":")
    return ipaddress.ip_address(address.strip("[]")), int(number)


def matches_end(wanted, text):
    network, number = wanted
    if not text:
        return False
    address, its_port = split_end(text)
    if network is not None and (address.version != network.version or address not in network):
        return False
    return number is None or number == its_port


class Filter:
    """Of `states` (None: any), `ports` (either end's), `local` and `peer`, what is given must all match."""

    def __init__(self, states=None, ports=None, local=None, peer=None):
        self.states = set().union(*states) if states else None
        self.ports, self.local, self.peer = ports, local, peer

    def __call__(self, flow):
        if self.states is not None and plain(flow.state) not in self.states:
            return False
        if self.ports and not any(matches_end((None, p), e) for p in self.ports for e in (flow.local, flow.remote)):
            return False
        if self.local is not None and not matches_end(self.local, flow.local):
            return False
        return self.peer is None or matches_end(self.peer, flow.remote)
