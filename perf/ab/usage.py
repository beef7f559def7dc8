"""What a load has cost: processor time, memory, context switches, and what the machine did beside it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Usage:
    cpu_seconds: float = 0      # of all processes of the server
    switches: int = 0           # context switches, both kinds
    memory: int = 0             # bytes, proportional share (a page that two processes have counts half for each)


def numbers_in(path, *names):
    """Sum of the numbers after these names in a file of /proc; 0 if what it tells of has ended."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.partition(":")[0] in names)


def switches_of(pid):
    """All threads: /proc/PID/status has those of the first only."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return 0
    return sum(numbers_in(task / "status", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches") for task in tasks)


def memory_of(pid):
    return numbers_in(Path(f"/proc/{pid}/smaps_rollup"), "Pss") << 10


def polls_of(process):
    """(turns, turns that found something) of the stacks of a system.Process and all that it has started; None if mtcp-stat does not tell."""
    program, pids = Path(sys.argv[0]).resolve().parent / "mtcp-stat", process.session()
    done = subprocess.run([program, "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    try:
        stacks = [entry["stack"] for entry in json.loads(done.stdout) if entry["pid"] in pids]
        return sum(s["turns"] for s in stacks), sum(s["useful"] for s in stacks)
    except (ValueError, KeyError, TypeError):
        return None


def useful_share(before, after):
    """Of two answers of polls_of(); None without, or with no turn between them."""
    if before is None or after is None or after[0] <= before[0]:
        return None
    return (after[1] - before[1]) / (after[0] - before[0])


def usage_of(process):
    """Of a system.Process and all that it has started, as it is now. Of what has ended by now the processor time is in it, the
    switches are not."""
    pids = process.session()
    return Usage(process.cpu_seconds(pids), sum(map(switches_of, pids)), sum(map(memory_of, pids)))


def steal_ticks():
    """(stolen by the hypervisor, all) of the machine's processors since it started."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[7], sum(fields)


def megahertz():
    """The processors' mean frequency as the kernel tells it; 0 if it does not."""
    found = [float(line.partition(":")[2]) for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("cpu MHz")]
    return sum(found) / len(found) if found else 0.0
