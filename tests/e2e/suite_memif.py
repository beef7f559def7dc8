"""Both ends on the stack, joined by memif; and what happens when one of them dies."""

import sys
from pathlib import Path

from harness import expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from web import expect_files, expect_wrk, get, get_status, small_files, start_download

PROBE = Path(__file__).resolve().parent / "probe.py"


def start_probe(client, url):
    return client.start(sys.executable if sys.executable == "/usr/bin/python3" else "/usr/bin/python3", "-u", PROBE, url)


def count(probe, word):
    return sum(1 for line in probe.output().splitlines() if line == word)


def wait_for_more(probe, word, how_many=3, seconds=20):
    before = count(probe, word)

    def enough():
        expect(probe.running(), f"the client ended: {probe.output()[-500:]}")
        return count(probe, word) >= before + how_many

    wait_until(enough, seconds, f"{how_many} more of {word!r} from the client")


@test("memif-curl")
def curl(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    expect_files(client, nginx.url, small_files(client))
    nginx.stop()


@test("memif-between-programs-of-one-user", shim_only=True)
def one_user(context):
    """Root has started both, and nginx's workers have given up their rights. Somebody else is refused, who has not."""
    server, client = context.memif(any_user=False)
    nginx = Nginx(server).start()
    expect_wrk(client, f"{nginx.url}/s64", seconds=1, more=("-H", "Connection: close"))
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    other = client.start("curl", "-sS", "--max-time", "2", f"{nginx.url}/hello", user=33 + 1)
    expect(other.wait() != 0, "another user was let in")
    expect("peer_users" in other.output(), other.output())
    nginx.stop()


def with_mtus(context, *mtus):
    server, client = context.memif(mtus=mtus)
    nginx = Nginx(server).start()
    expect_files(client, nginx.url, ["m1", *small_files(client)])
    expect_equal("PUT", get_status(client, f"{nginx.url}/put/m10", 20, "-T", context.files.root / "m10"), (0, "201"))
    nginx.stop()


@test("memif-large-packets")
def large_packets(context):
    with_mtus(context, 9000, 9000)


@test("memif-large-packets-of-the-server-only")
def large_packets_of_server(context):
    with_mtus(context, 9000, 1500)


@test("memif-large-packets-of-the-client-only")
def large_packets_of_client(context):
    with_mtus(context, 1500, 9000)


@test("memif-1GiB")
def huge(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    expect_files(client, nginx.url, [context.files.huge()], 60)
    nginx.stop()


@test("memif-upload")
def upload(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    expect_equal("PUT", get_status(client, f"{nginx.url}/put/m10", 20, "-T", context.files.root / "m10"), (0, "201"))
    nginx.stop()


@test("memif-wrk-one-thread")
def wrk_one(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    expect_wrk(client, f"{nginx.url}/s64", seconds=2, connections=64)
    expect_wrk(client, f"{nginx.url}/m1", at_least=20, seconds=2, connections=8)
    nginx.stop()


@test("memif-wrk-two-threads")
def wrk_two(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    expect_wrk(client, f"{nginx.url}/k8", seconds=2, threads=2, connections=64)
    nginx.stop()


@test("memif-wrk-connection-per-request")
def wrk_close(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    expect_wrk(client, f"{nginx.url}/s64", seconds=3, connections=64, more=["-H", "Connection: close"])
    nginx.stop()


@test("memif-client-first")
def client_first(context):
    server, client = context.memif()
    probe = start_probe(client, f"http://{server.address}:8080/k8")
    wait_for_more(probe, "fail", 1)
    nginx = Nginx(server).start()
    wait_for_more(probe, "ok")
    nginx.stop()


@test("memif-server-killed-and-restarted")
def server_killed(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    probe = start_probe(client, f"{nginx.url}/k8")
    for _ in range(2):
        wait_for_more(probe, "ok")
        nginx.kill()
        wait_for_more(probe, "fail", 1)
        nginx.start()
    wait_for_more(probe, "ok")
    nginx.stop()


@test("memif-client-killed-and-restarted")
def client_killed(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    for _ in range(3):
        probe = start_probe(client, f"{nginx.url}/k8")
        wait_for_more(probe, "ok")
        probe.kill()
    expect_equal("the answer", get(client, f"{nginx.url}/hello", 15), "hello\n")
    nginx.stop()


@test("memif-client-killed-in-a-download")
def client_killed_in_download(context):
    server, client = context.memif()
    nginx = Nginx(server).start()
    for _ in range(3):
        download, path = start_download(client, f"{nginx.url}/{context.files.huge()}", "20M")
        wait_until(lambda d=download, p=path: p.stat().st_size > 10 << 20 or not d.running(), 20, "ten megabytes of the download")
        expect(download.running(), f"curl ended: {download.output()}")
        download.kill()
    expect_equal("the answer", get(client, f"{nginx.url}/hello", 15), "hello\n")
    expect_files(client, nginx.url, ["m1"])
    nginx.stop()
