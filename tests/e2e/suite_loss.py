"""Bad wires (tests/bad_wire): what arrives is what was sent, whichever end is on the stack. How fast is scripts/ab's business."""

import hashlib
import signal

from harness import expect, expect_equal
from nginx import Nginx
from registry import test
from web import expect_files

# name -> (options of the wire, the counts that must not be zero)
WIRES = {
    "random-loss": (("loss=3%", "delay=1ms"), ("lost",)),
    "bursts-of-loss": (("burst=0.5%", "burst_end=0.3", "delay=2ms", "jitter=1ms"), ("lost",)),
    "reordering": (("reorder=5%", "late=2%", "delay=5ms"), ("reordered", "late")),
    "duplicates": (("duplicate=5%", "delay=1ms"), ("duplicated",)),
    "corruption": (("corrupt=2%", "delay=1ms"), ("corrupted",)),
    "a-short-queue": (("rate=50M", "queue=20", "delay=2ms"), ("dropped",)),
    "everything": (("loss=1%", "burst=0.1%", "reorder=2%", "duplicate=1%", "corrupt=0.5%", "jitter=2ms", "delay=2ms"), ("lost", "duplicated")),
}


def counts(wire):
    """What the wire has done in both directions: name -> number."""
    wire.signal(signal.SIGTERM)
    expect_equal("the wire's exit status", wire.wait(), 0)
    sums = {}
    for line in wire.output().splitlines():
        if line.startswith(("a ", "b ")):
            for word in line.split()[1:]:
                name, _, number = word.partition("=")
                sums[name] = sums.get(name, 0) + int(number)
    return sums


def transfer(context, faults, kinds, stack):
    server, client, wire = context.bad_wire(*faults, "seed=4", stack=stack, prefix=stack[0])
    nginx = Nginx(server).start()
    expect_files(client, nginx.url, ["one", "k100", "m1", "m1", "k100"], 60)  # again: from where it is mapped
    client.run("curl", "-sSf", "--max-time", 60, "-T", context.files.root / "m1", f"{nginx.url}/put/m1", timeout=80)
    stored = hashlib.sha256((nginx.prefix / "put/m1").read_bytes()).hexdigest()
    expect_equal("the hash of what was sent", stored, context.files.sums["m1"])
    nginx.stop()
    done = counts(wire)
    for kind in kinds:
        expect(done[kind] > 0, f"the wire has {kind} nothing: {done}")


def register(name, faults, kinds):
    @test(f"loss-{name}")
    def run(context):
        for stack in ("server",) if context.on_kernel else ("server", "client"):
            transfer(context, faults, kinds, stack)


for wire_name, (wire_faults, wire_kinds) in WIRES.items():
    register(wire_name, wire_faults, wire_kinds)
