"""mtcp-ab: every preset on both sides, its reports, and what is left when it is interrupted. Speeds are not looked at."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

from harness import Program, command, expect, expect_equal, wait_until
from registry import test

ROOT = Path(__file__).resolve().parent.parent.parent
AB = ROOT / "scripts/mtcp-ab"
sys.path.append(str(ROOT / "perf/ab"))
from system_calls import Counter, event_id  # noqa: E402
SHORT = ("--rounds", 1, "--seconds", 1, "--no-warm-up", "--no-huge-pages")


class Here:
    """No namespace but this one: mtcp-ab makes its own."""

    @staticmethod
    def prefix():
        return []


def namespaces(pid):
    return [line.split()[0] for line in command("ip", "netns", "list").stdout.splitlines() if line.startswith(f"any{pid}")]


def preset(name, sides="kernel,veth"):
    @test(f"ab-preset-{name}", shim_only=True)
    def run(context):
        path = context.directory / "ab.json"
        done = command(AB, "--preset", name, "--sides", sides, *SHORT, "--shim", context.shim, "--json", path, check=False, timeout=120)
        expect_equal(f"its status; it said: {done.stdout[-1500:]} {done.stderr}", done.returncode, 0)
        result = json.loads(path.read_text())["sides"]
        expect_equal("sides", sorted(result), sorted(sides.split(",")))
        for side, values in result.items():
            (sample,) = values["samples"]
            expect(not values["void"] and sample["value"] > 0 and sample["unit"] and sample["server_cpu"] > 0, f"{side}: {values}")
        expect(result["veth"]["comparison"]["ratio"] > 0 and result["veth"]["comparison"]["verdict"] == "too few rounds", f"one round: {result['veth']}")


for preset_name in ("redis", "memcached", "haproxy", "iperf3", "pgbench"):
    preset(preset_name)
preset("nginx", "kernel,veth,memif,xdp,loopback")


@test("ab-latency-at-a-fixed-rate", shim_only=True)
def fixed_rate(context):
    """As many operations as were due, on either side; what is compared is p99."""
    path = context.directory / "ab.json"
    words = [word for word in SHORT if word != "--no-warm-up"]  # which counts system calls
    done = command(AB, "--preset", "echo-latency", "--sides", "kernel,memif", "--rate", 300, *words, "--shim", context.shim, "--json", path, check=False, timeout=60)
    expect_equal(f"its status; it said: {done.stdout[-1500:]} {done.stderr}", done.returncode, 0)
    for side, values in json.loads(path.read_text())["sides"].items():
        (sample,) = values["samples"]
        expect(297 <= sample["operations"] <= 300 and 0 < sample["p50_us"] <= sample["p99_us"] == sample["value"] <= sample["p999_us"], f"{side}: {sample}")
        # A read and a write of each, and on the kernel's side 64 times an accept and its kin.
        expect(sample["calls_per_operation"] > (2 if side == "kernel" else 0), f"{side}: {sample['calls_per_operation']} system calls")
        expect(sample["useful_polls"] is None if side == "kernel" else 0 < sample["useful_polls"] < 1, f"{side}: {sample['useful_polls']} of its polls")
        expect(not sample["more_is_better"], f"{side}: more latency is better")


CALLS = """import os, threading
input()
call = lambda: [os.getppid() for _ in range(1000)]
thread = threading.Thread(target=call)
thread.start()
thread.join()
if os.fork() == 0:
    call()
    os._exit(0)
