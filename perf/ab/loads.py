"""What is measured: nginx under wrk, and the message benchmark. One call of measure() is one sample of one row."""

import hashlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field

from side import Side
from system import BenchmarkError, Process

NGINX_CONFIG = """worker_processes {workers};
daemon off;
pid {directory}/nginx.pid;
error_log stderr warn;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
  open_file_cache max=100 inactive=60s;
  default_type application/octet-stream;
  client_body_temp_path {directory}/tmp; proxy_temp_path {directory}/tmp; fastcgi_temp_path {directory}/tmp;
  uwsgi_temp_path {directory}/tmp; scgi_temp_path {directory}/tmp;
  server {{ listen {address}:8080 backlog=16384{listen}; root {directory}/files; }}
}}
"""

# Exact numbers instead of the rounded ones that wrk prints. Not called while it measures.
WRK_SCRIPT = """done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nRESULT {"requests": %d, "bytes": %d, "seconds": %.6f, "p50_us": %.1f, "p99_us": %.1f, ' ..
    '"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}\\n', summary.requests, summary.bytes,
    summary.duration / 1e6, latency:percentile(50), latency:percentile(99), e.connect, e.read, e.write, e.timeout, e.status))
end
"""


@dataclass
class Sample:
    """One measurement. A sample with errors says nothing about speed: it voids its row."""

    rate: float = 0.0            # requests or connections per second
    bytes_per_second: float = 0.0
    p50_us: float = 0.0
    p99_us: float = 0.0
    server_cpu: float = 0.0      # cores
    client_cpu: float = 0.0
    errors: list = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """What is done over and over."""

    key: str
    title: str
    kind: str                    # http | message | wire (one download over a bad wire) | share (two at once, share of each)
    concurrency: int
    size: int = 64               # bytes of the file
    close: bool = True           # one connection per request
    faults: tuple = ()           # of the bad wire: options of tests/bad_wire
    control: str = "cubic"       # over a bad wire: the congestion control of both sides

    @property
    def on_bad_wire(self):
        return self.kind in ("wire", "share")

    def serves(self, side):
        """Whether there is such a row of this side: a bad wire has the kernel at the client's end."""
        return not self.on_bad_wire or side in ("kernel", "veth")


def all_rows():
    rows = []
    for size, name, concurrency in ((64, "64 B", 64), (8192, "8 KB", 64), (1 << 20, "1 MB", 16)):
        short = name.replace(" ", "").lower()
        rows.append(Row(f"{short}-keep", f"nginx {name}, keep-alive", "http", concurrency, size, False))
        rows.append(Row(f"{short}-close", f"nginx {name}, connection per request", "http", concurrency, size, True))
    for concurrency in (64, 1024, 8000):
        rows.append(Row(f"message-{concurrency}", f"message, {concurrency:,} concurrent", "message", concurrency))
    return rows + [Row(f"loss-{key}", title, kind, 1, faults=faults, control="bbr" if key.startswith("bbr-") else "cubic")
                   for key, title, kind, faults in BAD_WIRES]


# Delays are one way: half of the round trip.
BAD_WIRES = (
    ("1-20", "1 % loss, 20 ms", "wire", ("loss=1%", "delay=10ms")),
    ("3-1", "3 % loss, 1 ms", "wire", ("loss=3%", "delay=500us")),
    ("reorder", "5 % reordered, 20 ms", "wire", ("reorder=5%", "delay=10ms")),
    ("queue", "100 Mbit/s, 50 ms, queue of 200", "wire", ("rate=100M", "queue=200", "delay=25ms")),
    ("200m", "200 Mbit/s, 50 ms, 0.1 % loss", "wire", ("rate=200M", "queue=1000", "delay=25ms", "loss=0.1%")),
    ("bbr-1-20", "100 Mbit/s, 1 % loss, 20 ms, BBR", "wire", ("rate=100M", "queue=400", "delay=10ms", "loss=1%")),
    ("bbr-share", "part of 100 Mbit/s beside a kernel flow, 20 ms, BBR", "share", ("rate=100M", "queue=400", "delay=10ms")),
    ("share", "part of 100 Mbit/s beside a kernel flow, 20 ms", "share", ("rate=100M", "queue=200", "delay=10ms")),
)


QUICK_ROWS = ("64b-keep", "64b-close", "1mb-keep", "message-64", "message-1024", "message-8000")


