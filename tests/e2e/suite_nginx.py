"""nginx on one end of a veth pair (under the shim: af_packet), kernel clients on the other."""

import os
import pwd
import signal
import time

from harness import Failure, Stopwatch, command, expect, expect_equal, kill, wait_until
from nginx import Nginx
from registry import test
from web import expect_download, expect_files, expect_wrk, get, get_hash, get_status, small_files, start_download


def serve(context, offloads=(), **options):
    """(nginx, client side)"""
    server, client = context.veth(offloads=offloads)
    return Nginx(server, **options).start(), client


def answers(client, nginx, text):
    """Whether /hello answers with this text now. During a reload on the stack a connection may be reset: the old worker
    closes its listener, and what waits in the accept queue has no other process to go to."""
    try:
        return get(client, f"{nginx.url}/hello", 3) == text
    except Failure:
        return False


def owner(pid):
    return pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name


@test("nginx-single-process")
def single_process(context):
    nginx, client = serve(context, master="off")
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    expect_files(client, nginx.url, small_files(client))
    nginx.stop("quit")


@test("nginx-master-and-worker")
def master_and_worker(context):
    nginx, client = serve(context)
    wait_until(lambda: [owner(pid) for pid in nginx.workers()] == ["www-data"], 5, "the worker's drop to www-data")
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    expect_files(client, nginx.url, small_files(client))
    nginx.stop("quit")


@test("nginx-daemon")
def daemon(context):
    nginx, client = serve(context, daemon="on")
    wait_until(lambda: [owner(pid) for pid in nginx.workers()] == ["www-data"], 5, "the worker's drop to www-data")
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    expect_files(client, nginx.url, ["k64", "m1"])
    nginx.stop("quit")


@test("nginx-daemon-without-master")
def daemon_without_master(context):
    nginx, client = serve(context, daemon="on", master="off")
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    nginx.stop("stop")


@test("nginx-stop")
def stop(context):
    nginx, client = serve(context)
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    watch = Stopwatch()
    nginx.stop("stop")
    expect(watch.own() < 5, "-s stop took more than 5 s")
    code, _ = get_status(client, f"{nginx.url}/hello", 2)
    expect(code in (7, 28), f"curl's status after the stop is {code}")


@test("nginx-quit-finishes-downloads")
def quit_finishes(context):
    nginx, client = serve(context)
    download = start_download(client, f"{nginx.url}/m10", "6M")
    nginx.command("quit")
    expect_download(*download, context.files.sums["m10"])
    nginx.wait_gone([nginx.program.pid])


@test("nginx-quit-without-load")
def quit_without_load(context):
    nginx, client = serve(context)
    pids = nginx.all_pids()
    nginx.command("quit")
    nginx.wait_gone(pids)
    expect_equal("nginx's status", nginx.program.wait(5), 0)


@test("nginx-sendfile-off")
def sendfile_off(context):
    nginx, client = serve(context, sendfile="off")
    expect_files(client, nginx.url, small_files(client))
    nginx.stop()


@test("nginx-nopush-off-nodelay-off")
def nopush_off(context):
    nginx, client = serve(context, tcp_nopush="off", tcp_nodelay="off")
    expect_files(client, nginx.url, small_files(client))
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    nginx.stop()


@test("nginx-nopush-on-nodelay-off")
def nopush_on(context):
    nginx, client = serve(context, tcp_nodelay="off")
    expect_files(client, nginx.url, small_files(client))
    nginx.stop()


