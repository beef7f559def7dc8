"""Programs with several threads, as Debian ships them, on the stack: memcached, redis, haproxy, lighttpd, Apache; kernel clients."""

import json
import signal
import sys
from pathlib import Path

from harness import children, command, expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from web import expect_files, expect_wrk, get, small_files

HERE = Path(__file__).resolve().parent
STAT = HERE.parent.parent / "scripts/mtcp-stat"
PYTHON = "/usr/bin/python3"


def use_store(client, protocol, address, port, connections=12, rounds=60):
    done = client.run(PYTHON, HERE / "stores.py", protocol, address, port, connections, rounds, check=False, timeout=60)
    expect(done.returncode == 0, f"{protocol}: {(done.stdout + done.stderr).strip()[-500:]}")
    return done.stdout


def connects(client, program, address, port):
    """Whether a kernel client can connect."""
    script = f"import socket; socket.create_connection(('{address}', {port}), 1).close()"
    expect(program.running(), f"{program.words[0]} ended: {program.output()[-600:]}")
    return client.run(PYTHON, "-c", script, check=False).returncode == 0


def wait_for_port(client, program, address, port):
    wait_until(lambda: connects(client, program, address, port), 15, f"a connection to {program.words[0]}", 0.1)


def stop(program, number=15, status=0):
    program.signal(number)
    expect_equal(f"the status of {program.words[0]}", program.wait(15), status)


@test("memcached-four-threads")
def memcached(context):
    # It gives up root before its first socket, so the configuration must say that it will listen.
    server, client = context.veth(more='[[rule]]\nmatch = { role = "listen", program = "memcached" }\nto = "stack"\n')
    program = server.start("memcached", "-l", server.address, "-p", "11211", "-U", "0", "-t", "4", "-u", "www-data", "-m", "64")
    wait_for_port(client, program, server.address, 11211)
    use_store(client, "memcached", server.address, 11211)
    use_store(client, "memcached", server.address, 11211, connections=40, rounds=10)
    stop(program)


def serve_with_threads(context, how):
    server, client = context.veth()
    program = server.start(context.build / "tests/e2e/thread_server", how, server.address, "7000")
    wait_for_port(client, program, server.address, 7000)
    use_store(client, "echo", server.address, 7000)
    use_store(client, "echo", server.address, 7000, connections=1, rounds=200)
    expect(program.running(), f"the server ended: {program.output()[-600:]}")
    stop(program, signal.SIGKILL, -signal.SIGKILL)


@test("threads-share-a-listener-and-a-set")
def threads_set(context):
    serve_with_threads(context, "set")


@test("threads-answer-for-one-that-waits")
def threads_pool(context):
    serve_with_threads(context, "pool")


@test("threads-read-write-and-close-one-connection")
def threads_split(context):
    serve_with_threads(context, "split")


def start_redis(context, server, client, *more):
    program = server.start("redis-server", "--bind", server.address, "--port", "6379", "--protected-mode", "no", "--save", "", "--appendonly",
                           "no", "--dir", context.directory, "--daemonize", "no", *more)
    wait_for_port(client, program, server.address, 6379)
    return program


def redis_cli(client, address, *words):
    return client.run("redis-cli", "-h", address, *words).stdout.strip()


def expect_benchmark(client, address, *options):
    done = client.run("redis-benchmark", "-h", address, "-q", "-c", "20", *options, timeout=60)
    text = (done.stdout + done.stderr).replace("\r", "\n")
    for bad in ("Error", "error", "reset", "closed"):
        expect(bad not in text, f"redis-benchmark: {text[-300:]}")
    expect("requests per second" in text, f"redis-benchmark: {text[-300:]}")


@test("redis-io-threads")
def redis_threads(context):
    server, client = context.veth()
    program = start_redis(context, server, client, "--io-threads", "2", "--io-threads-do-reads", "yes")
    expect_benchmark(client, server.address, "-n", "1000", "-t", "set,lrange_300")
    expect_benchmark(client, server.address, "-n", "4000", "-t", "set,get", "-P", "16")
    use_store(client, "redis", server.address, 6379)
    redis_cli(client, server.address, "shutdown", "nosave")
    expect_equal("the status of redis", program.wait(15), 0)


