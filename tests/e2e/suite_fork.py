"""Servers that accept in one process and serve in another: relayed connections."""

import hashlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

from harness import children, command, cpu_share, descriptors, expect, expect_equal, wait_until
from registry import test

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
POSTGRES = Path("/usr/lib/postgresql/15/bin")


def counted(pid, counter):
    out = command(PYTHON, HERE.parent.parent / "scripts/mtcp-stat", "--counters", "--zeros", pid).stdout
    return next(int(word) for line in out.splitlines() if counter in line for word in line.split() if word.isdigit())


def relayed_by(server, pid):
    """How many connections the stack of process `pid` has relayed so far: each that a child has used, once, also if it has gone on to the
    child's own stack since."""
    return counted(pid, "relayed_connections") if server.on_stack else 0


def expect_relayed(server, pid, at_least, before=0):
    """The stack of process `pid` has carried the connections, through relays."""
    if server.on_stack:
        relayed = relayed_by(server, pid) - before
        expect(relayed >= at_least, f"{relayed} connections were relayed, expected {at_least} at least")


def migrated_from(server, pid):
    """How many connections that process `pid` had accepted have gone on to stacks of its children so far."""
    return counted(pid, "connections_handed_over") if server.on_stack else 0


def expect_migrated(server, pid, at_least, at_most, before=0):
    """So many have since."""
    if server.on_stack:
        migrated = migrated_from(server, pid) - before
        expect(at_least <= migrated <= at_most, f"{migrated} connections went to children, expected {at_least} to {at_most}")


def start_forking(server, port="7001"):
    program = server.start(PYTHON, "-u", HERE / "forking_server.py", server.address, port)
    program.says("ready")
    return program


@test("fork-python-socketserver")
def forking_server(context):
    server, client = context.veth()
    program = start_forking(server)
    out = client.run(PYTHON, HERE / "forking_client.py", server.address, "7001", "8", "3", timeout=60).stdout
    expect_equal("what the clients say", out.strip(), "good 24")
    wait_until(lambda: not children(program.pid), 5, "the end of the children")
    # With nobody connected the relays are gone, and nothing turns in circles.
    used = cpu_share([program.pid], 2)
    expect(used < 0.05, f"the server uses {used:.1%} of a core while idle")
    open_now = descriptors(program.pid)
    out = client.run(PYTHON, HERE / "forking_client.py", server.address, "7001", "4", "2", timeout=60).stdout
    expect_equal("what the clients say", out.strip(), "good 8")
    wait_until(lambda: descriptors(program.pid) <= open_now, 5, "closing what the relays had open")
    expect_relayed(server, program.pid, 32)
    program.signal(signal.SIGTERM)
    program.wait()


@test("fork-a-lasting-connection-goes-to-the-child")
def lasting_connection(context):
    server, client = context.veth()
    program = start_forking(server)
    # Lines of all sizes, and then all that the others do: the child's own program, a MiB, a half close.
    out = client.run(PYTHON, HERE / "forking_client.py", server.address, "7001", "6", "2", "300", timeout=60).stdout
    expect_equal("what the clients say", out.strip(), "good 12")
    expect_migrated(server, program.pid, 12, 12)
    # A child that is killed takes its connection along, and nothing else; nor does the parent's end.
    holders = [client.start(PYTHON, "-u", HERE / "forking_client.py", server.address, "7001", "1", "1", "300", "wait") for _ in range(3)]
    for holder in holders:
        holder.says("lasting")
    os.kill(children(program.pid)[0], signal.SIGKILL)
    wait_until(lambda: len(children(program.pid)) == 2, 5, "the end of a child")
    program.signal(signal.SIGKILL)
    for holder in holders:
        holder.signal(signal.SIGUSR1)
    ends = sorted(holder.wait(20) for holder in holders)
    expect_equal("how the clients end", ends, [0, 0, 1])


@test("fork-an-idle-relay-sleeps")
def idle_relay(context):
    server, client = context.veth()
    program = start_forking(server)
    holder = client.start(PYTHON, "-u", HERE / "peer.py", "hold", server.address, "7001", "5")
    holder.says("holding")
    wait_until(lambda: len(children(program.pid)) == 5, 5, "five children")
    time.sleep(1)
    used = cpu_share([program.pid], 3)
    expect(used < 0.05, f"the server uses {used:.1%} of a core with five idle relays")


@test("fork-socat-and-exec")
def socat_exec(context):
    server, client = context.veth()
    block = random.Random(7).randbytes(1 << 20)
    path = context.new_file("block")
    path.write_bytes(block)
    # Through a program that has the connection as its standard streams, and through one that copies.
    for port, program in (("7002", "EXEC:/bin/cat,nofork"), ("7003", "EXEC:/bin/cat")):
        socat = server.start("socat", f"TCP-LISTEN:{port},bind={server.address},reuseaddr,fork", program)
        wait_until(lambda port=port: client.run("socat", "-u", "/dev/null", f"TCP:{server.address}:{port},connect-timeout=1", check=False).returncode == 0,
                   5, "socat's listening")
        for _ in range(3):
            out = context.new_file("out")
            client.run("sh", "-c", f"socat -t 20 - TCP:{server.address}:{port} < {path} > {out}", timeout=30)
            expect_equal(f"what came back from {port}", hashlib.sha256(out.read_bytes()).hexdigest(), hashlib.sha256(block).hexdigest())
        socat.signal(signal.SIGTERM)  # one program at a time on a device
        socat.wait()


