#!/usr/bin/env python3
"""Real programs behave under the shim exactly as without it: with no configuration, with an engine that takes nothing, and
with an engine that takes every TCP socket and passes each call on to the kernel.

usage: check_programs.py SHIM SHIM_BESIDE_FAKE_ENGINE PARITY

Runs in a network namespace of its own (root); without the right to make one, 77: skipped."""
import ctypes
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "scripts"))
sys.dont_write_bytecode = True
from surroundings import set_surroundings  # noqa: E402

CLONE_NEWNET = 0x40000000
NO_CONFIGURATION = "mtcp: no configuration (MTCP_CONF or /etc/mtcp/mtcp.toml): everything goes to the kernel\n"

BASH = r"""
set -o pipefail
trap 'echo trapped' USR1
kill -USR1 $$
echo one two | (read a b; echo $b $a) | cat
exec 7</dev/null 8>&1
(exit 3) || echo status $?
sleep 0.05 & wait $!; echo waited $?
ls /proc/self/fd | wc -l
ulimit -n >/dev/null
"""

PYTHON = r"""
import asyncio, os, select, signal, socket, subprocess, threading
def server(listener):
    while True:
        s, _ = listener.accept()
        data = s.recv(100)
        if not data: break
        s.sendall(data.upper() * 20000); s.close()
listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=server, args=(listener,), daemon=True).start()
def ask(text):
    with socket.create_connection(listener.getsockname()) as s:
        s.sendall(text); return b"".join(iter(lambda: s.recv(65536), b""))
print(len(ask(b"hello")), ask(b"x")[:3])
async def both():
    async def one():
        r, w = await asyncio.open_connection(*listener.getsockname())
        w.write(b"abc"); data = await r.read(); w.close(); return len(data)
    print(await asyncio.gather(one(), one(), one()))
asyncio.run(both())
print(subprocess.run(["sh", "-c", "echo child; exit 4"], capture_output=True))
a, b = socket.create_connection(listener.getsockname()), None
fired = []
signal.signal(signal.SIGALRM, lambda *_: fired.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.05)
print(select.select([a], [], [], 0.3)[0], fired)
a.settimeout(0.05)
try: a.recv(1)
except socket.timeout as e: print(type(e).__name__)
p = select.poll(); p.register(a, select.POLLOUT); print([e for _, e in p.poll(0)])
e = select.epoll(); e.register(a, select.EPOLLOUT); print([x for _, x in e.poll(0)])
pid = os.fork()
if pid == 0:
    a.sendall(b"from the child"); os._exit(0)
os.waitpid(pid, 0); a.settimeout(5); print(a.recv(14)); a.close()
f = socket.create_connection(listener.getsockname()).makefile("rwb"); f.write(b"q"); f.flush(); print(f.read(5))
try: socket.create_connection(("127.0.0.1", 1))
except ConnectionRefusedError as x: print(x)
"""


class Setting:
    """A way to run programs: what is in the environment, and what the shim may say on stderr."""

    def __init__(self, name, environment, says):
        self.name, self.environment, self.says = name, environment, says

    def env(self):
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("LD_PRELOAD", "MTCP_", "FAKE_"))}
        return plain | self.environment


def isolate():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        print("no right to make a network namespace: skipped")
        sys.exit(77)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    pathlib.Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("3")  # as tests/parity/run has it


def run(setting, argv):
    done = subprocess.run(argv, env=setting.env(), capture_output=True, text=True, timeout=100)
    stderr = done.stderr
    said = stderr.count("mtcp: ")
    for line in setting.says:
        stderr = stderr.replace(line, "")
    # Times and process numbers differ from run to run.
    return done.returncode, done.stdout, re.sub(r"\d{4}/\d\d/\d\d [\d:]+|\d+#\d+|after \d+ ms", "", stderr), said