def transfer(context, offloads, **options):
    """Every file there and one back, alone and many at a time, and the large one."""
    nginx, client = serve(context, offloads, **options)
    expect_files(client, nginx.url, small_files(client))
    downloads = [client.start("sh", "-c", f"curl -sSf --max-time 60 {nginx.url}/m10 | sha256sum") for _ in range(8)]
    for download in downloads:
        expect_equal("the status of a download", download.wait(60), 0)
        expect(context.files.sums["m10"] in download.output(), f"the download is wrong: {download.output()}")
    expect_equal("PUT", get_status(client, f"{nginx.url}/put/m10", 60, "-T", context.files.root / "m10"), (0, "201"))
    got = command("sha256sum", nginx.prefix / "put/m10").stdout.split()[0]
    expect_equal("the hash of what was put", got, context.files.sums["m10"])
    for name in ("k8", "m1"):
        expect_wrk(client, f"{nginx.url}/{name}", at_least=20, seconds=1)
        expect_wrk(client, f"{nginx.url}/{name}", at_least=20, seconds=1, more=["-H", "Connection: close"])
    expect_files(client, nginx.url, [context.files.huge()], 60)
    nginx.stop()


@test("nginx-offloads")
def offloads_on_both_ends(context):
    transfer(context, ("server", "client"))


@test("nginx-offloads-without-sendfile")
def offloads_without_sendfile(context):
    transfer(context, ("server", "client"), sendfile="off")


@test("nginx-offloads-of-the-server-only")
def offloads_of_server(context):
    transfer(context, ("server",))


@test("nginx-offloads-of-the-client-only")
def offloads_of_client(context):
    transfer(context, ("client",))


@test("nginx-1GiB-sendfile")
def huge_sendfile(context):
    nginx, client = serve(context)
    expect_files(client, nginx.url, [context.files.huge()], 60)
    nginx.stop()


@test("nginx-1GiB-without-sendfile")
def huge_without_sendfile(context):
    nginx, client = serve(context, sendfile="off")
    expect_files(client, nginx.url, [context.files.huge()], 60)
    nginx.stop()


@test("nginx-reuseport")
def reuseport(context):
    nginx, client = serve(context, listen_options="reuseport")
    expect_files(client, nginx.url, ["empty", "k8", "m1"])
    expect_wrk(client, f"{nginx.url}/hello", seconds=1)
    nginx.stop()


@test("nginx-deferred")
def deferred(context):
    nginx, client = serve(context, listen_options="deferred")
    expect_files(client, nginx.url, ["empty", "k8", "m1"])
    expect_wrk(client, f"{nginx.url}/hello", seconds=1, more=["-H", "Connection: close"])
    nginx.stop()


@test("nginx-multi-accept")
def multi_accept(context):
    nginx, client = serve(context, multi_accept="on")
    expect_wrk(client, f"{nginx.url}/hello", seconds=1, connections=200, more=["-H", "Connection: close"])
    nginx.stop()


@test("nginx-keepalive-one-connection")
def keepalive(context):
    nginx, client = serve(context)
    urls = [f"{nginx.url}/{name}" for name in ("hello", "s64", "empty", "k8", "m1", "hello")]
    words = ["curl", "-sS", "--max-time", "10", "-w", "%{num_connects}\n"]
    for url in urls:
        words += ["-o", "/dev/null", url]
    connects = client.run(*words).stdout.split()
    expect_equal("new connections per request", connects, ["1", "0", "0", "0", "0", "0"])
    nginx.stop()


@test("nginx-keepalive-times-out")
def keepalive_timeout(context):
    nginx, client = serve(context, keepalive="1")
    script = ("import socket,sys,time\n"
              "s=socket.create_connection((sys.argv[1],8080),5)\n"
              "s.sendall(b'GET /hello HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
              "s.settimeout(10); t=time.monotonic(); data=b''\n"
              "while p:=s.recv(4096): data+=p\n"
              "print(data.endswith(b'hello\\n'), 0.5 < time.monotonic()-t < 8)")
    out = client.run("python3", "-c", script, nginx.side.address).stdout.split()
    expect_equal("the answer and the time of the close", out, ["True", "True"])
    nginx.stop()