@test("redis-bgsave-under-load")
def redis_bgsave(context):
    server, client = context.veth()
    program = start_redis(context, server, client)
    load = client.start(PYTHON, HERE / "stores.py", "redis", server.address, "6379", "8", "200")
    saved = 0
    while load.running():
        redis_cli(client, server.address, "bgsave")
        wait_until(lambda: "rdb_bgsave_in_progress:0" in redis_cli(client, server.address, "info", "persistence"), 15, "the end of BGSAVE", 0.05)
        expect("rdb_last_bgsave_status:ok" in redis_cli(client, server.address, "info", "persistence"), "BGSAVE failed")
        saved += 1
    expect_equal(f"the client's status ({load.output()[-300:]})", load.wait(), 0)
    expect(saved >= 2, f"only {saved} BGSAVE during the load")
    expect((context.directory / "dump.rdb").stat().st_size > 10_000, "dump.rdb is (nearly) empty")
    redis_cli(client, server.address, "shutdown", "nosave")
    expect_equal("the status of redis", program.wait(15), 0)


HAPROXY = """global
  nbthread 2
  maxconn 500
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend web
  bind {address}:8080
  http-request return status 200 content-type text/plain string "hello from haproxy\\n" if {{ path /here }}
  default_backend upstream
backend upstream
  server one {upstream}
"""


def start_haproxy(context, *options, more="", edit=("", ""), sides=None):
    """haproxy in front of an nginx on the kernel. `edit`: what is another text in its configuration. `sides`: server and client."""
    server, client = sides or context.veth(more=more)
    upstream = Nginx(client.kernel_side(), port=9000).start()
    text = HAPROXY.format(address=server.address, upstream=f"{client.address}:9000")
    expect(edit[0] in text, f"the configuration has no {edit[0]!r}")
    configuration = context.new_file("haproxy.cfg")
    configuration.write_text(text.replace(*edit, 1))
    program = server.start("haproxy", *options, "-db", "-f", configuration)
    wait_for_port(client, program, server.address, 8080)
    return server, client, upstream, program, f"http://{server.address}:8080"


@test("haproxy-two-threads")
def haproxy(context):
    server, client, upstream, program, url = start_haproxy(context)
    expect_equal("the answer", get(client, f"{url}/here"), "hello from haproxy\n")
    expect_files(client, url, small_files(client))
    expect_wrk(client, f"{url}/here")
    expect_wrk(client, f"{url}/s64", seconds=3, connections=50)
    expect_wrk(client, f"{url}/s64", more=("-H", "Connection: close"))
    upstream.stop()
    stop(program, 10)


def shares(pid):
    """What each stack of a process has on its device."""
    lines = command(sys.executable, STAT, "-r", pid).stdout.splitlines()
    return [dict(word.split("=") for word in line.split()[1:]) for line in lines if line.startswith("share ")]


@test("haproxy-by-thread")
def haproxy_by_thread(context):
    """Each of its threads has a listener of its own, and so a stack."""
    server, client, upstream, program, url = start_haproxy(context, more="[stack]\nstacks = 2\n", edit=(":8080\n", ":8080 shards by-thread\n"))
    expect_files(client, url, small_files(client))
    expect_wrk(client, f"{url}/s64", connections=50)
    expect_wrk(client, f"{url}/s64", more=("-H", "Connection: close"))
    if server.on_stack:
        expect_equal("stacks of the process", len({share["stack"] for share in shares(program.pid)}), 2)
    upstream.stop()
    stop(program, 10)


@test("threads-with-own-listeners")
def threads_own(context):
    """They come and go with their process, killed or not, and leave nothing behind."""
    server, client = context.veth(more="[stack]\nstacks = 4\n")

    def start():
        program = server.start(context.build / "perf/msg_server", server.address, "9000", "1024", "4")
        wait_for_port(client, program, server.address, 9000)
        return program

    def load(program, stacks):
        done = json.loads(client.run(context.build / "perf/msg_client", server.address, "9000", "32", "1").stdout)
        expect(done["connections"] > 500, f"only {done['connections']} connections")
        for name in ("connect_errors", "io_errors", "wrong_bytes", "closed_early"):
            expect_equal(name, done[name], 0)
        if server.on_stack:
            expect_equal("stacks of the process", sorted(int(share["stack"]) for share in shares(program.pid)), stacks)

    first = start()
    load(first, [0, 1, 2, 3])
    stop(first)
    second = start()
    load(second, [0, 1, 2, 3])
    third = start()  # on the same device
    wait_until(lambda: not server.on_stack or len(shares(third.pid)) == 4, 5, "the stacks of a second server")
    second.kill()
    load(third, [4, 5, 6, 7])  # whatever goes to a stack of the second would not be answered
    stop(third)


