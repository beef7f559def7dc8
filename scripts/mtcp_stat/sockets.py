"""The sockets by which processes on mtcp tell about their stacks."""

import re
import socket
import struct

from .processes import (StatError, all_processes, at_home, descendants, enter_network, libraries_of, more_rights, name_of, network_of,
                        printable)
from .report import Report

TIMEOUT = 5  # seconds
NAME = re.compile(rb"@(mtcp-stat-\d+(?:-[0-9a-f]{16})?)$", re.MULTILINE)


def stat_sockets():
    """(connection, pid of the owner) of each in this network namespace. Anybody can have a socket of such a name: the kernel
    says whose it is."""
    with open("/proc/self/net/unix", "rb") as sockets:
        names = set(NAME.findall(sockets.read()))
    for name in sorted(names):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(b"\0" + name)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            connection.settimeout(TIMEOUT)
            yield connection, struct.unpack("3i", credentials)[0]
        except OSError:
            pass  # that is full or gone
        connection.close()


def read_answer(connection, pid):
    """The lines of its answer."""
    text = b""
    try:
        while part := connection.recv(1 << 16):
            text += part
    except TimeoutError:
        raise StatError(f"process {pid} does not answer within {TIMEOUT} s: is it stopped?") from None
    except OSError as error:
        raise StatError(f"process {pid}: {error.strerror}") from None
    lines = [printable(line) for line in text.decode(errors="replace").split("\n")]
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise StatError(f"process {pid} answers its own user and root only: {more_rights('the uid 0')}")
    if not lines[0].startswith("mtcp-stat 1") or lines[-1] != "end":
        raise StatError(f"process {pid}: an answer of {len(text)} bytes that is cut short or of another version")
    return lines


def ask(pid):
    for connection, owner in stat_sockets():
        if owner == pid:
            return Report(read_answer(connection, pid))
    raise StatError(why_no_stack(pid))


def why_no_stack(pid):
    name, libraries = name_of(pid), libraries_of(pid)
    family = set(descendants(pid))
    having = sorted(owner for _, owner in stat_sockets() if owner in family)
    if having:
        return (f"process {pid} ({name}) has no stack of its own: it does not wait for connections. Of its children these have: "
                f"{', '.join(map(str, having))}")
    if libraries is None:
        return f"process {pid} ({name}) has no stack that can be seen: {more_rights('CAP_SYS_PTRACE')}"
    if "engine" in libraries:
        return f"process {pid} ({name}) has no stack yet: a stack starts with the first wait, accept or connect"
    if "shim" in libraries:
        return f"process {pid} ({name}) has the shim and is on the kernel: it has made no TCP socket, or has no configuration"
    return f"process {pid} ({name}) does not run on mtcp: libmtcp_shim.so is not loaded in it (mtcp-run -n says why)"


def of_network(pid, members):
    """The processes in one network namespace, of which `pid` is one: pid -> Report, or (name, why there is none)."""
    rows = {}
    try:
        enter_network(pid)
    except StatError:
        return rows
    for connection, owner in stat_sockets():
        try:
            rows[owner] = Report(read_answer(connection, owner))
        except StatError as error:
            rows[owner] = name_of(owner), str(error)
    for member in members - set(rows):
        if "engine" in (libraries_of(member) or ()):
            having = sorted(set(descendants(member)) & set(rows))
            why = f"no stack of its own; children that have one: {', '.join(map(str, having))}" if having else "no stack yet"
            rows[member] = name_of(member), why
    return rows


def of_all():
    """All processes that have a stack, or the engine, in any network namespace that we may enter, as of_network()."""
    networks = {}
    for pid in all_processes():
        if (network := network_of(pid)) is not None:
            networks.setdefault(network, set()).add(pid)
    rows = {}
    with at_home():
        for members in networks.values():
            rows |= of_network(min(members), members)
    return rows
