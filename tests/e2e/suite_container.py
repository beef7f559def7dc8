"""The recipes of scripts/OPERATING.md: a container as Docker makes one, with its namespaces, mounts and capabilities, and units of systemd."""

import os
import shutil
import signal
from pathlib import Path

from harness import command, expect, expect_equal, kill, wait_until
from nginx import Nginx
from registry import test
from suite_join import descendants, expect_nothing_left, start_opener
from suite_share import refused
from suite_wire import counters_of
from web import expect_files, get_status

# Docker's, without an option.
CAPABILITIES = ("chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod audit_write setfcap").split()

# As Docker mounts them. $KEEP: what of /run the container gets as a volume; the test's files are another.
MOUNTS = """set -e
mkdir -p "$KEEP"
mount --bind "$KEEP" /mnt
mount -t tmpfs tmpfs /run
mkdir -p "$KEEP"
mount --move /mnt "$KEEP"
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /sys
mount -t tmpfs -o mode=755 tmpfs /mnt
for name in null zero full random urandom tty; do
  touch /mnt/$name
  mount --bind /dev/$name /mnt/$name
done
mkdir /mnt/shm
mount --bind /dev/shm /mnt/shm
ln -s /proc/self/fd /mnt/fd
mount --rbind /mnt /dev
exec setpriv --bounding-set="-all$CAPS" --inh-caps=-all "$@"
"""


class Container:
    """nginx with two workers in one, which it is the init process of."""

    def __init__(self, side, capabilities=(), keep="/run/nothing"):
        self.nginx = Nginx(side, workers=2)
        caps = "".join(f",+{name}" for name in (*CAPABILITIES, *capabilities))
        inside = ("unshare", "--mount", "--pid", "--fork", "--ipc", "--uts", "--cgroup", "--propagation", "private", "sh", "-c", MOUNTS, "sh")
        self.program = side.start(*inside, *self.nginx.words(), env={"CAPS": caps, "KEEP": keep})
        wait_until(lambda: len(self.pids()) == 3 or not self.program.running(), 15, "two workers")
        expect(self.program.running(), f"it ended: {self.said()}")

    def pids(self):
        """nginx's, as the host has them: the master's first."""
        return descendants(self.program.pid)

    def said(self):
        return self.program.output() + self.nginx.log()

    def stack_opens(self):
        return sum(counters_of(pid, check=False).get("passive_opens", 0) for pid in self.pids()[1:])

    def expect_served(self, client):
        """On the stack, and again after a reload."""
        url = self.nginx.url
        wait_until(lambda: get_status(client, f"{url}/hello", 3)[1] == "200" and self.stack_opens() > 0, 30, f"an answer of the stack's: {self.said()}")
        expect_files(client, url, ["empty", "k64", "m1"])
        old = self.pids()
        kill(old[0], signal.SIGHUP)
        wait_until(lambda: len(self.pids()) == 3 and not set(old[1:]) & set(self.pids()), 15, "new workers")
        wait_until(lambda: get_status(client, f"{url}/hello", 3)[1] == "200" and self.stack_opens() > 0, 30, "an answer of the new workers' stacks")

    def stop(self, client):
        kill(self.pids()[0], signal.SIGQUIT)
        expect_equal("the status of the container", self.program.wait(15), 0)
        wait_until(lambda: refused(client, f"{self.nginx.url}/hello"), 5, "the refusal of what has ended")


def host(context):
    """(server, client) whose route is to be found, as in a container of Docker's."""
    server, client = context.veth(driver="af_xdp", share=True)
    server.namespace.run("ip", "route", "add", "default", "via", client.address)
    server.config = context.write_config("auto", None)
    return server, client


@test("container-with-its-own-interface", shim_only=True)
def own_interface(context):
    """--cap-add NET_RAW --cap-add NET_ADMIN --cap-add BPF; without the last, nginx runs on the kernel and says what it lacks."""
    server, client = host(context)
    container = Container(server, ("net_admin", "bpf"))
    container.expect_served(client)
    expect("mtcp[" not in container.said(), f"it said: {container.said()}")
    container.stop(client)
    expect_nothing_left(server)
    container = Container(server, ("net_admin",))
    wait_until(lambda: get_status(client, f"{container.nginx.url}/hello", 3)[1] == "200", 10, "an answer")
    for words in ("no permission", "bpf", "This program runs on the kernel"):
        expect(words in container.said(), f"it said: {container.said()}")
    container.stop(client)


@test("container-on-the-hosts-interface", shim_only=True)
def hosts_interface(context):
    """--network host --volume /run/mtcp-open:/run/mtcp-open, and no further capability; mtcp-open lets its root in."""
    server, client = host(context)
    opener = start_opener(context, server, "-m", "0666", "-u", "root")
    container = Container(server, keep="/run/mtcp-open")
    container.expect_served(client)
    expect("mtcp[" not in container.said(), f"it said: {container.said()}")
    container.stop(client)
    kill(opener.pid, signal.SIGTERM)
    expect_equal("the status of mtcp-open", opener.wait(5), 0)
    expect_nothing_left(server)


def verify(directory, *units):
    """What systemd finds wrong in units, which it reads with their drop-ins."""
    done = command("systemd-analyze", "verify", *(directory / name for name in units), check=False, timeout=60,
                   env={"SYSTEMD_UNIT_PATH": f"{directory}:"})
    return done.returncode, done.stderr.strip()


@test("container-units-of-systemd", shim_only=True)
def units(context):
    """The drop-in and the unit of mtcp-open are what systemd takes, every line of them."""
    expect(shutil.which("systemd-analyze"), "there is no systemd-analyze: apt install systemd")
    install = Path(__file__).resolve().parents[2] / "scripts/install"
    directory = context.directory / "units"
    drop_in = directory / "nginx.service.d/mtcp.conf"
    drop_in.parent.mkdir(parents=True)
    (directory / "nginx.service").write_text('[Unit]\nDescription=nginx\n[Service]\nExecStart=/usr/sbin/nginx -g "daemon off;"\n')
    lines = (install / "nginx.service.conf").read_text()
    # With what it has in comments, as a user may want it.
    drop_in.write_text(lines + "".join(f"{line[1:]}\n" for line in lines.splitlines() if line.startswith("#") and "=" in line.split()[0]).replace("MemoryMax=", "MemoryMax=1G"))
    unit = (install / "mtcp-open.service").read_text()
    (directory / "mtcp-open.service").write_text(unit.replace("/usr/bin/mtcp-open", os.fspath(context.build / "preload/mtcp-open")))
    expect_equal("what systemd says", verify(directory, "nginx.service", "mtcp-open.service"), (0, ""))
    drop_in.write_text(lines + "Environmen=x\n")
    expect("Unknown key 'Environmen'" in verify(directory, "nginx.service")[1], "the drop-in was not read")
