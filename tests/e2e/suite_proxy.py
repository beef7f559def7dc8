"""nginx as a reverse proxy: upstream on the kernel (a mixed epoll set), on the stack, and across the wire."""

from harness import command, expect_equal
from nginx import Nginx
from registry import test
from web import expect_files, expect_wrk, get, get_status, small_files

PROXY = """location /up/ {{ proxy_pass http://{upstream}/; proxy_http_version 1.1; proxy_set_header Connection ""; }}"""
POOL = "upstream pool {{ server {address}; keepalive 16; }}"


def check(client, nginx):
    expect_files(client, f"{nginx.url}/up", small_files(client))
    expect_files(client, nginx.url, ["k8", "m1"])
    expect_wrk(client, f"{nginx.url}/up/k8", connections=20, seconds=2)


@test("proxy-to-a-kernel-upstream")
def kernel_upstream(context):
    server, client = context.veth()
    local = server.kernel_side()
    local.address = "127.0.0.1"
    upstream = Nginx(local, port=9000).start()
    nginx = Nginx(server, server=PROXY.format(upstream="127.0.0.1:9000")).start()
    check(client, nginx)
    nginx.stop()
    upstream.stop()


@test("proxy-to-a-kernel-upstream-with-keepalive")
def kernel_upstream_keepalive(context):
    server, client = context.veth()
    local = server.kernel_side()
    local.address = "127.0.0.1"
    upstream = Nginx(local, port=9000).start()
    nginx = Nginx(server, http=POOL.format(address="127.0.0.1:9000"), server=PROXY.format(upstream="pool")).start()
    check(client, nginx)
    nginx.stop()
    upstream.stop()


@test("proxy-to-an-upstream-on-the-stack")
def stack_upstream(context):
    server, client = context.veth()
    second = "} server { listen " + server.address + ":8081 backlog=4096; root " + str(context.files.root) + ";"
    nginx = Nginx(server, server=PROXY.format(upstream=f"{server.address}:8081") + second).start()
    check(client, nginx)
    nginx.stop()


@test("proxy-to-an-upstream-across-the-wire")
def remote_upstream(context):
    server, client = context.veth()
    upstream = Nginx(client, port=9000).start()
    nginx = Nginx(server, server=PROXY.format(upstream=f"{client.address}:9000")).start()
    check(client, nginx)
    nginx.stop()
    upstream.stop()


@test("proxy-with-a-dead-upstream")
def dead_upstream(context):
    server, client = context.veth()
    nginx = Nginx(server, server=PROXY.format(upstream=f"{client.address}:9")).start()
    expect_equal("the answer", get_status(client, f"{nginx.url}/up/x"), (0, "502"))
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    nginx.stop()


@test("proxy-upload-through")
def upload_through(context):
    server, client = context.veth()
    local = server.kernel_side()
    local.address = "127.0.0.1"
    upstream = Nginx(local, port=9000).start()
    nginx = Nginx(server, server=PROXY.format(upstream="127.0.0.1:9000")).start()
    expect_equal("PUT", get_status(client, f"{nginx.url}/up/put/m10", 20, "-T", context.files.root / "m10"), (0, "201"))
    got = command("sha256sum", upstream.prefix / "put" / "m10").stdout.split()[0]
    expect_equal("the hash", got, context.files.sums["m10"])
    nginx.stop()
    upstream.stop()
