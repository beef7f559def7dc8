"""What a person meets: mtcp-run -n, messages and exit statuses, the README's first example."""

import re
import sys
from pathlib import Path

from harness import command, expect, expect_equal, wait_until
from registry import test
from suite_config import GOOD, LISTENS, expect_error, run_with

ROOT = Path(__file__).resolve().parent.parent.parent
RUN, STAT = ROOT / "scripts/mtcp-run", ROOT / "scripts/mtcp-stat"
PYTHON = "/usr/bin/python3"
EX_UNAVAILABLE, EX_CONFIG = 69, 78
# Listens and waits until it is told to stop.
WAITS = ("import select,socket,sys\n"
         "s=socket.create_server((sys.argv[1],7001))\n"
         "print('ready', flush=True)\n"
         "select.select([s],[],[],60)\n")


def dry_run(context, path, *words, **options):
    """mtcp-run -n with this build: (status, stdout, stderr)."""
    server, _ = options.pop("ends", None) or context.veth()
    done = server.kernel_side().run(RUN, "-n", "-c", path, *words, env={"MTCP_SHIM": context.shim}, check=False, **options)
    return done.returncode, done.stdout, done.stderr


@test("run-n-says-all-that-is-wrong", shim_only=True)
def all_wrong(context):
    ends = context.veth()
    path = context.new_file("bad.toml")
    for text, status, lines in (
            (GOOD, 0, []),
            # Mistakes of every kind, at once.
            ('[device]\nport = "net_af_packt0,iface=wire"\nqueues = 100\nmtuu = 3\n[interface]\naddress = ["10.99.0.2/24"]\n'
             'gateway = ["10.98.0.1"]\n[tcp]\nrmem = 5\n', EX_CONFIG,
             [(2, "net_af_packt0", "did you mean net_af_packet0?"), (3, "queues = 100", "64"), (4, "mtuu", "mtu"), (7, "10.98.0.1"), (9, "rmem")]),
            (GOOD.replace('"net_af_packet0,iface=wire"', "net_af_packet0,iface=wire"), EX_CONFIG, [(2, 'port = "net_af_packet0,iface=wire"')]),
            (GOOD.replace("[interface]", "packets = 16\n[interface]"), EX_CONFIG, [(3, "packets", "512")]),
            (GOOD.replace("[interface]", "mtu = 9000\n[interface]"), EX_CONFIG, [(None, "9000", "1500", "ip link set wire mtu 9000")]),
            (GOOD.replace("wire", "nosuch0"), EX_UNAVAILABLE, [(None, "nosuch0", "ip -br link")])):
        path.write_text(text)
        code, out, errors = dry_run(context, path, "/bin/true", ends=ends)
        said = errors.splitlines()
        expect_equal("the status and how many mistakes are said", (code, len(said)), (status, len(lines)))
        for line, (number, *words) in zip(said, lines):
            expect(f"{path}:{number}:" in line if number else str(path) in line, f"line {number} is not named: {line}")
            expect(all(word in line for word in words), f"{words} are not in {line}")
        expect("LD_PRELOAD" in out and str(path) in out, f"no summary: {out}")
    # The program's own mistakes come on top of them.
    code, _, errors = dry_run(context, path, "/nonexistent/program", ends=ends)
    expect_equal("both are said", (code, "nosuch0" in errors, "no such program" in errors), (EX_UNAVAILABLE, True, True))


@test("config-78-names-offender-and-limit", shim_only=True)
def named(context):
    ends = context.veth()
    expect_error(run_with(context, GOOD.replace("[interface]", "queues = 100\n[interface]"), ends=ends), 3, "queues = 100", "64")
    expect_error(run_with(context, GOOD.replace("net_af_packet0", "net_af_packt0"), ends=ends), 2, "net_af_packt0", "net_af_packet0")
    expect_error(run_with(context, GOOD.replace('"net_af_packet0,iface=wire"', "net_af_packet0,iface=wire"), ends=ends), 2, "quotes")
    expect_error(run_with(context, GOOD.replace("net_af_packet0,iface=wire", "wire"), ends=ends), 2, "net_af_packet0,iface=wire")
    code, out, text, _ = run_with(context, GOOD.replace("[interface]", "mtu = 9000\n[interface]"), ends=ends)
    expect_equal("the status", (code, out), (EX_CONFIG, ""))
    expect("9000" in text and "1500" in text and "ip link set wire mtu 9000" in text, f"it said: {text}")


