"""Processes, by /proc: their names, libraries, children and network namespaces."""

import contextlib
import ctypes
import os
from pathlib import Path

CLONE_NEWNET = 0x40000000


class StatError(Exception):
    """Why there is no answer, for the user."""


def printable(text):
    """Whatever it is, it must not reach the terminal as more than text."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def network_of(pid):
    """The number of the process's network namespace; None if we may not know."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def name_of(pid):
    try:
        return printable(Path(f"/proc/{pid}/comm").read_text(errors="replace").strip())
    except OSError:
        return "?"


def libraries_of(pid):
    """Which of ours the process has: "shim", "engine"; None if we may not know."""
    try:
        text = Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return None
    return {kind for kind in ("shim", "engine") if b"libmtcp_" + kind.encode() + b".so" in text}


def all_processes():
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def descendants(pid):
    try:
        children = [int(p) for task in Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]
    except OSError:
        return []
    return [p for child in children for p in (child, *descendants(child))]


def enter_network(pid):
    """The names of the processes' sockets are known only in their network namespace. For good: this process has one thread."""
    there = network_of(pid)
    if there is None and not os.path.exists(f"/proc/{pid}"):
        raise StatError(f"no process {pid}")
    if there == network_of("self"):
        return
    try:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    except FileNotFoundError:
        raise StatError(f"no process {pid}") from None
    except OSError:
        raise StatError(f"process {pid} is another user's: {more_rights('CAP_SYS_PTRACE')}") from None
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.setns(descriptor, CLONE_NEWNET) != 0
    os.close(descriptor)
    if failed:
        raise StatError(f"process {pid} is in another network namespace ({os.strerror(ctypes.get_errno())}): {more_rights('CAP_SYS_ADMIN')}")


def more_rights(capability):
    if os.geteuid() != 0:
        return "run as root"
    return f"this root lacks {capability} over it (a container's, or another user namespace's): run it on the host"


@contextlib.contextmanager
def at_home():
    """Whatever network namespaces are entered inside, this process is in its own again afterwards."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        yield
    finally:
        ctypes.CDLL(None).setns(home, CLONE_NEWNET)
        os.close(home)
