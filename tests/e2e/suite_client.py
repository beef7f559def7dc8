"""curl and wrk on the stack, against nginx on the kernel, over veth."""

from harness import Stopwatch, command, expect, expect_equal
from nginx import Nginx
from registry import test
from web import expect_files, expect_wrk, get, get_status, small_files


def serve(context):
    """(kernel's nginx, client under the shim)"""
    server, client = context.veth(stack="client")
    return Nginx(server).start(), client


@test("client-curl")
def curl(context):
    nginx, client = serve(context)
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    expect_files(client, nginx.url, small_files(client))


@test("client-curl-1GiB")
def curl_huge(context):
    nginx, client = serve(context)
    expect_files(client, nginx.url, [context.files.huge()], 60)


@test("client-curl-upload")
def curl_upload(context):
    nginx, client = serve(context)
    expect_equal("PUT", get_status(client, f"{nginx.url}/put/m10", 20, "-T", context.files.root / "m10"), (0, "201"))
    got = command("sha256sum", nginx.prefix / "put" / "m10").stdout.split()[0]
    expect_equal("the hash", got, context.files.sums["m10"])


@test("client-curl-parallel")
def curl_parallel(context):
    nginx, client = serve(context)
    words = ["curl", "-sSf", "--parallel", "--parallel-max", "10", "--max-time", "20"]
    for i in range(20):
        words += ["-o", context.directory / f"part{i}", f"{nginx.url}/m1"]
    client.run(*words, timeout=40)
    for i in range(20):
        got = command("sha256sum", context.directory / f"part{i}").stdout.split()[0]
        expect_equal("the hash", got, context.files.sums["m1"])


@test("client-curl-by-a-name-and-over-the-kernel")
def curl_kernel_too(context):
    nginx, client = serve(context)
    local = client.kernel_side()
    local.address = "127.0.0.1"
    other = Nginx(local, port=9000).start()
    expect_equal("the kernel's server", get(client, "http://localhost:9000/hello"), "hello\n")
    expect_equal("the wire's server", get(client, f"{nginx.url}/hello"), "hello\n")
    other.stop()


@test("client-refused")
def client_refused(context):
    nginx, client = serve(context)
    watch = Stopwatch()
    expect_equal("curl's status", get_status(client, f"http://{nginx.side.address}:9/")[0], 7)
    expect(watch.own() < 5, "the refusal took 5 s")


@test("client-no-such-host")
def no_such_host(context):
    _, client = serve(context)
    code, _ = get_status(client, "http://10.99.0.77:80/", 8)
    expect(code in (7, 28), f"curl's status is {code}")


@test("client-wrk-one-thread")
def wrk_one(context):
    nginx, client = serve(context)
    expect_wrk(client, f"{nginx.url}/hello", seconds=2)
    expect_wrk(client, f"{nginx.url}/m1", at_least=10, seconds=2, connections=4)


@test("client-wrk-two-threads")
def wrk_two(context):
    nginx, client = serve(context)
    expect_wrk(client, f"{nginx.url}/hello", seconds=2, threads=2)
    expect_wrk(client, f"{nginx.url}/k8", seconds=2, threads=2, connections=100)


@test("client-wrk-connection-per-request")
def wrk_close(context):
    nginx, client = serve(context)
    expect_wrk(client, f"{nginx.url}/s64", seconds=2, threads=2, connections=40, more=["-H", "Connection: close"])