class Bench:
    """Files, programs and the clean-up that all measurements share."""

    def __init__(self, directory, build, cleanup):
        self.directory = directory
        self.build = build
        self.cleanup = cleanup
        self.runs = 0
        self.bad_wire = None  # bad_wire.BadWire, if a row wants it
        (directory / "files").mkdir()
        (directory / "tmp").mkdir(mode=0o777)
        (directory / "report.lua").write_text(WRK_SCRIPT)
        self.digests = {}
        for size in {row.size for row in all_rows() if row.kind == "http"}:
            self.add_file(size)

    def add_file(self, size):
        content = os.urandom(size)
        (self.directory / "files" / str(size)).write_bytes(content)
        self.digests[size] = hashlib.sha256(content).hexdigest()

    def start_server(self, row, side, wrap=()):
        """`wrap`: words between the side's and the program (a profiler)."""
        self.runs += 1
        log = self.directory / f"server-{self.runs}.log"
        if row.kind == "message":
            words = [self.build / "perf/msg_server", side.address, "9000"]
        else:
            config = self.directory / f"nginx-{side.name}.conf"
            config.write_text(NGINX_CONFIG.format(directory=self.directory, address=side.address, workers=Side.workers,
                                                  listen=" reuseport" if Side.workers > 1 else ""))
            words = ["nginx", "-p", self.directory, "-e", "stderr", "-c", config]
        return Process([*side.server_words(), *wrap, *words], self.cleanup, log)

    def client_words(self, row, side, seconds):
        if row.kind == "message":
            return [self.build / "perf/msg_client", side.address, "9000", row.concurrency, seconds]
        header = ["-H", "Connection: close"] if row.close else []
        return ["wrk", "-t1", f"-c{row.concurrency // Side.workers}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s",
                self.directory / "report.lua", *header, self.url(row, side)]

    def url(self, row, side):
        return f"http://{side.address}:8080/{row.size}"

    def check_content(self, row, side):
        """Gets the file once and compares. Also waits for the server and the wire to be up."""
        words = [*side.client_words(), "curl", "-sS", "--max-time", "5", "-o", "-", self.url(row, side)]
        give_up = time.monotonic() + 8
        while True:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
            if done.returncode == 0:
                if hashlib.sha256(done.stdout).hexdigest() == self.digests[row.size]:
                    return None
                return f"wrong content: {len(done.stdout)} bytes of {row.size}"
            if time.monotonic() > give_up:
                return f"curl: {done.stderr.decode(errors='replace').strip()[-200:] or done.returncode}"
            time.sleep(0.05)

    def measure(self, row, side, seconds, wrap_server=(), wrap_client=()):
        """Starts a server, loads it for so many seconds, stops it."""
        if row.on_bad_wire:
            sample = Sample()
            self.bad_wire.measure(self, row, side.name, seconds, sample)
            return sample
        server = self.start_server(row, side, wrap_server)
        sample = Sample()
        try:
            if row.kind == "http" and (problem := self.check_content(row, side)):
                sample.errors.append(problem)
            else:
                self.load(row, side, seconds, server, sample, wrap_client)
            if not server.running():
                sample.errors.append(f"server ended by itself: status {server.child.returncode}")
        finally:
            status = server.stop(signal.SIGTERM)
        if status is None and not wrap_server:
            sample.errors.append("server did not stop when asked")
        elif status not in (0, None) and not sample.errors and not wrap_server:
            sample.errors.append(f"server stopped with status {status}")
        if sample.errors:
            sample.errors += [f"server: {line}" for line in server.output().splitlines()[-3:]]
        return sample

    def load(self, row, side, seconds, server, sample, wrap_client=()):
        logs = [self.directory / f"client-{self.runs}-{i}.log" for i in range(Side.workers)]
        words = [*side.client_words(), *wrap_client, *self.client_words(row, side, seconds)]
        before, started = server.cpu_seconds(), time.monotonic()
        clients = [start_client(words, log, self.cleanup) for log in logs]
        used = [wait_for(client, started + seconds + 30) for client in clients]
        elapsed = time.monotonic() - started
        sample.server_cpu = (server.cpu_seconds() - before) / elapsed
        sample.client_cpu = sum(used) / elapsed
        for client, log in zip(clients, logs):
            text = log.read_text(errors="replace")
            if client.returncode != 0:
                sample.errors.append(f"client: status {client.returncode}: {text.strip()[-300:]}")
            else:
                (read_message if row.kind == "message" else read_wrk)(row, text, sample)


def start_client(words, log, cleanup):
    """For wait_for()."""
    with open(log, "wb") as output:
        client = subprocess.Popen([str(w) for w in words], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    cleanup.add(kill_quietly, client)
    return client


def wait_for(client, deadline):
    """Waits until it ends, or kills it. Returns the processor time that it has used, in seconds."""
    while (pid_status := os.wait4(client.pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            client.kill()
        time.sleep(0.01)
    _, status, usage = pid_status
    client.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def kill_quietly(client):
    if client.returncode is None:
        client.kill()
        client.wait()


def read_wrk(row, text, sample):
    line = next((line for line in text.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise BenchmarkError(f"wrk printed no result:\n{text}")
    result = json.loads(line.removeprefix("RESULT "))
    # Of several clients: the sum of what they got, the longest that they waited.
    sample.rate += result["requests"] / result["seconds"]
    sample.bytes_per_second += result["bytes"] / result["seconds"]
    sample.p50_us, sample.p99_us = max(sample.p50_us, result["p50_us"]), max(sample.p99_us, result["p99_us"])
    sample.errors += [f"{result[what]} {what} errors" for what in ("connect", "read", "write", "timeout", "status") if result[what]]
    # A response is the file and a header of some 250 bytes; what is under way at the end comes on top.
    least, most = result["requests"] * row.size, (result["requests"] + row.concurrency) * (row.size + 400)
    if result["requests"] == 0:
        sample.errors.append("no request was answered")
    elif not least <= result["bytes"] <= most:
        sample.errors.append(f"{result['bytes']} bytes for {result['requests']} requests of {row.size}")


def read_message(_row, text, sample):
    line = next((line for line in reversed(text.splitlines()) if line.startswith("{")), None)
    if line is None:
        raise BenchmarkError(f"msg_client printed no result:\n{text}")
    result = json.loads(line)
    sample.rate = result["per_second"]
    sample.bytes_per_second = result["per_second"] * 128
    sample.p50_us, sample.p99_us = result["p50_us"], result["p99_us"]
    sample.errors += [f"{result[what]} {what.replace('_', ' ')}" for what in
                      ("connect_errors", "io_errors", "wrong_bytes", "closed_early", "unfinished") if result[what]]
    if result["connections"] == 0:
        sample.errors.append("no connection was finished")