os.wait()
print('done', flush=True)
input()
"""


@test("ab-system-calls-are-counted", shim_only=True)
def calls(context):
    """Those of a thread and of a child that begin later, too, and not those of others."""
    with subprocess.Popen(["python3", "-c", CALLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            wait_until(lambda: Path(f"/proc/{process.pid}/syscall").read_text().startswith("0 "), what="its read()")
            counter = Counter([process.pid], event_id(context.directory))
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
            total = counter.total()
        finally:
            process.kill()
    expect(total is not None and 2000 < total < 2500, f"of 2000 and a few: {total}")


def passive_opens(space):
    names, values = (line.split() for line in space.run("cat", "/proc/net/snmp").stdout.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("PassiveOpens")])


@test("ab-attached-to-an-interface-with-the-client-on-another-host", shim_only=True)
def attached(context):
    """The two hosts are namespaces; what runs commands on the other gives them to a shell, as ssh does. The kernel's own counter tells who
    had the connections."""
    server, client = context.veth(share=True)
    ssh = context.directory / "ssh"
    ssh.write_text(f'#!/bin/sh\nshift\nexec {" ".join(client.namespace.prefix())} sh -c "$*"\n')
    ssh.chmod(0o755)
    path = context.new_file("ab.json")

    def compare(sides, load="curl -sS -H 'X-Two: words' -o /dev/null http://{address}:8000/"):
        before = passive_opens(server.namespace)
        words = ("--attach", "wire", "--client-on", f"{ssh} host", "--sides", sides, "--server", "python3 -m http.server --bind {address} 8000", "--port", 8000,
                 "--client", load, "--metric", "time", *SHORT, "--timeout", 3, "--shim", context.shim, "--json", path)
        done = command(*server.namespace.prefix(), AB, *words, check=False, timeout=60)
        return done, json.loads(path.read_text())["sides"], passive_opens(server.namespace) - before

    done, sides, by_kernel = compare("kernel,share")
    expect_equal(f"its status; it said: {done.stdout[-1500:]} {done.stderr}", done.returncode, 0)
    expect(all(values["samples"][0]["value"] > 0 for values in sides.values()) and by_kernel > 0, f"{sides}")
    # The first, which asks whether somebody listens, may come before the stack does; the others come when it is there.
    done, sides, by_kernel = compare("share", "sh -c 'sleep 1; for i in 1 2 3 4 5; do curl -sS -o /dev/null http://{address}:8000/ || exit; done'")
    expect(done.returncode == 0 and by_kernel <= 1, f"the kernel has had {by_kernel} connections of the other side; {done.stdout}")
    done, sides, _ = compare("kernel", "sleep 77")
    expect(done.returncode == 1 and sides["kernel"]["void"], f"a client that does not end: {done.stdout}")
    wait_until(lambda: not client.namespace.pids(), 5, "its end")


@test("ab-the-kernel-at-its-best-and-a-shared-interface", shim_only=True)
def opponents(context):
    """Each is what it says: messages were redirected, packets were polled for. The best of the kernel's is the baseline, whichever it is."""
    path = context.directory / "ab.json"
    done = command(AB, "--preset", "nginx", "--sides", "kernel,sockmap,busy,share", *SHORT, "--shim", context.shim, "--json", path, check=False, timeout=120)
    expect_equal(f"its status; it said: {done.stdout[-1500:]} {done.stderr}", done.returncode, 0)
    sides = json.loads(path.read_text())["sides"]
    remarks = {side: [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", values["remark"])] for side, values in sides.items()}
    redirected, by_tcp = remarks["sockmap"]
    # What goes by TCP are first messages that are faster than the other end's socket.
    expect(redirected > sides["sockmap"]["samples"][0]["operations"] and by_tcp < redirected / 10, f"sockmap: {sides['sockmap']['remark']}")
    expect(min(remarks["busy"]) > 0, f"busy: {sides['busy']['remark']}")
    values = {side: side_values["samples"][0]["value"] for side, side_values in sides.items() if side != "share"}
    expect_equal("the baseline", [side for side in sides if sides[side]["comparison"] is None], [max(values, key=values.get)])


@test("ab-reports-of-any-program", shim_only=True)
def reports(context):
    """A program of whoever compares, the clock as the metric; one that fails voids its side and says why."""
    server = "python3 -m http.server --bind {address} 8000"
    client = "curl -sS -o /dev/null http://{address}:8000/"
    page, table = context.directory / "ab.html", context.directory / "ab.csv"
    done = command(AB, "--server", server, "--client", client, "--port", 8000, "--metric", "time", "--rounds", 5, "--no-warm-up", "--no-huge-pages", "--shim", context.shim,
                   "--html", page, "--csv", table, timeout=120)
    expect(any(word in done.stdout for word in ("faster", "slower", "no difference shown")), f"no verdict: {done.stdout}")
    expect_equal("lines of the table", len(table.read_text().splitlines()), 11)
    expect("data:image/png;base64," in page.read_text() and "http.server" in page.read_text(), "the page lacks something")
    done = command(AB, "--server", server, "--client", client.replace("8000", "8001"), "--port", 8000, "--metric", "time", *SHORT, "--shim", context.shim,
                   check=False, timeout=120)
    expect(done.returncode == 1 and "void: client: status 7" in done.stdout, f"a client that fails: {done.returncode} {done.stdout}")


@test("ab-interrupted-tells-what-there-is", shim_only=True)
def interrupted(context):
    """A partial report, and no namespace left."""
    words = [AB, "--preset", "nginx", "--sides", "kernel", "--rounds", 1000, "--seconds", 1, "--no-warm-up", "--no-huge-pages"]
    program = Program(Here, words, {}, context.new_file("ab.log"))
    context.programs.append(program)
    program.says("round 1/1000", 30)
    expect(namespaces(program.pid), "it has no namespaces of that name")
    program.signal(signal.SIGINT)
    wait_until(lambda: not program.running(), 30, "its end")
    expect("interrupted" in program.output() and "requests/s" in program.output().split("interrupted")[1], f"no partial report: {program.output()[-500:]}")
    expect_equal("its status", program.child.returncode, 130)
    expect_equal("namespaces left", namespaces(program.pid), [])


@test("ab-what-the-kernels-traffic-loses-beside-the-stack", shim_only=True)
def beside(context):
    done = command(ROOT / "perf/others", "--build", context.build, "--rounds", 1, "--seconds", 1, "--how", "packet", check=False, timeout=60)
    expect_equal(f"its status; it said: {done.stdout} {done.stderr}", done.returncode, 0)
    rows = re.findall(r"^packet +(\w+) +([\d.]+) +([\d.]+) ", done.stdout, re.M)
    expect_equal("its rows", [row[0] for row in rows], ["receives", "sends", "messages"])
    expect(all(float(alone) > 0 and float(beside) > 0 for _, alone, beside in rows), done.stdout)