def wait_for_port(port):
    deadline = time.monotonic() + 10
    wanted = f":{port:04X} "
    while time.monotonic() < deadline:
        listening = [line for line in pathlib.Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
        if any(wanted in line.split(" ", 4)[-1] or wanted in line for line in listening):
            return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


NGINX = """
daemon off; master_process {master}; pid {dir}/pid; error_log stderr error; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:8080; root {dir}; sendfile {sendfile};
    location /hello {{ return 200 "hello"; }}
    location /proxy/ {{ proxy_pass http://127.0.0.1:8080/; }} }}
}}
"""


def nginx_served(setting, directory, master, sendfile):
    """What curl, under the setting too, gets from an nginx under the setting, and how nginx ends."""
    conf = directory / "nginx.conf"
    conf.write_text(NGINX.format(dir=directory, master=master, sendfile=sendfile))
    server = subprocess.Popen(["nginx", "-c", str(conf)], env=setting.env(), stderr=subprocess.DEVNULL)
    try:
        wait_for_port(8080)
        results = []
        for path in ("hello", "big", "proxy/big", "proxy/hello", "missing"):
            got = subprocess.run(["curl", "-s", "-w", "%{http_code}", f"http://127.0.0.1:8080/{path}"], env=setting.env(), capture_output=True, timeout=60)
            results.append((path, got.returncode, hash(got.stdout)))
        server.send_signal(signal.SIGQUIT)
        results.append(("end", server.wait(20)))
        return results
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def main():
    set_surroundings()
    shim, beside_fake, parity = (str(pathlib.Path(p).resolve()) for p in sys.argv[1:4])
    if pathlib.Path("/etc/mtcp/mtcp.toml").exists():
        print("this machine has a configuration of mtcp: skipped")
        sys.exit(77)
    isolate()
    plain = Setting("plain", {}, [])
    settings = [
        Setting("no configuration", {"LD_PRELOAD": shim}, []),
        Setting("no configuration, and told", {"LD_PRELOAD": shim, "MTCP_LOG": "info"}, [NO_CONFIGURATION]),
        Setting("engine refuses", {"LD_PRELOAD": beside_fake, "MTCP_CONF": "/dev/null", "FAKE_ENGINE": "refuse"}, []),
        Setting("engine passes on", {"LD_PRELOAD": beside_fake, "MTCP_CONF": "/dev/null"}, []),
    ]
    programs = [["/bin/true"], ["/bin/false"], ["bash", "-c", BASH], ["/usr/bin/python3", "-c", PYTHON], ["nginx", "-t"],
                ["curl", "-sS", "http://127.0.0.1:1/"], ["curl", "-sS", "http://[::1]:1/"], ["env", "-i", "/bin/true"],
                ["sh", "-c", "exec /usr/bin/python3 -c 'import os; print(os.popen(\"echo p\").read())'"]]
    failures = 0

    def compare(setting, what, expected, actual):
        nonlocal failures
        if expected != actual:
            failures += 1
            print(f"{setting.name}: {what}\n  expected {expected}\n  but got  {actual}")

    for argv in programs:
        if shutil.which(argv[0]) is None:
            continue
        expected = run(plain, argv)
        for setting in settings:
            compare(setting, " ".join(argv)[:60], expected[:3], run(setting, argv)[:3])
    says = [argv for argv in (["/bin/true"], ["bash", "-c", BASH]) if run(settings[1], argv)[3] != 0]
    compare(settings[1], "programs without TCP say nothing", [], says)
    for setting, lines in ((settings[0], 0), (settings[1], 1)):
        compare(setting, "lines of a program with TCP", lines, run(setting, ["/usr/bin/python3", "-c", PYTHON])[3])

    failing = Setting("engine fails", {"LD_PRELOAD": beside_fake, "MTCP_CONF": "/dev/null", "FAKE_ENGINE": "fail"}, [])
    status, _, stderr, _ = run(failing, ["curl", "-s", "http://127.0.0.1:1/"])
    compare(failing, "curl", (7, "mtcp: the fake engine fails: everything goes to the kernel\n"), (status, stderr))
    disliked = Setting("bad configuration", failing.environment | {"FAKE_ENGINE": "bad-configuration"}, [])
    status, _, stderr, _ = run(disliked, ["curl", "-s", "http://127.0.0.1:1/"])
    compare(disliked, "curl", (78, "mtcp: x.toml:1:2: the fake engine dislikes this\n"), (status, stderr))
    with tempfile.TemporaryDirectory() as folder:
        lonely = shutil.copy(shim, folder)
        alone = Setting("no engine", {"LD_PRELOAD": lonely, "MTCP_CONF": "/dev/null"}, [])
        status, _, stderr, _ = run(alone, ["curl", "-s", "http://127.0.0.1:1/"])
        compare(alone, "curl", (78, True), (status, stderr.startswith(f"mtcp: cannot load the engine: {folder}/") and "libmtcp_engine.so: " in stderr))

    if shutil.which("nginx"):
        with tempfile.TemporaryDirectory() as folder:
            directory = pathlib.Path(folder)
            directory.chmod(0o755)
            (directory / "big").write_bytes(os.urandom(1 << 16) * 80)
            for master, sendfile in (("off", "off"), ("off", "on"), ("on", "on")):
                expected = nginx_served(plain, directory, master, sendfile)
                for setting in settings:
                    compare(setting, f"nginx master {master} sendfile {sendfile}", expected, nginx_served(setting, directory, master, sendfile))

    status, stdout, _, _ = run(settings[-1], [parity])
    compare(settings[-1], "the parity cases\n" + textwrap.indent(stdout[-2000:], "    ") if status else "", 0, status)
    print(f"{len(programs)} programs and nginx in {len(settings)} settings, {failures} differences")
    sys.exit(1 if failures else 0)


main()
