#!/usr/bin/env python3
"""The Debian package, installed: into a copy of this system (an overlay of its root, in namespaces of its own), used there by
its bare names, and purged: nothing is left. And `ninja uninstall` leaves nothing either.

usage: check_package.py ROOT BUILD [PACKAGE]      the source tree; a build directory to make or use. Root only, else 77: skipped."""
import ctypes
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "scripts"))
sys.dont_write_bytecode = True
from surroundings import set_surroundings  # noqa: E402

CLONE_NEWNS, CLONE_NEWNET, MS_PRIVATE, MS_REC = 0x20000, 0x40000000, 1 << 18, 1 << 14
# What stands for the machine's card and another machine: "other" holds a network namespace, and what follows runs there.
WIRE = r"""
set -e
mount -t sysfs sysfs /sys
ip link set lo up
ip link add card type veth peer name wire
unshare --net sleep 120 & other=$!
sleep 0.3
ip link set wire netns $other
ip addr add 192.0.2.2/24 dev card
ip link set card up
nsenter --net --target $other sh -c 'ip addr add 192.0.2.1/24 dev wire; ip link set wire up'
ip route add default via 192.0.2.1
there() { nsenter --net --target $other "$@"; }
cd /tmp
"""
# Nothing is configured; a server starts, is fetched from there, and says whose the connections were.
SERVES = WIRE + r"""
%s nginx -g 'daemon off;' & server=$!
for i in $(seq 100); do
  there curl -sf http://192.0.2.2/ | grep -q 'Welcome to nginx' || true
  for worker in $(pgrep -P $server); do mtcp-stat -c $worker 2>/dev/null | grep -q passive_opens && break 2; done
  sleep 0.1
done
mtcp-stat
there curl -s -o /dev/null -w '%%{http_code}
' http://192.0.2.2/
kill $server; wait $server || true
kill $other
"""
# Talks to itself over an address that only the stack has, and asks mtcp-stat about itself.
PROGRAM = r"""
import os, socket, subprocess, threading
s = socket.create_server(("10.9.2.1", 7000))
threading.Thread(target=lambda: s.accept()[0].sendall(b"hello"), daemon=True).start()
print(socket.create_connection(("10.9.2.1", 7000)).recv(5).decode(), flush=True)
env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "MTCP_CONF")}
print(subprocess.run(["mtcp-stat", str(os.getpid())], env=env, stdout=subprocess.PIPE, text=True).stdout)
"""
results = []


def check(what, right, detail=""):
    results.append(bool(right))
    if not right:
        print(f"not ok: {what}: {str(detail)[-1500:]}", flush=True)


def run(*words, env=None, ok=True):
    done = subprocess.run([str(w) for w in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=300, check=False, env={**os.environ, **(env or {})})
    if ok:
        check(" ".join(map(str, words))[:200], done.returncode == 0, f"status {done.returncode}: {done.stdout} {done.stderr}")
    return done


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir() or p.is_symlink())