@test("af_packet-takes-net_raw-only", shim_only=True)
def net_raw(context):
    """What the message without permission says is enough, and without it it is said."""
    for name in ("libmtcp_shim.so", "libmtcp_engine.so"):  # where that user can read them
        (context.directory / name).write_bytes((context.shim.parent / name).read_bytes())
    server, _ = context.veth()
    env = {"LD_PRELOAD": context.directory / "libmtcp_shim.so", "MTCP_CONF": server.config}
    server.config.chmod(0o644)
    user = ["setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups"]
    plain = server.kernel_side()
    words = ["env", *(f"{key}={value}" for key, value in env.items()), PYTHON, "-c", LISTENS, server.address]
    done = plain.run(*user, *words, check=False)
    advice = re.search(r"--inh-caps=(\S+) --ambient-caps=(\S+) mtcp-run", done.stderr)
    expect(done.returncode == EX_UNAVAILABLE and advice, f"no advice: {done.returncode} {done.stderr}")
    done = plain.run(*user, f"--inh-caps={advice[1]}", f"--ambient-caps={advice[2]}", *words, check=False)
    expect_equal("as advised", (done.returncode, done.stdout, done.stderr), (0, "listened\n", ""))


@test("run-n-follows-a-script-to-what-runs-it", shim_only=True)
def interpreters(context):
    ends = context.veth()
    path, script = context.new_file("good.toml"), context.new_file("script")
    path.write_text(GOOD)
    script.touch(0o755)
    env = {"MTCP_SHIM": context.shim, "PATH": "/usr/bin:/bin"}
    python = str(Path(PYTHON).resolve())
    for line, run_by in ((PYTHON, python), ("/usr/bin/env python3", python), ("/usr/bin/env -S python3 -u", python),
                         ("/usr/bin/env -S NAME=value python3 -u", python), ("/usr/bin/env -S nosuch -u", None), ("/nosuch", None)):
        script.write_text(f"#!{line}\n")
        done = ends[0].kernel_side().run(RUN, "-n", "-c", path, script, env=env, check=False)
        expect_equal(f"the status with {line}", done.returncode, 0 if run_by else 1)
        expect(f"(run by {run_by})" in done.stdout if run_by else "nosuch" in done.stderr, f"with {line}: {done.stdout} {done.stderr}")


@test("run-advice-about-file-capabilities-serves", shim_only=True)
def file_capabilities(context):
    """setcap does not go with LD_PRELOAD: what mtcp-run says instead must be enough."""
    server, _ = context.veth()
    server.config.chmod(0o644)
    program, run = context.directory / "with-capabilities", context.directory / "mtcp-run"
    for name in ("libmtcp_shim.so", "libmtcp_engine.so"):  # where that user can read them
        (context.directory / name).write_bytes((context.shim.parent / name).read_bytes())
    program.write_bytes(Path(PYTHON).resolve().read_bytes())
    run.write_bytes(RUN.read_bytes())
    program.chmod(0o755)
    run.chmod(0o755)
    plain, env = server.kernel_side(), {"MTCP_SHIM": context.directory / "libmtcp_shim.so"}
    words = ["-c", server.config, program, "-c", LISTENS, server.address]
    plain.run("setcap", "cap_net_raw+ep", program)
    done = plain.run("setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", run, *words, check=False, env=env)
    take_away = re.search(r"\(sudo (setcap -r \S+)\)", done.stderr)
    give = re.search(r": sudo (setpriv .*) mtcp-run \.\.\.", done.stderr)
    expect(done.returncode == 1 and take_away and give, f"no advice: {done.returncode} {done.stderr}")
    plain.run(*take_away[1].split())
    program.chmod(0o4755)
    done = plain.run("setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups", run, *words, check=False, env=env)
    expect(done.returncode == 1 and "set-user-ID" in done.stderr, f"of a program that is set-user-ID: {done.returncode} {done.stderr}")
    program.chmod(0o755)
    done = plain.run(*give[1].split(), run, *words, check=False, env=env)
    expect_equal("as advised", (done.returncode, done.stdout, done.stderr), (0, "listened\n", ""))


