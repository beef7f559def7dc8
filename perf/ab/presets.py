"""Loads of well-known servers, ready to be compared. What a server must find (files, a database) is made in the run's directory."""

import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from loads import NGINX_CONFIG
from programs import Load
from system import BenchmarkError

PG_BIN = Path("/usr/lib/postgresql")


def prepare_nginx(directory, side):
    (directory / "files").mkdir(exist_ok=True)
    (directory / "tmp").mkdir(mode=0o777, exist_ok=True)
    (directory / "files/64").write_bytes(b"x" * 64)
    (directory / "nginx.conf").write_text(NGINX_CONFIG.format(directory=directory, address=side.address, workers=1, listen=""))


HAPROXY_CONFIG = """global
  maxconn 4096
  nbthread 1
defaults
  mode http
  timeout client 30s
  timeout connect 5s
  timeout server 30s
frontend fixed
  bind {address}:8080
  http-request return status 200 content-type text/plain string "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"
"""


def prepare_haproxy(directory, side):
    (directory / "haproxy.cfg").write_text(HAPROXY_CONFIG.format(address=side.address))


def as_postgres(*words, **options):
    done = subprocess.run(["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *words], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd="/", **options)
    if done.returncode != 0:
        raise BenchmarkError(f"{words[0]}: {done.stdout.decode(errors='replace').strip()[-300:]}")


def postgres_programs():
    versions = sorted(PG_BIN.glob("*/bin/initdb"))
    if not versions:
        raise BenchmarkError("initdb is not installed: run scripts/setup")
    return versions[-1].parent


def prepare_postgres(directory, side):
    """A cluster with pgbench's tables, made once, through a unix socket."""
    programs, data = postgres_programs(), directory / "postgres"
    if not data.exists():
        data.mkdir()
        shutil.chown(data, "postgres", "postgres")
        as_postgres(programs / "initdb", "-D", data / "db", "-A", "trust", "--no-sync")
        with open(data / "db/pg_hba.conf", "a", encoding="ascii") as rules:
            rules.write("host all all 0.0.0.0/0 trust\n")
        as_postgres(programs / "pg_ctl", "-D", data / "db", "-w", "-l", data / "log", "-o", f"-c listen_addresses= -k {data}", "start")
        try:
            as_postgres(programs / "pgbench", "-i", "-q", "-s", "1", "-h", data, "postgres")
        finally:
            as_postgres(programs / "pg_ctl", "-D", data / "db", "-w", "-m", "fast", "stop")


def presets():
    """By name. What the words need is looked up when one is chosen."""
    pg = str(max(PG_BIN.glob("*/bin"), default=PG_BIN))
    user = "setpriv --reuid=postgres --regid=postgres --init-groups --inh-caps=+net_raw --ambient-caps=+net_raw"
    return {
        "nginx": Load("nginx -p {directory} -e stderr -c {directory}/nginx.conf", "wrk -t1 -c64 -d{seconds}s --timeout 10s --latency http://{address}:8080/64",
                      "wrk", 8080, prepare=prepare_nginx, title="nginx, 64 B, 64 connections kept"),
        "nginx-latency": Load("nginx -p {directory} -e stderr -c {directory}/nginx.conf",
                              "{open_load} --rate {rate} --connections 64 --seconds {seconds} --http /64 {address} 8080",
                              "open_load", 8080, prepare=prepare_nginx, title="nginx, 64 B, 64 connections kept"),
        "echo-latency": Load("{echo_server} {address} 9000", "{open_load} --rate {rate} --connections 64 --seconds {seconds} --echo 64 {address} 9000",
                             "open_load", 9000, title="echoes of 64 B, 64 connections kept"),
        "redis": Load("redis-server --bind {address} --port 6379 --save '' --protected-mode no", "redis-benchmark -h {address} -c 50 -n 200000 -t get --csv",
                      "redis-benchmark", 6379, operations=200000, title="redis, GET, 50 connections"),
        "memcached": Load("memcached -u nobody -l {address} -p 11211 -t 1", "memcaslap -s {address}:11211 -T 1 -c 32 -t {seconds}s",
                          "memcaslap", 11211, title="memcached, one thread, 32 connections"),
        "haproxy": Load("haproxy -db -f {directory}/haproxy.cfg", "wrk -t1 -c64 -d{seconds}s --timeout 10s --latency http://{address}:8080/",
                        "wrk", 8080, prepare=prepare_haproxy, title="haproxy answering by itself, 64 connections kept"),
        "iperf3": Load("iperf3 -s -B {address} -p 5201 --forceflush", "iperf3 -c {address} -p 5201 -t {seconds} -J",
                       "iperf3", 0, settle=0.5, stop=signal.SIGINT, title="iperf3, one stream to the server"),
        "pgbench": Load(f"{user} {pg}/postgres -D {{directory}}/postgres/db -c listen_addresses={{address}} -c unix_socket_directories= -p 5432 -c fsync=off",
                        f"{pg}/pgbench -h {{address}} -p 5432 -U postgres -S -n -c 20 -j 1 -T {{seconds}} postgres", "pgbench", 5432,
                        stop=signal.SIGINT, prepare=prepare_postgres, title="PostgreSQL, pgbench -S, 20 connections"),
    }


def program_of(line):
    """The program of a command line of ours; of anybody else's it is the first word."""
    words = shlex.split(line)
    return next(word for word in words[1:] if not word.startswith("--")) if words[0] == "setpriv" else words[0]


def check(lines):
    """What these command lines run must be there."""
    for line in lines:
        program = program_of(line)
        if not program.startswith("{") and not shutil.which(program):
            raise BenchmarkError(f"{program} is not installed: run scripts/setup")