@test("fork-redis-bgsave-under-load")
def redis_bgsave(context):
    server, client = context.veth()
    directory = context.directory / "redis"
    directory.mkdir()
    redis = server.start("redis-server", "--bind", server.address, "--port", "7004", "--dir", directory, "--save", "", "--protected-mode", "no",
                         "--daemonize", "no")
    redis.says("Ready to accept connections")
    cli = ["redis-cli", "-h", server.address, "-p", "7004"]
    client.run(*cli, "DEBUG", "POPULATE", "50000")
    load = client.start("redis-benchmark", "-h", server.address, "-p", "7004", "-t", "set,get", "-n", "60000", "-c", "20", "-q")
    saves = 0
    while load.running():
        answer = client.run(*cli, "BGSAVE", check=False).stdout
        saves += "started" in answer
        time.sleep(0.2)
    expect_equal("redis-benchmark's status", load.wait(), 0)
    expect("GET:" in load.output() and "Error" not in load.output(), f"redis-benchmark says {load.output()[-400:]}")
    expect(saves >= 1, "no BGSAVE ran under the load")
    wait_until(lambda: "rdb_bgsave_in_progress:0" in client.run(*cli, "INFO", "persistence").stdout, 10, "the end of the last save")
    expect("rdb_last_bgsave_status:ok" in client.run(*cli, "INFO", "persistence").stdout, "the save failed")
    redis.signal(signal.SIGTERM)
    expect_equal("redis's status", redis.wait(), 0)


@test("fork-postgresql")
def postgresql(context):
    server, client = context.veth()
    data = context.directory / "pg"
    data.mkdir()
    shutil.chown(data, "postgres")
    command("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", POSTGRES / "initdb", "-D", data, "-A", "trust", "--no-sync",
            "--no-instructions", "-E", "UTF8", "--locale=C", timeout=60)
    with open(data / "pg_hba.conf", "a", encoding="ascii") as f:
        f.write("host all all 0.0.0.0/0 trust\n")
    # The device wants privileges that postgres, which refuses to run as root, can be given like this.
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--inh-caps=+net_raw,+net_admin,+bpf,+perfmon",
            "--ambient-caps=+net_raw,+net_admin,+bpf,+perfmon"]
    postgres = server.start(*user, POSTGRES / "postgres", "-D", data, "-h", server.address, "-p", "7005", "-k", "", "-c", "fsync=off")
    postgres.says("ready to accept connections", 20)
    psql = ["psql", "-h", server.address, "-p", "7005", "-U", "postgres", "-d", "postgres", "-At"]
    expect_equal("an answer", client.run(*psql, "-c", "select inet_server_port(), host(inet_client_addr())").stdout.strip(), f"7005|{client.address}")
    client.run(*psql, "-c", "create table t as select g, md5(g::text) m from generate_series(1, 20000) g")
    out = client.run(*psql, "-c", "select * from t order by g", timeout=30).stdout
    expect_equal("the table's lines", len(out.splitlines()), 20000)
    sessions = [client.start(*psql, "-c", f"select count(*), {i} from t, pg_sleep(0.3)") for i in range(5)]
    for i, session in enumerate(sessions):
        expect_equal("a session's status", session.wait(20), 0)
        expect(f"20000|{i}" in session.output(), f"session {i} says {session.output()!r}")
    bench = ["pgbench", "-h", server.address, "-p", "7005", "-U", "postgres"]
    client.run(*bench, "-i", "-q", "postgres", timeout=30)
    # Those that go on for long are served by stacks of the children; a short connection is not worth one. There are fewer slots than 60
    # children, and the others are relayed as before; but who is done frees his slot for another, so how many go on is a matter of time.
    for words, relayed, migrated in ((["-c", "8", "-t", "400"], 8, (8, 8)), (["-c", "4", "-t", "10", "-C"], 40, (0, 0)), (["-c", "60", "-t", "200"], 60, (8, 60))):
        before = relayed_by(server, postgres.pid), migrated_from(server, postgres.pid)
        out = client.run(*bench, "-S", "-n", *words, "postgres", timeout=120).stdout
        expect("number of failed transactions: 0 (" in out, f"pgbench {words} says {out!r}")
        expect_relayed(server, postgres.pid, relayed, before[0])
        expect_migrated(server, postgres.pid, *migrated, before[1])
    postgres.signal(signal.SIGINT)  # a fast shutdown
    expect_equal("postgres's status", postgres.wait(15), 0)