@test("rule-names-a-link-or-a-script", shim_only=True)
def names(context):
    rule = '[[rule]]\nmatch = {{ program = "{}" }}\nto = "kernel"\n'
    link, script = context.directory / "my-server", context.directory / "my-script"
    link.symlink_to(PYTHON)
    script.write_text(f"#!{PYTHON}\n{WAITS}")
    script.chmod(0o755)
    for name, words in (("my-server", [link, "-c", WAITS]), ("my-script", [script]), ("my-script", [PYTHON, script])):
        # With the rule it is the kernel's, which has no such address.
        server, _ = context.veth(more=rule.format(name), prefix=f"{len(context.namespaces)}a")
        done = server.run(*words, server.address, check=False)
        expect(done.returncode == 1 and "Cannot assign" in done.stderr, f"{words}: not by the rule: {done.stderr}")
        server, _ = context.veth(more=rule.format("python3x"), prefix=f"{len(context.namespaces)}b")
        program = server.start(*words, server.address)
        program.says("ready")
        shown = wait_until(lambda: re.search(r"program=(\S+)", command(sys.executable, STAT, program.pid, check=False).stdout), what="a stack")
        expect_equal("mtcp-stat's name", shown[1], name)
        program.kill()


# What stands for the machine's card, and another machine.
MACHINE = """set -e
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
ip link set lo up
ip netns add other
ip link add card type veth peer name wire netns other
ip addr add 192.0.2.2/24 dev card
ip link set card up
ip -n other addr add 192.0.2.1/24 dev wire
ip -n other link set wire up
ip route add default via 192.0.2.1
exec 2>&1
"""
FETCH = """for i in $(seq 50); do ip netns exec other curl -s http://192.0.2.2:8000/ >/dev/null || true; sleep 0.1
  STAT -c $! | grep -q 'passive_opens' && break; done
ip netns exec other curl -sS http://192.0.2.2:8000/
"""


def example(title):
    """The lines of the README under this title, as they are typed in a source tree by root."""
    lines = re.search(rf"<!-- {title}: a test types these lines -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    expect("sudo " in lines, f"{title}: nothing to do as root")
    # Who types them waits as long as it takes.
    lines = lines.replace("sleep 2\n", "for i in $(seq 200); do mtcp-stat -c $! >/dev/null 2>&1 && break; sleep 0.1; done\n")
    return lines.replace("sudo ", "").replace("mtcp-run ", f"{RUN} ").replace("mtcp-stat", str(STAT))


@test("readme-first-run", shim_only=True)
def first_run(context):
    """The lines as they are, in a network of their own."""
    script = (f"{MACHINE}cd {context.directory}\n{example('first run')}{FETCH.replace('STAT', str(STAT))}{example('first look')}\nkill $!\nwait || true\n"
              f"{example('a virtual wire')}\nkill $!\nwait || true\nip netns del peer\n")
    done = command("unshare", "--net", "--mount", "--propagation", "private", "bash", "-c", script, check=False, timeout=40,
                   env={"MTCP_SHIM": str(context.shim)})
    expect(done.returncode == 0, f"status {done.returncode}: {done.stdout}")
    expect(done.stdout.count("<title>Directory listing") == 2 and '"GET / HTTP/1.1" 200' in done.stdout, f"no answer: {done.stdout}")
    for interface in ("card", "wire"):
        expect(re.search(rf"^ *\d+  http\.server +net_af_xdp0,iface={interface},share=kernel", done.stdout, re.M), f"not on {interface}: {done.stdout}")
    expect("mtcp[" not in done.stdout, f"something is wrong: {done.stdout}")
