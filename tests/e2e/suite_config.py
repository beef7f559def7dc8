"""What the user is told when something is wrong, and that nothing else happens."""

import json
import os
import re
import shutil
import time
from pathlib import Path

from harness import expect, expect_equal
from nginx import Nginx
from registry import test
from web import expect_files, get

EX_CONFIG = 78
PYTHON = "/usr/bin/python3"
MTCP_RUN, MTCP_STAT = (Path(__file__).resolve().parent.parent.parent / "scripts" / name for name in ("mtcp-run", "mtcp-stat"))
# A program that makes a TCP socket and listens, waits a little, and says how it went.
LISTENS = ("import socket,sys\n"
           "s=socket.socket(); s.bind((sys.argv[1],7001)); s.listen(); s.settimeout(0.3)\n"
           "try: s.accept()\n"
           "except TimeoutError: print('listened')\n")


def run_with(context, text, address="10.99.0.2", user=None, ends=None):
    """(status, stdout, stderr) of a small server with this configuration. The text may hold {address}."""
    server, _ = ends or context.veth()
    path = context.new_file("bad.toml")
    path.write_text(text)
    path.chmod(0o644)
    server.config = path
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    done = server.run(*words, PYTHON, "-c", LISTENS, address, check=False)
    return done.returncode, done.stdout, done.stderr, path


def expect_error(result, line, *words, status=EX_CONFIG):
    """The program ended with `status`, and one message names file, line and all of the words."""
    code, out, text, path = result
    expect_equal("the exit status", (code, out), (status, ""))
    where = f"{path}:{line}" if line else str(path)
    expect(where in text, f"{where} is not named: {text[-500:]}")
    for word in words:
        expect(word in text, f"{word!r} is not in the message: {text[-500:]}")
    expect(len(text.splitlines()) <= 3, f"more than three lines for one mistake: {text}")


GOOD = '[device]\nport = "net_af_packet0,iface=wire"\n[interface]\naddress = ["10.99.0.2/24"]\n'


@test("config-good", shim_only=True)
def good(context):
    code, out, text, _ = run_with(context, GOOD)
    expect_equal("status and output", (code, out, text), (0, "listened\n", ""))


@test("config-unknown-key", shim_only=True)
def unknown_key(context):
    expect_error(run_with(context, GOOD + "[tcp]\nrmen = [1, 2, 3]\n"), 6, "rmen")


@test("config-unknown-section", shim_only=True)
def unknown_section(context):
    expect_error(run_with(context, GOOD + "[tpc]\nrmem = [1, 2, 3]\n"), 5, "tpc")


@test("config-value-of-the-wrong-type", shim_only=True)
def wrong_type(context):
    expect_error(run_with(context, '[device]\nport = 7\n'), 2, "port")


@test("config-value-out-of-range", shim_only=True)
def out_of_range(context):
    expect_error(run_with(context, '[device]\nport = "net_af_packet0,iface=wire"\nmtu = 9\n'), 3, "mtu")


@test("config-bad-address", shim_only=True)
def bad_address(context):
    expect_error(run_with(context, '[interface]\naddress = ["10.99.0.300/24"]\n'), 2, "10.99.0.300")


@test("config-unknown-congestion-control", shim_only=True)
def unknown_cc(context):
    expect_error(run_with(context, GOOD + '[tcp]\ncongestion_control = "vegas"\n'), 6, "vegas", "reno")


@test("config-syntax-error", shim_only=True)
def syntax(context):
    expect_error(run_with(context, "[device\n"), 1)


@test("config-missing-file", shim_only=True)
def missing_file(context):
    server, _ = context.veth()
    server.config = context.directory / "nothing.toml"
    done = server.run(PYTHON, "-c", LISTENS, "127.0.0.1", check=False)
    expect_error((done.returncode, done.stdout, done.stderr, server.config), None)


@test("config-missing-device", shim_only=True)
def missing_device(context):
    code, out, text, _ = run_with(context, GOOD.replace("wire", "nosuch0"))
    expect(code != 0 and out == "", f"the program went on without its device: {code} {out}")
    expect(code < 128, f"ended by a signal: {code}")
    expect("nosuch0" in text, f"the device is not named: {text[-500:]}")
    expect(len(text.splitlines()) <= 6, f"too many lines for one mistake: {text}")


@test("config-unknown-device-type", shim_only=True)
def unknown_device(context):
    code, out, text, _ = run_with(context, GOOD.replace("net_af_packet0", "net_nonsense0"))
    expect(0 < code < 128 and out == "", f"the program went on without its device: {code} {out}")
    expect("net_nonsense0" in text, f"the device is not named: {text[-500:]}")


@test("config-packets-that-do-not-fill-the-rings", shim_only=True)
def rings(context):
    text = GOOD.replace("net_af_packet0,iface=wire", "0000:ff:1f.7").replace("[interface]", "packets = 2048\n[interface]")
    code, out, text, _ = run_with(context, text)
    expect_equal("status and output", (code, out), (EX_CONFIG, ""))
    for word in ("packets = 2048", "rx_ring (1024)", "2560"):
        expect(word in text, f"{word!r} is not in the message: {text[-500:]}")


