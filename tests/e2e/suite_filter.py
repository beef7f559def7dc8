"""[[filter]]: who may open connections, while the program runs; and what mtcp-run says of the kernel's firewall."""

import os
import tempfile
from pathlib import Path

from harness import expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from suite_wire import counters_of
from web import expect_files, get, get_status

RUN = Path(__file__).resolve().parent.parent.parent / "scripts/mtcp-run"


def rewrite(config, filters):
    """Another filter in place of the one that the file has; it is there at once, or not at all."""
    path = Path(config)
    kept = path.read_text(encoding="ascii").split("[[filter]]")[0]
    fresh = path.with_suffix(".new")
    fresh.write_text(kept + filters, encoding="ascii")
    os.replace(fresh, path)


def filtered(nginx, name):
    return sum(counters_of(pid).get(name, 0) for pid in nginx.serving_pids())


@test("filter-is-read-again-while-the-program-runs", shim_only=True)
def read_again(context):
    server, client = context.veth(more='[log]\nlevel = "info"\n[[filter]]\nsource = "10.99.0.0/24"\nport = 8080\naction = "reset"\n')
    nginx = Nginx(server, workers=2).start()

    def read_by_both(rules):
        wait_until(lambda: nginx.log().count(f"the filter has been read again: {rules} rules") == 2, 10, "the look of both workers at the filter")

    expect_equal("curl's status where the filter resets", get_status(client, f"{nginx.url}/hello", 3)[0], 7)
    expect(filtered(nginx, "filter_reset") > 0, "the counter filter_reset is 0")
    rewrite(server.config, '[[filter]]\nport = 8080\nrate = "many"\naction = "accept"\n')
    wait_until(lambda: "the filter stays as it was" in nginx.log(), 5, "a word about the mistake")
    expect_equal("curl's status after a mistake", get_status(client, f"{nginx.url}/hello", 3)[0], 7)
    rewrite(server.config, '[[filter]]\nsource = "10.98.0.0/24"\naction = "drop"\n')
    wait_until(lambda: get_status(client, f"{nginx.url}/hello", 3)[1] == "200", 5, "an answer")
    read_by_both(1)
    expect_files(client, nginx.url, ["empty", "k64"])
    rewrite(server.config, '[[filter]]\nsource = "10.99.0.1"\naction = "drop"\n')
    wait_until(lambda: get_status(client, f"{nginx.url}/hello", 1)[0] == 28, 10, "no answer")
    expect(filtered(nginx, "filter_dropped") > 0, "the counter filter_dropped is 0")
    rewrite(server.config, "")
    wait_until(lambda: get_status(client, f"{nginx.url}/hello", 2)[1] == "200", 10, "an answer without a filter")
    read_by_both(0)
    expect_equal("the answer", get(client, f"{nginx.url}/hello"), "hello\n")
    nginx.stop()


NFT = """table inet filter {
 chain input {
  type filter hook input priority filter; policy drop;
  ct state established,related accept
  tcp dport { 7001, 7101-7199 } accept
  meta l4proto tcp th dport 7002 ct state new limit rate 10/second accept
  udp dport 53 accept
 }
}
"""
IPTABLES = """*filter
:INPUT ACCEPT [0:0]
-A INPUT -p tcp -m tcp --dport 7003 -j DROP
-A INPUT -p tcp -m multiport --dports 7004,7200:7210 -j ACCEPT
-A INPUT -p udp -m udp --dport 123 -j ACCEPT
COMMIT
"""
# What such rules are said to be about: nft's, iptables', and the words. On 7004 a program of the kernel's listens.
BASE = "type filter hook input priority filter; policy accept;"
OTHER_RULES = (
    (f"set web {{\n type inet_service\n flags interval\n elements = {{ 7005, 7300-7310,\n 7006 timeout 1h }}\n }}\n"
     f"set one {{ type inet_service; elements = {{ 7004, 7008 }} }}\nset who {{\n type ipv4_addr . inet_service\n elements = {{ 192.0.2.1 . 7007 }}\n }}\n"
     f"set filled {{\n type inet_service\n flags dynamic\n }}\nchain j {{ {BASE} tcp dport @one drop; }}\nchain i {{\n {BASE}\n"
     f" tcp dport @web ip saddr != 10.0.0.0/8 drop\n ip saddr . tcp dport @who drop\n tcp dport @filled drop\n }}", "",
     "rules for the TCP ports 7005, 7006, 7007, 7008, 7300-7310; rules for TCP ports of a set: filled"),
    (f"chain banned {{\n ip saddr 192.0.2.1 reject\n }}\nchain i {{\n {BASE}\n jump banned\n }}", "", "rules for any port"),
    ("", ":INPUT ACCEPT [0:0]\n:bans - [0:0]\n-A INPUT -j bans\n-A bans -s 192.0.2.1/32 -j REJECT", "rules for any port"),
    (f"chain banned {{\n ip saddr 192.0.2.1 reject\n }}\nchain i {{\n {BASE}\n tcp dport 7004 jump banned\n udp length 9 drop\n"
     f" iifname \"drop\" accept\n }}\nchain f {{\n type filter hook forward priority filter; policy drop;\n drop\n }}",
     ":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n-A INPUT -m limit --limit 3/min -j LOG\n-A FORWARD -j DROP\n-A INPUT -p icmp -j DROP", None),
)


@test("filter-mtcp-run-tells-of-the-kernels-firewall", shim_only=True)
def tells(context):
    server, _ = context.veth()
    listening = server.kernel_side().start("/usr/bin/python3", "-u", "-m", "http.server", "7004")
    listening.says("7004")
    with tempfile.TemporaryDirectory() as tools:
        os.chmod(tools, 0o755)
        for name, text in (("nft", NFT), ("iptables-save", IPTABLES), ("ip6tables-save", "")):
            path = Path(tools, name)
            path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n", encoding="ascii")
            path.chmod(0o755)
        env = {"PATH": f"{tools}:{os.environ['PATH']}"}
        run = server.kernel_side().run(RUN, "-c", server.config, "/bin/true", env=env)
        expect("rules for the TCP ports 7001, 7002, 7003, 7101-7199, 7200-7210; drops what no rule accepts" in run.stderr, f"it said: {run.stderr}")
        dry = server.kernel_side().run("setpriv", "--reuid=www-data", "--clear-groups", RUN, "-n", "-c", server.config, "/bin/true", env=env, check=False)
        expect("firewall:      not known: that takes the capability net_admin" in dry.stdout, f"it said: {dry.stdout}")
        for nft, iptables, words in OTHER_RULES:
            Path(tools, "nft").write_text(f"#!/bin/sh\ncat <<'END'\ntable inet filter {{\n{nft}\n}}\nEND\n", encoding="ascii")
            Path(tools, "iptables-save").write_text(f"#!/bin/sh\ncat <<'END'\n*filter\n{iptables}\nCOMMIT\nEND\n", encoding="ascii")
            done = server.kernel_side().run(RUN, "-c", server.config, "/bin/true", env=env)
            expect(f"firewall ({words})" in done.stderr if words else done.stderr == "", f"of {nft}{iptables} it said: {done.stderr}")
    listening.kill()