def catches(pid, number):
    """Whether the process has a handler for the signal."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return int(line.split()[1], 16) >> (number - 1) & 1
    return False


@test("haproxy-splices")
def haproxy_splices(context):
    """Bodies go from socket to socket through pipes, both ways."""
    _, client, upstream, program, url = start_haproxy(
        context, edit=("defaults\n", "defaults\n  option splice-response\n  option splice-request\n"))
    expect_files(client, url, ["k64", "m1", "m10"])
    expect_wrk(client, f"{url}/m1", at_least=20, seconds=2, connections=8)
    upstream.stop()
    stop(program, 10)


@test("haproxy-master-worker-reload")
def haproxy_reload(context):
    server, client, upstream, program, url = start_haproxy(context, "-W")
    for _ in range(3):
        # While the master starts itself again to watch its worker, it ignores the signal.
        wait_until(lambda: catches(program.pid, signal.SIGUSR2), 10, "the master's handler of SIGUSR2")
        before = children(program.pid)
        program.signal(signal.SIGUSR2)
        wait_until(lambda: set(children(program.pid)) - set(before), 10, "a new worker of haproxy")
        expect_equal("the answer", get(client, f"{url}/here"), "hello from haproxy\n")
        wait_until(lambda: not set(children(program.pid)) & set(before), 15, "the end of the old worker")
        expect_files(client, url, ["k64", "m1"])
    expect_wrk(client, f"{url}/s64")
    upstream.stop()
    stop(program)


LIGHTTPD = """server.modules = ()
server.bind = "{address}"
server.port = 8080
server.document-root = "{root}"
server.username = "www-data"
server.max-worker = {workers}
server.upload-dirs = ( "/tmp" )
"""


def serve_with_lighttpd(context, workers):
    server, client = context.veth()
    configuration = context.new_file("lighttpd.conf")
    configuration.write_text(LIGHTTPD.format(address=server.address, root=context.files.root, workers=workers))
    program = server.start("lighttpd", "-D", "-f", configuration)
    wait_for_port(client, program, server.address, 8080)
    url = f"http://{server.address}:8080"
    expect_files(client, url, small_files(client))
    expect_wrk(client, f"{url}/s64", connections=50)
    expect_wrk(client, f"{url}/k8", more=("-H", "Connection: close"))
    program.signal(15)
    expect(program.wait(15) in (0, 1), "lighttpd ended by a signal")  # 1 if a connection was open: on the kernel, too
    if workers == 0:  # else who of them says so depends on who hears of it first
        program.says("server stopped by UID")


@test("lighttpd-no-worker")
def lighttpd(context):
    serve_with_lighttpd(context, 0)


@test("lighttpd-two-workers")
def lighttpd_workers(context):
    serve_with_lighttpd(context, 2)


APACHE = """ServerRoot "{prefix}"
ServerName test
DefaultRuntimeDir "{prefix}"
PidFile "{prefix}/apache.pid"
ErrorLog "{prefix}/error.log"
Mutex file:{prefix} default
LoadModule mpm_{mpm}_module /usr/lib/apache2/modules/mod_mpm_{mpm}.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
User www-data
Group www-data
Listen {address}:8080
{processes}
DocumentRoot "{root}"
EnableSendfile On
"""


def serve_with_apache(context, mpm, processes, connections):
    server, client = context.veth()
    prefix = context.new_file("apache")
    prefix.mkdir(mode=0o755)
    configuration = prefix / "apache.conf"
    configuration.write_text(APACHE.format(address=server.address, prefix=prefix, root=context.files.root, mpm=mpm, processes=processes))
    program = server.start("setsid", "apache2", "-DFOREGROUND", "-f", configuration)
    wait_for_port(client, program, server.address, 8080)
    url = f"http://{server.address}:8080"
    expect_files(client, url, small_files(client))
    expect_wrk(client, f"{url}/s64", connections=connections)
    expect_wrk(client, f"{url}/s64", connections=connections, more=("-H", "Connection: close"))
    expect_files(client, url, ["m1"])
    stop(program)
    # AH00484, all threads busy, is no complaint: connections that close linger in theirs, and those that come wait.
    log = [line for line in (prefix / "error.log").read_text().splitlines() if "AH00484" not in line]
    bad = [line for line in log if any(word in line for word in (":alert]", ":crit]", ":emerg]", "exit signal", ":error]"))]
    expect(not bad, f"Apache complains: {bad[:3]}")


@test("apache-event")
def apache_event(context):
    serve_with_apache(context, "event", """StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64""", 50)


@test("apache-prefork")
def apache_prefork(context):
    serve_with_apache(context, "prefork", """StartServers 4
ServerLimit 8
MaxRequestWorkers 8
MinSpareServers 1
MaxSpareServers 4""", 3)
