"""The ways to connect a server and a client: kernel to kernel, mtcp to mtcp, and mtcp to kernel."""

import os
from pathlib import Path

from kernel_sides import BusySide, KernelSide, LoopbackSide, SockmapSide
from stack_sides import MemifSide, ShareSide, ShareXdpSide, VethSide, XdpSide

SIDES = {side.name: side for side in (KernelSide, MemifSide, VethSide, XdpSide, ShareSide, ShareXdpSide, LoopbackSide, SockmapSide, BusySide)}
TITLES = {name: side.title for name, side in SIDES.items()}
WIRES = {name: side.wire for name, side in SIDES.items()}
KERNEL_SIDES = tuple(name for name, side in SIDES.items() if side.on_kernel)


def want_shim(names):
    """Whether any of these sides has a program under the shim."""
    return not set(names) <= set(KERNEL_SIDES)


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