@test("nginx-head-range-404")
def head_range(context):
    nginx, client = serve(context)
    expect_equal("a missing file", get_status(client, f"{nginx.url}/nothing"), (0, "404"))
    expect_equal("HEAD", get_status(client, f"{nginx.url}/m10", 10, "--head"), (0, "200"))
    part = client.run("sh", "-c", f"curl -sSf -r 1000-70999 {nginx.url}/m1 | sha256sum").stdout
    wanted = command("sh", "-c", f"tail -c +1001 {context.files.root}/m1 | head -c 70000 | sha256sum").stdout
    expect_equal("the hash of a range", part, wanted)
    nginx.stop()


@test("nginx-upload")
def upload(context):
    nginx, client = serve(context)
    for name in ("one", "k100", "m10"):
        code, http = get_status(client, f"{nginx.url}/put/{name}", 20, "-T", context.files.root / name)
        expect_equal(f"PUT of {name}", (code, http), (0, "201"))
        done = command("sha256sum", nginx.prefix / "put" / name).stdout.split()[0]
        expect_equal(f"the hash of {name}", done, context.files.sums[name])
    nginx.stop()


@test("nginx-upload-with-expect-100")
def upload_expect(context):
    nginx, client = serve(context)
    code = get_status(client, f"{nginx.url}/put/x", 20, "-H", "Expect: 100-continue", "-T", context.files.root / "m1")
    expect_equal("PUT", code, (0, "201"))
    nginx.stop()


@test("nginx-wrk-keepalive")
def wrk_keepalive(context):
    nginx, client = serve(context)
    expect_wrk(client, f"{nginx.url}/hello", connections=64, seconds=2)
    expect_wrk(client, f"{nginx.url}/k8", connections=64, seconds=2)
    nginx.stop()


@test("nginx-wrk-connection-per-request")
def wrk_close(context):
    nginx, client = serve(context)
    expect_wrk(client, f"{nginx.url}/s64", connections=50, seconds=3, more=["-H", "Connection: close"])
    nginx.stop()


@test("nginx-wrk-large-files")
def wrk_large(context):
    nginx, client = serve(context)
    expect_wrk(client, f"{nginx.url}/m1", at_least=20, connections=8, seconds=2)
    nginx.stop()


@test("nginx-500-connections")
def many_connections(context):
    nginx, client = serve(context)
    expect_wrk(client, f"{nginx.url}/hello", connections=500, threads=2, seconds=2)
    nginx.stop()


@test("nginx-slow-reader")
def slow_reader(context):
    nginx, client = serve(context)
    got, _ = get_hash(client, f"{nginx.url}/m10", 30, "--limit-rate", "4M")
    expect_equal("the hash", got, context.files.sums["m10"])
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    nginx.stop()


@test("nginx-aborted-downloads")
def aborted_downloads(context):
    nginx, client = serve(context)
    for _ in range(20):
        client.run("curl", "-s", "-o", "/dev/null", "--max-time", "0.03", "--limit-rate", "1M", f"{nginx.url}/m10", check=False)
    expect_files(client, nginx.url, ["m1", "k8"])
    nginx.stop()


@test("nginx-reload")
def reload(context):
    nginx, client = serve(context)
    before = nginx.workers()
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    nginx.write_config(greeting="changed")
    nginx.command("reload")
    wait_until(lambda: answers(client, nginx, "changed\n"), 15, "the new configuration")
    nginx.wait_gone(before)
    expect(len(nginx.workers()) == 1 and nginx.workers() != before, f"workers were {before}, are {nginx.workers()}")
    expect_files(client, nginx.url, ["k8", "m1"])
    nginx.stop()


@test("nginx-reload-five-times")
def reload_often(context):
    nginx, client = serve(context)
    for i in range(5):
        nginx.write_config(greeting=f"round {i}")
        nginx.command("reload")
        wait_until(lambda i=i: answers(client, nginx, f"round {i}\n"), 15, f"configuration {i}")
    wait_until(lambda: len(nginx.workers()) == 1, 15, "the end of the old workers")
    nginx.stop()


