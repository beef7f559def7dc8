"""Debian's nginx, unmodified, with a prefix and a configuration of the test's own."""

import signal
from pathlib import Path

from harness import Failure, children, expect, kill, wait_until

TEMPLATE = """{load}daemon {daemon};
master_process {master};
user www-data;
worker_processes {workers};
pid {prefix}/nginx.pid;
error_log {prefix}/error.log info;
events {{ worker_connections 4096; multi_accept {multi_accept}; accept_mutex {accept_mutex}; }}
http {{
  access_log off;
  default_type application/octet-stream;
  client_body_temp_path {prefix}/body;
  proxy_temp_path {prefix}/proxy;
  fastcgi_temp_path {prefix}/fastcgi;
  uwsgi_temp_path {prefix}/uwsgi;
  scgi_temp_path {prefix}/scgi;
  client_max_body_size 0;
  sendfile {sendfile};
  tcp_nopush {tcp_nopush};
  tcp_nodelay {tcp_nodelay};
  keepalive_timeout {keepalive};
  keepalive_requests 1000000;
  {http}
  server {{
    listen {listen} backlog=4096 {listen_options};
    root {root};
    location = /hello {{ return 200 "{greeting}\\n"; }}
    location /put/ {{ root {prefix}; dav_methods PUT; create_full_put_path on; }}
    {server}
  }}
}}
"""

DEFAULTS = {"daemon": "off", "master": "on", "workers": 1, "multi_accept": "off", "accept_mutex": "off", "sendfile": "on", "tcp_nopush": "on", "tcp_nodelay": "on",
            "keepalive": "65", "listen_options": "", "greeting": "hello", "http": "", "server": "", "load": "", "port": 8080, "program": "nginx"}


class Nginx:
    """A server on one side of the wire; started and ready after start()."""

    def __init__(self, side, **options):
        self.side = side
        self.options = {**DEFAULTS, **options}
        self.prefix = side.context.new_file("nginx")
        self.prefix.mkdir(mode=0o755)
        (self.prefix / "put").mkdir(mode=0o777)
        (self.prefix / "put").chmod(0o777)
        self.program = None
        self.write_config()

    @property
    def port(self):
        return self.options["port"]

    @property
    def url(self):
        return f"http://{self.side.address}:{self.port}"

    def write_config(self, **changes):
        self.options.update(changes)
        listen = self.options.get("listen") or f"{self.side.address}:{self.port}"
        text = TEMPLATE.format(**{**self.options, "listen": listen, "prefix": self.prefix, "root": self.side.context.files.root})
        (self.prefix / "nginx.conf").write_text(text)

    def words(self, *more):
        return [self.options["program"], "-p", self.prefix, "-c", self.prefix / "nginx.conf", "-e", self.prefix / "error.log", *more]

    def start(self):
        log = self.prefix / "stdio.log"
        if self.options["daemon"] == "on":
            done = self.side.start(*self.words(), log=log)
            status = done.wait(20)
            expect(status == 0, f"nginx ended with status {status}: {done.output()[-600:]}")
        else:
            self.program = self.side.start(*self.words(), log=log)
        wait_until(self.ready, 20, "the start of nginx")
        return self

    def ready(self):
        if self.program is not None and not self.program.running():
            raise Failure(f"nginx ended with status {self.program.child.returncode}: {self.log()[-800:]}")
        if self.options["master"] == "on":
            return self.pid() and self.workers()
        return self.pid()

    def pid(self):
        """The master's pid, or None before it has written it."""
        try:
            return int((self.prefix / "nginx.pid").read_text())
        except (OSError, ValueError):
            return None

    def workers(self):
        """Those that live: one that has ended is the master's child until it looks, which may be a moment after wait_gone()."""
        return [pid for pid in children(self.pid()) if not zombie(pid)]

    def serving_pids(self):
        return self.workers() if self.options["master"] == "on" else [self.pid()]

    def all_pids(self):
        return [self.pid(), *self.workers()]

    def command(self, word):
        """nginx -s WORD, as an administrator would: with the same environment."""
        self.side.run(*self.words("-s", word))

    def wait_gone(self, pids, seconds=15):
        wait_until(lambda: all(not Path(f"/proc/{pid}").exists() or zombie(pid) for pid in pids), seconds, f"the end of nginx {pids}")

    def log(self):
        text = ""
        for name in ("error.log", "stdio.log"):
            try:
                text += (self.prefix / name).read_text(errors="replace")
            except OSError:
                pass
        return text

    def expect_clean_log(self):
        bad = [line for line in self.log().splitlines()
               if any(word in line for word in ("[alert]", "[emerg]", "[crit]", "exited on signal", "Segmentation", "core dumped"))]
        expect(not bad, f"nginx complains: {bad[:3]}")

    def stop(self, how="quit"):
        """Ends it as `how` says and checks that it is gone and was content."""
        pids = self.all_pids()
        self.command(how)
        self.wait_gone(pids)
        if self.program is not None:
            status = self.program.wait(10)
            expect(status == 0, f"nginx ended with status {status} after -s {how}: {self.log()[-500:]}")
        self.expect_clean_log()

    def kill(self):
        """As if the machine had lost it: every process at once. Returns when all have ended: until then their listeners are open."""
        self.stop_forking()
        pids = self.all_pids()
        for pid in pids:
            kill(pid, signal.SIGKILL)
        if self.program is not None:
            self.program.child.wait()
        self.wait_gone(pids)

    def stop_forking(self):
        """Stops the master, so that the list of its workers stays true."""
        kill(self.pid(), signal.SIGSTOP)
        wait_until(lambda: state(self.pid()) in "TZ", 5, "the stop of nginx's master")


def zombie(pid):
    """It has ended, with all its threads: while one of them is still on its way out, sockets are open."""
    try:
        return state(pid) == "Z" and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1
    except OSError:
        return True


def state(pid):
    """The letter that /proc has for it (proc(5)); Z as well when it is no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