@test("config-no-permission", shim_only=True)
def no_permission(context):
    for name in ("libmtcp_shim.so", "libmtcp_engine.so"):  # where that user can read them
        shutil.copy(context.shim.parent / name, context.directory / name)
    context.shim = context.directory / "libmtcp_shim.so"
    code, out, text, _ = run_with(context, GOOD, user="www-data")
    expect(0 < code < 128 and out == "", f"the program went on without its device: {code} {out} {text}")
    expect(re.search(r"CAP_NET_RAW|root|permi", text, re.I) is not None, f"no word about the permission: {text[-500:]}")


@test("config-not-enough-huge-pages", shim_only=True)
def huge_pages(context):
    # More than any machine of ours keeps free: eight million packet buffers are 16 GB.
    text = GOOD.replace("[interface]", 'hugepages = "on"\npackets = 8000000\n[interface]')
    code, out, text, _ = run_with(context, text)
    expect(0 < code < 128 and out == "", f"the program went on without its huge pages: {code} {out} {text}")
    expect("nr_hugepages" in text, f"the command that mends it is not named: {text[-500:]}")


@test("config-none-is-the-kernel-in-silence", shim_only=True)
def none(context):
    if os.path.exists("/etc/mtcp/mtcp.toml"):
        return
    server, client = context.veth()
    kernel = client.kernel_side()
    for level, lines in ((None, 0), ("info", 1), ("none", 0)):
        words = ["env", f"LD_PRELOAD={context.shim}", *([f"MTCP_LOG={level}"] if level else [])]
        done = kernel.run(*words, PYTHON, "-c", LISTENS, client.address)
        expect_equal("the output", done.stdout, "listened\n")
        expect_equal(f"lines on stderr with MTCP_LOG={level}", len(done.stderr.splitlines()), lines)
        expect(lines == 0 or "MTCP_CONF" in done.stderr, f"the line does not say what to do: {done.stderr}")
    # mtcp-run takes the interface of the default route, which there is not here; what is on the machine itself needs none.
    done = kernel.run(MTCP_RUN, PYTHON, "-c", LISTENS, "127.0.0.1", env={"MTCP_SHIM": context.shim})
    expect_equal("the output on loopback", (done.stdout, done.stderr), ("listened\n", ""))
    done = kernel.run(MTCP_RUN, PYTHON, "-c", LISTENS, client.address, env={"MTCP_SHIM": context.shim})
    expect_equal("what the program said under mtcp-run, and lines about it", (done.stdout, len(done.stderr.splitlines())), ("listened\n", 1))
    expect("there is no default route" in done.stderr and "runs on the kernel" in done.stderr, f"it said: {done.stderr}")
    expect(server.on_stack, "no stack in this run")


# A daemon whose descriptor 2 is a data file by the time that there is something to say.
DATA_ON_2 = """
import os, socket, sys
how, path = sys.argv[1:]
if how == "close":
    os.close(2)
    f = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
else:
    f = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.dup2(f, 2)
os.write(2, b"data")
s = socket.socket()
s.setblocking(False)
try: s.connect(("10.99.0.1", 1))
except OSError: pass
"""


@test("config-no-line-goes-to-what-descriptor-2-has-become", shim_only=True)
def data_on_2(context):
    server, _ = context.veth(more='[log]\nlevel = "debug"\n')
    broken = context.write_config("net_af_packet0,iface=nosuch0", "10.99.0.2")
    for config, how, said in ((server.config, "close", None), (broken, "close", False), (broken, "dup2", True)):
        data = context.new_file("data")
        log = context.new_file(f"{how}.log")
        env = {"MTCP_CONF": config, "LD_PRELOAD": context.shim}
        program = server.kernel_side().start(PYTHON, "-c", DATA_ON_2, how, data, env=env, log=log)
        expect_equal("the exit status", program.wait(20), 0)
        expect_equal(f"what is in the file ({how})", data.read_text(), "data")
        if said is not None:
            expect_equal(f"nosuch0 is named on the first standard error ({how})", "nosuch0" in program.output(), said)


@test("config-a-pipe-on-2-is-not-kept-open", shim_only=True)
def pipe_on_2(context):
    server, _ = context.veth()
    daemon = "import os,socket,time\ns = socket.socket()\nif os.fork(): os._exit(0)\n" \
             "n = os.open('/dev/null', 2)\nfor i in range(3): os.dup2(n, i)\ntime.sleep(20)"
    before = time.monotonic()
    done = server.run("sh", "-c", f'echo "[$({PYTHON} -c "$0" 2>&1)]"', daemon, timeout=15)
    expect_equal("the output", done.stdout, "[]\n")
    expect(time.monotonic() - before < 10, "the pipe was open as long as the daemon")