def copy_of_system(folder):
    """Everything as here, and what is changed lies in `folder`/upper. Leaves this process in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 or libc.mount(b"none", b"/", None, MS_PRIVATE | MS_REC, None) != 0:
        print("no namespace of its own is allowed here: skipped")
        sys.exit(77)
    run("mount", "-t", "tmpfs", "tmpfs", folder)
    for name in ("upper", "work", "merged"):
        (folder / name).mkdir()
    options = f"lowerdir=/,upperdir={folder}/upper,workdir={folder}/work"
    if run("mount", "-t", "overlay", "overlay", "-o", options, folder / "merged", ok=False).returncode != 0:
        print("no overlay can be mounted here: skipped")
        sys.exit(77)
    for name in ("proc", "sys", "dev", "tmp"):
        run("mount", "--rbind", f"/{name}", folder / "merged" / name)
    # Where /run is part of the root, what runs beside changes it under the overlay, which may not be.
    run("mount", "-t", "tmpfs", "tmpfs", folder / "merged/run")
    run("ip", "link", "set", "lo", "up")


def use():
    """Inside, as typed by its user."""
    samples = pathlib.Path("/etc/mtcp/samples")
    check("the configuration", 'port = "auto"' in pathlib.Path("/etc/mtcp/mtcp.toml").read_text())
    env = {"LD_PRELOAD": "libmtcp_shim.so", "MTCP_CONF": str(samples / "loopback.toml")}
    done = run("/usr/bin/python3", "-c", PROGRAM, env=env)
    check("the bare name", "hello" in done.stdout and "segments_sent" in done.stdout and not done.stderr, done.stdout + done.stderr)
    done = run("mtcp-run", "-c", samples / "loopback.toml", "/usr/bin/python3", "-c", PROGRAM)
    check("mtcp-run", "hello" in done.stdout and "segments_sent" in done.stdout, done.stdout + done.stderr)
    for how in ("LD_PRELOAD=libmtcp_shim.so", "mtcp-run"):
        done = run("unshare", "--net", "--mount", "bash", "-c", SERVES % how)
        check(f"{how} nginx", done.stdout.endswith("200\n") and "iface=card,share=kernel" in done.stdout and "mtcp[" not in done.stderr, done.stdout + done.stderr)
    for sample in sorted(samples.glob("*.toml")):
        done = run("mtcp-run", "-n", "-c", sample, "/bin/true", ok=False)
        check(f"the sample {sample.name}", done.returncode in (0, 69) or sample.name == "mtcp.toml", done.stderr)
    for words in (("mtcp-run", "-V"), ("mtcp-stat", "--version")):
        said = run(*words).stdout
        check(words, re.match(r"(mtcp )?[0-9]+\.[0-9]+\.[0-9]+ \(buildtype=release b_ndebug=\S+ b_lto=\S+, DPDK [0-9.]+, \S+ [0-9.]+\)", said), said)
    check("mtcp-ab", "usage: mtcp-ab" in run("mtcp-ab", "--help").stdout)
    check("mtcp-dump", "libpcap" in run("mtcp-dump", "--version").stdout)
    brought = {p.name for p in pathlib.Path("/usr/lib").glob("*/mtcp/*")}
    check("what mtcp-ab brings along", {"libmtcp_busy_poll.so", "open_load", "echo_server", "sockmap_loader", "sockmap.bpf.o"} <= brought, brought)
    for page in ("man1/mtcp-ab.1", "man1/mtcp-dump.1", "man1/mtcp-run.1", "man1/mtcp-stat.1", "man5/mtcp.toml.5", "man8/mtcp-open.8"):
        text = run("zcat", f"/usr/share/man/{page}.gz").stdout
        check(page, text.startswith(".") and len(text) > 1000, text)
    for name in ("mtcp-ab", "mtcp-dump", "mtcp-open", "mtcp-run", "mtcp-stat"):
        script = f". /usr/share/bash-completion/completions/{name}; COMP_WORDS=({name} -); COMP_CWORD=1; $(complete -p {name} | grep -o '_mtcp[a-z_]*'); echo ${{COMPREPLY[*]}}"
        done = run("bash", "-c", script)
        check(f"completion of {name}", len([w for w in done.stdout.split() if w.startswith("-")]) > 2, done.stdout + done.stderr)
    check("mtcp-open", "usage: mtcp-open" in run("mtcp-open", "--help", ok=False).stderr)
    check("only root's files", all(p.stat().st_uid == 0 for p in samples.rglob("*")))


def main():
    set_surroundings()
    root, build = (pathlib.Path(word).resolve() for word in sys.argv[1:3])
    if os.geteuid() != 0:
        print("needs root: skipped")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        # What meson installs it takes away again.
        package = sys.argv[3] if len(sys.argv) > 3 else run(root / "scripts/package", "-b", build, "-o", temporary).stdout.split()[-1]
        there = temporary / "destination"
        run("meson", "install", "-C", build, "--no-rebuild", env={"DESTDIR": str(there)})
        check("it installs", len(files(there)) > 15, files(there))
        run("ninja", "-C", build, "uninstall")
        check("uninstall leaves nothing", not there.exists() or not list(there.rglob("*")), list(there.rglob("*")) if there.exists() else "")

        world = temporary / "world"
        world.mkdir()
        child = os.fork()
        if child == 0:
            copy_of_system(world)
            before = files(world / "upper")
            inside = world / "merged"
            run("cp", package, inside / "root/mtcp.deb")
            run("chroot", inside, "dpkg", "-i", "/root/mtcp.deb")
            inner = os.fork()
            if inner == 0:
                results.clear()
                os.chroot(inside)
                os.chdir("/")
                use()
                print(f"{sum(results)} right in the installed system", flush=True)
                os._exit(not all(results))
            check("used", os.waitpid(inner, 0)[1] == 0)
            (inside / "run/mtcp-open").mkdir(exist_ok=True)
            (inside / "run/mtcp-open/card.sock").touch()  # of an mtcp-open that was killed
            run("chroot", inside, "dpkg", "--purge", "mtcp")
            (inside / "root/mtcp.deb").unlink()
            own = ("var/lib/dpkg", "var/log", "var/cache", "etc/ld.so.cache", "usr/lib/python3", "root/")
            left = [f for f in files(world / "upper") if f not in before and not f.startswith(own) and (inside / f).exists()]  # else it is a whiteout: removed
            left += [str(p) for p in (inside / "etc/mtcp", inside / "usr/share/doc/mtcp", *(inside / "run").glob("mtcp*")) if p.exists()]
            check("purge leaves nothing", not left, left)
            os._exit(not all(results))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 77:
            return 77
        check("installed, used and purged", status == 0, f"status {status}")
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed")
    return not all(results)


if __name__ == "__main__":
    sys.exit(main())
