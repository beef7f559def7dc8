"""mtcp-stat: what it says to a person and to programs, and whom it answers."""

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

from harness import children, command, expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from suite_operators import WAITS
from web import get

ROOT = Path(__file__).resolve().parent.parent.parent
STAT = ROOT / "scripts/mtcp-stat"
PYTHON = "/usr/bin/python3"
# Connects and stays.
HOLDS = ("import socket,sys,time\n"
         "s=socket.create_connection((sys.argv[1],int(sys.argv[2])))\n"
         "print('connected', flush=True)\n"
         "time.sleep(60)\n")


@test("stat-lists-processes-listeners-and-says-who-has-a-stack", shim_only=True)
def stat_list(context):
    server, client = context.veth()
    nginx = Nginx(server, workers=2).start()
    get(client, f"{nginx.url}/hello")
    workers = sorted(nginx.workers())
    stacks = wait_until(lambda: (text := command(sys.executable, STAT).stdout) and
                        all(re.search(rf"^ *{pid}  nginx +net_af_packet0", text, re.M) for pid in workers) and text, what="a line for each worker")
    master = next(line for line in stacks.splitlines() if line.split()[:1] == [str(nginx.pid())])
    expect(all(str(pid) in master for pid in workers), f"the master's line does not name its workers: {master}")
    done = command(sys.executable, STAT, nginx.pid(), check=False)
    expect(done.returncode == 1 and all(str(pid) in done.stderr for pid in workers), f"of the master it says: {done.stderr}")
    text = command(sys.executable, STAT, "-n", workers[0]).stdout
    expect(re.search(rf"^LISTEN +(\S+):{nginx.port}\b", text, re.M), f"no listener: {text}")
    expect("cwnd bytes" in text, f"no unit: {text}")
    nobody = command("setpriv", "--reuid=nobody", "--clear-groups", PYTHON, STAT, workers[0], check=False)
    expect(nobody.returncode == 1 and "run as root" in nobody.stderr, f"to another user it says: {nobody.stderr}")
    powerless = command("setpriv", "--bounding-set=-all", "--inh-caps=-all", PYTHON, STAT, workers[0], check=False)
    expect(powerless.returncode == 1 and "this root lacks CAP_" in powerless.stderr and "run as root" not in powerless.stderr,
           f"to a root without capabilities it says: {powerless.stderr}")
    done = command(sys.executable, STAT, os.getpid(), check=False)
    expect(done.returncode == 1 and "does not run on mtcp" in done.stderr, f"of any other it says: {done.stderr}")
    version = command(sys.executable, STAT, "--version", check=False)
    expect(re.match(r"\d+\.\d+\.\d+ \(.*DPDK", version.stdout) or not (ROOT / "build/preload/mtcp-check").exists(), f"the version: {version.stdout}")
    nginx.stop()


def http_over_unix(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b""
        while part := connection.recv(65536):
            text += part
    return text.decode()


@test("stat-for-programs", shim_only=True)
def stat_for_programs(context):
    server, client = context.veth()
    nginx = Nginx(server).start()
    held = client.start(PYTHON, "-c", HOLDS, server.address, str(nginx.port))
    held.says("connected")
    worker = nginx.workers()[0]

    def ask(*options):
        return command(sys.executable, STAT, *options).stdout

    everything = json.loads(ask("--json"))
    mine = next(entry for entry in everything if entry["pid"] == worker)
    (one,) = json.loads(ask("--json", worker))
    expect_equal("its own answer and the one of all", (mine["program"], mine["listeners"][0]["local"]), (one["program"], one["listeners"][0]["local"]))
    expect(one["stack"]["turns"] >= one["stack"]["useful"] > 0 and one["counters"]["rx_packets"] > 0, f"numbers: {one['stack']}")
    held_ones = [c for c in one["connections"] if c["state"] == "ESTAB" and c["remote"].startswith(f"{client.address}:")]
    expect_equal("connections held", len(held_ones), 1)
    for options, count in ((("--state", "estab"), 1), (("--state", "listen"), 0), (("--port", nginx.port, "--state", "connected"), 1),
                           (("--peer", client.address), 1), (("--peer", f"{server.address}"), 0), (("--local", f":{nginx.port + 1}"), 0)):
        expect_equal(options, len(json.loads(ask("--json", *options, worker))[0]["connections"]), count)
        lines = [line for line in ask("-n", *options, worker).splitlines() if line.startswith("ESTAB")]
        expect_equal(("as text", *options), len(lines), count)
    expect("rtt:" in ask("-n", "-i", worker), "no details")
    check_metrics(ask("--prometheus"), worker)
    path = context.directory / "metrics"
    exporter = server.kernel_side().start(sys.executable, STAT, "--prometheus", "--listen", f"unix:{path}")
    wait_until(path.exists, what="the exporter's socket")
    head, _, body = http_over_unix(path).partition("\r\n\r\n")
    expect("200 OK" in head and "version=0.0.4" in head, f"the answer's head: {head}")
    check_metrics(body, worker)
    exporter.signal(signal.SIGINT)
    exporter.wait()
    expect(not path.exists(), "the exporter's socket is left over")
    expect(str(worker) in live_view(server), "not in the live view")
    held.kill()
    nginx.stop()


def live_view(end):
    """What mtcp-stat --top draws until it has drawn a process; it must end with q."""
    ours, its = pty.openpty()
    viewer = subprocess.Popen(["ip", "netns", "exec", end.namespace.name, sys.executable, STAT, "--top", "-w", "0.2"], stdin=its, stdout=its, stderr=its,
                              env={**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "24"})
    os.close(its)
    text = b""
    while b"nginx" not in text and select.select([ours], [], [], 10)[0]:
        text += os.read(ours, 65536)
    os.write(ours, b"q")
    expect_equal("its status", viewer.wait(10), 0)
    os.close(ours)
    return text.decode(errors="replace")


def check_metrics(text, pid):
    """Each metric with its HELP and TYPE before its samples, once; each sample with a number."""
    kinds, samples = {}, 0
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            expect(name not in kinds, f"{name} twice")
            kinds[name] = kind
        elif not line.startswith("#"):
            found = re.fullmatch(r'(\w+)\{(.*)\} (-?\d+(?:\.\d+)?)', line)
            expect(found and found[1] in kinds, f"a sample that is none, or before its TYPE: {line}")
            samples += f'pid="{pid}"' in found[2]
    expect(kinds.get("mtcp_rx_packets_total") == "counter" and kinds.get("mtcp_stack_connections") == "gauge" and samples > 20, f"{samples} samples, {kinds}")


@test("stat-in-another-pid-namespace", shim_only=True)
def stat_pid_namespace(context):
    server, _ = context.veth()
    outer = server.start("unshare", "--pid", "--fork", "--mount-proc", PYTHON, "-c", WAITS, server.address)
    outer.says("ready")
    pid = wait_until(lambda: children(outer.pid), what="the child")[0]
    done = wait_until(lambda: (done := command(sys.executable, STAT, pid, check=False)).returncode == 0 and done, what="an answer")
    expect("pid=1 " in done.stdout and "LISTEN" in done.stdout, f"it said: {done.stdout}")
    expect(re.search(rf"^ *{pid}  ", command(sys.executable, STAT).stdout, re.M), "it is not in the list")
    outer.kill()
    command("kill", "-9", pid, check=False)