@test("nginx-reload-keeps-a-download")
def reload_during_download(context):
    nginx, client = serve(context)
    download = start_download(client, f"{nginx.url}/m10", "4M")
    nginx.write_config(greeting="changed")
    nginx.command("reload")
    expect_download(*download, context.files.sums["m10"])

    # On the stack the old worker keeps the device's one queue until it has finished: the new one answers after that.
    wait_until(lambda: answers(client, nginx, "changed\n"), 15, "the new configuration")
    nginx.stop()


@test("nginx-reload-under-load")
def reload_under_load(context):
    nginx, client = serve(context)
    load = client.start("wrk", "-t1", "-c20", "-d4s", "--timeout", "4s", "-H", "Connection: close", f"{nginx.url}/hello")
    time.sleep(1)
    nginx.command("reload")
    load.wait(20)
    text = load.output()
    bad = [line for line in text.splitlines() if "Non-2xx" in line]
    expect(not bad, f"wrong answers during a reload: {bad}")
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    nginx.stop()


@test("nginx-worker-killed")
def worker_killed(context):
    nginx, client = serve(context)
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    old = nginx.workers()
    kill(old[0], signal.SIGKILL)
    wait_until(lambda: nginx.workers() and nginx.workers() != old, 10, "a new worker")
    wait_until(lambda: answers(client, nginx, "hello\n"), 15, "an answer of the new worker")
    nginx.command("stop")


@test("nginx-started-again-at-once")
def started_again(context):
    nginx, client = serve(context)
    for _ in range(3):
        expect_files(client, nginx.url, ["k8"])
        nginx.stop("quit")
        nginx.start()
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    nginx.stop()


@test("nginx-wildcard-listener-serves-the-kernel-too")
def wildcard(context):
    nginx, client = serve(context, listen="8080")
    expect_equal("over the wire", get(client, f"{nginx.url}/hello"), "hello\n")
    local = nginx.side.kernel_side()
    expect_equal("over the kernel's loopback", get(local, "http://127.0.0.1:8080/hello"), "hello\n")
    expect_files(client, nginx.url, ["m1"])
    expect_files(local, "http://127.0.0.1:8080", ["m1"])
    nginx.stop()


@test("nginx-t-opens-no-device", shim_only=True)
def test_opens_nothing(context):
    server, _ = context.veth()
    server.config = context.write_config("net_af_packet0,iface=nosuch0", server.address)
    nginx = Nginx(server)
    done = server.run(*nginx.words("-t"), check=False)
    expect_equal("the status of nginx -t", done.returncode, 0)
    expect("test is successful" in done.stderr, f"nginx -t said: {done.stderr}")
    expect("nosuch0" not in done.stderr, f"nginx -t went for the device: {done.stderr}")


@test("nginx-t-while-serving")
def test_while_serving(context):
    nginx, client = serve(context)
    done = nginx.side.run(*nginx.words("-t"), check=False)
    expect_equal("the status of nginx -t", done.returncode, 0)
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    nginx.stop()


@test("nginx-two-listeners")
def two_listeners(context):
    server, client = context.veth()
    more = "} server { listen " + server.address + ":8081; location / { return 200 second; }"
    nginx = Nginx(server, server=more).start()
    expect_equal("the first", get(client, f"{nginx.url}/hello"), "hello\n")
    expect_equal("the second", get(client, f"http://{server.address}:8081/"), "second")
    nginx.stop()


@test("nginx-two-workers")
def two_workers(context):
    nginx, client = serve(context, workers=2)
    expect_wrk(client, f"{nginx.url}/k8", connections=40, seconds=2)
    expect_files(client, nginx.url, ["m1", "m10"])
    expect_equal("the workers", len(nginx.workers()), 2)
    nginx.stop()


@test("nginx-closed-port-is-refused")
def refused(context):
    nginx, client = serve(context)
    watch = Stopwatch()
    expect_equal("curl's status", get_status(client, f"http://{nginx.side.address}:8099/")[0], 7)
    expect(watch.own() < 3, "the refusal took 3 s")
    nginx.stop()
