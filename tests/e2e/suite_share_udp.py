"""An interface and its address shared with the kernel: datagrams are the kernel's, for the programs of the stack as well."""

from harness import expect
from nginx import Nginx
from registry import test
from suite_programs import HERE, PYTHON, connects, stop, use_store, wait_for_port
from suite_wire import counters_of, wait_for_stack
from web import expect_files

DATAGRAMS = HERE / "datagrams.py"


def finish(program):
    status = program.wait(30)
    expect(status == 0, f"{' '.join(program.words[1:3])}: status {status}: {program.output()[-500:]}")


def expect_connections_on_stack(server, program):
    if server.on_stack:
        expect(counters_of(program.pid).get("passive_opens", 0) > 0, "the connections were not the stack's")


@test("share-datagrams-beside-connections-of-one-port")
def one_port(context):
    """One program and one loop: bound to the wildcard address and to the interface's."""
    server, client = context.veth(driver="af_xdp", share=True)
    for port, address in ((7000, "0.0.0.0"), (7001, server.address)):
        program = server.start(PYTHON, DATAGRAMS, "serve", address, port)
        program.says("ready")
        if server.on_stack:
            wait_for_stack(program, lambda p=program, n=port: connects(client, p, server.address, n))
        loads = [client.start(PYTHON, DATAGRAMS, "echo", server.address, port, 300) for _ in range(3)]
        use_store(client, "echo", server.address, port, connections=8, rounds=40)
        for load in loads:
            finish(load)
        expect_connections_on_stack(server, program)
        program.kill()


@test("share-memcached-by-datagrams-and-connections")
def memcached(context):
    server, client = context.veth(driver="af_xdp", share=True)
    program = server.start("memcached", "-l", server.address, "-p", "11211", "-U", "11211", "-t", "2", "-u", "root", "-m", "64")
    wait_for_port(client, program, server.address, 11211)
    loads = [client.start(PYTHON, DATAGRAMS, "memcached", server.address, 11211, 300) for _ in range(2)]
    use_store(client, "memcached", server.address, 11211)
    for load in loads:
        finish(load)
    expect_connections_on_stack(server, program)
    stop(program)


@test("share-a-client-asks-for-names")
def asks_for_names(context):
    """libc asks a name server from the shared address; the connection to what it answers is the stack's."""
    server, client = context.veth(stack="client", driver="af_xdp", share=True)
    nginx = Nginx(server).start()
    names = server.start(PYTHON, DATAGRAMS, "names", server.address, "web.example", server.address)
    names.says("ready")
    resolver = context.new_file("resolv.conf")
    resolver.write_text(f"nameserver {server.address}\noptions timeout:2 attempts:2\n")
    # In a mount namespace of its own, so that the machine's file stays as it is.
    script = f'mount --bind {resolver} /etc/resolv.conf && exec "$@"'
    asks = ("unshare", "--mount", "sh", "-c", script, "sh", PYTHON, "-c", ASK)
    for _ in range(3):
        done = client.run(*asks, "http://web.example:8080/k64", "yes" if client.on_stack else "no", check=False)
        expect(done.returncode == 0, f"the client: {(done.stdout + done.stderr)[-500:]}")
    expect(f"asked by {client.address}" in names.output(), f"the name server says: {names.output()}")
    expect_files(client, nginx.url, ["k64"])
    nginx.stop()


# Fetches the file, and says whose the connection was: the kernel's table has those of the kernel.
ASK = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
    body = answer.read(100)
    kernels = open('/proc/net/tcp').read().count(':1F90 0')
    assert len(body + answer.read()) == 65536
    assert (kernels == 0) == (sys.argv[2] == 'yes'), f'{kernels} connections of the kernel'
"""
