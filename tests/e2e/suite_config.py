"""What the user is told when something is wrong, and that nothing else happens."""

import os
import re
import shutil

from harness import expect, expect_equal
from nginx import Nginx
from registry import test
from web import expect_files, get

EX_CONFIG = 78
PYTHON = "/usr/bin/python3"
# A program that makes a TCP socket and listens, waits a little, and says how it went.
LISTENS = ("import socket,sys\n"
           "s=socket.socket(); s.bind((sys.argv[1],7001)); s.listen(); s.settimeout(0.3)\n"
           "try: s.accept()\n"
           "except TimeoutError: print('listened')\n")


def run_with(context, text, address="10.99.0.2", user=None):
    """(status, stdout, stderr) of a small server with this configuration. The text may hold {address}."""
    server, _ = context.veth()
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
    expect_error(run_with(context, GOOD + '[tcp]\ncongestion_control = "vegas"\n'), 6, "vegas", "newreno")


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


@test("config-none-is-the-kernel-and-one-line", shim_only=True)
def none(context):
    if os.path.exists("/etc/mtcp/mtcp.toml"):
        return
    server, client = context.veth()
    kernel = client.kernel_side()
    done = kernel.run("env", f"LD_PRELOAD={context.shim}", PYTHON, "-c", LISTENS, client.address)
    expect_equal("the output", done.stdout, "listened\n")
    expect_equal("lines on stderr", len(done.stderr.splitlines()), 1)
    expect("MTCP_CONF" in done.stderr, f"the line does not say what to do: {done.stderr}")
    expect(server.on_stack, "no stack in this run")


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