@test("config-programs-that-slip-past-are-named", shim_only=True)
def slip_past(context):
    server, _ = context.veth()
    env = {"MTCP_SHIM": context.shim}
    for name, word in (("go_like", "Go"), ("static_program", "statically linked")):
        done = server.kernel_side().run(MTCP_RUN, "-n", "-c", server.config, context.build / "tests/e2e" / name, check=False, env=env)
        expect(done.returncode != 0 and word in done.stderr, f"mtcp-run takes {name}: {done.returncode} {done.stderr}")
    done = server.run(context.build / "tests/e2e/go_like")
    expect(done.stderr.count("Go") == 1 and len(done.stderr.splitlines()) == 1, f"the shim says {done.stderr!r} of a Go program")
    expect_equal("what it says if warnings are off", server.run(context.build / "tests/e2e/go_like", env={"MTCP_LOG": "error"}).stderr, "")
    expect_equal("what mtcp-run says of any other", server.kernel_side().run(MTCP_RUN, "-n", "-c", server.config, PYTHON, env=env).stderr, "")


@test("config-rule-that-can-not-be-honoured", shim_only=True)
def impossible_rule(context):
    expect_error(run_with(context, GOOD + '[[rule]]\nmatch = { address = "127.0.0.1" }\nto = "stack"\n'), 7, "127.0.0.1", "loopback = true")


@test("config-bad-does-not-touch-programs-without-sockets", shim_only=True)
def bad_and_true(context):
    server, _ = context.veth()
    server.config = context.new_file("bad.toml")
    server.config.write_text("nonsense\n")
    for words in (["/bin/true"], ["/bin/sh", "-c", "echo hi >/dev/null"], [PYTHON, "-c", "print(end='')"]):
        done = server.run(*words)
        expect_equal(f"what {words[0]} says", (done.stdout, done.stderr), ("", ""))


@test("config-rule-sends-a-listener-to-the-kernel", shim_only=True)
def rule(context):
    more = '[[rule]]\nmatch = { role = "listen", port = "8081" }\nto = "kernel"\n'
    server, client = context.veth(more=more)
    second = "} server { listen 127.0.0.1:8081; location / { return 200 kernel; }"
    nginx = Nginx(server, server=second).start()
    expect_equal("over the wire", get(client, f"{nginx.url}/hello"), "hello\n")
    expect_equal("over the kernel", get(server.kernel_side(), "http://127.0.0.1:8081/"), "kernel")
    nginx.stop()


@test("config-log-says-where-sockets-go", shim_only=True)
def where_sockets_go(context):
    server, client = context.veth(more='[[rule]]\nmatch = { role = "listen", port = 7003 }\nto = "kernel"\n')
    nginx = Nginx(client.kernel_side(), port=9000).start()
    script = ("import socket\n"
              "def listen(a, p): s = socket.socket(); s.bind((a, p)); s.listen(); return s\n"
              "l = [listen('0.0.0.0', 7001), listen('10.99.0.2', 7002), listen('10.99.0.2', 7003), listen('127.0.0.1', 7004)]\n"
              "for i in range(2): socket.create_connection(('10.99.0.1', 9000), 5).close()\n"
              "for i in range(2): socket.create_connection(('127.0.0.1', 7004), 5).close()\n"
              "import os, subprocess, sys\n"
              "subprocess.run([sys.executable, sys.argv[1], '--json', str(os.getpid())], env={})\n")
    done = server.run(PYTHON, "-c", script, MTCP_STAT, env={"MTCP_LOG": "info"})
    said = [line.partition("info: ")[2] for line in done.stderr.splitlines()]
    for line in ("listen 0.0.0.0:7001: stack and kernel, on the wildcard address", "listen 10.99.0.2:7002: stack, an address of the stack",
                 "listen 10.99.0.2:7003: kernel, by a rule", "connect 10.99.0.1:9000: stack, on a network of [interface]",
                 "listen 127.0.0.1:7004: kernel, loopback is the kernel's (loopback = false in [stack])",
                 "connect 127.0.0.1:7004: kernel, loopback is the kernel's (loopback = false in [stack])"):
        expect_equal(f"how often {line!r} is said", said.count(line), 1)
    expect_equal("what mtcp-stat counts", json.loads(done.stdout)[0]["decisions"],
                 {"listens_on_stack": 2, "listens_in_kernel": 2, "connects_on_stack": 2, "connects_in_kernel": 2})
    expect_equal("what is said without MTCP_LOG", server.run(PYTHON, "-c", script, MTCP_STAT).stderr, "")
    nginx.stop()


@test("config-busy-polling-serves", shim_only=True)
def busy(context):
    server, client = context.veth(more='[stack]\npoll = "busy"\n')
    nginx = Nginx(server).start()
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    nginx.stop()


@test("config-small-buffers-serve", shim_only=True)
def small_buffers(context):
    server, client = context.veth(more="[tcp]\nrmem = [4096, 8192, 16384]\nwmem = [4096, 8192, 16384]\n")
    nginx = Nginx(server).start()
    expect_files(client, nginx.url, ["k64", "m1", "m10"])
    nginx.stop()
