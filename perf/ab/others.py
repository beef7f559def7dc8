"""What the kernel's own traffic loses on an interface that a program on the stack shares: iperf3 in both directions and short messages, all of them
the kernel's, with an idle nginx of the stack on the interface and without, in turn."""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

from system import BenchmarkError, Namespace, Process, command, connect_namespaces, run_orderly, temporary_directory, warn_if_busy

ROOT = Path(__file__).resolve().parent.parent.parent
ADDRESS, CLIENT = "10.77.10.1", "10.77.10.2"
BULK_PORT, MESSAGE_PORT, STACK_PORT = 5201, 9000, 8080
HOW = {"packet": "", "generic": ",xdp=generic", "native": ",xdp=native"}
LOADS = {"receives": "Gbit/s", "sends": "Gbit/s", "messages": "connections/s"}


def parse_arguments():
    parser = argparse.ArgumentParser(prog="perf/others", description=__doc__)
    parser.add_argument("--build", type=Path, default=ROOT / "build", help="build directory (default: build/)")
    parser.add_argument("--rounds", type=int, default=11, help="of each, in turn (default: 11)")
    parser.add_argument("--seconds", type=int, default=2, help="of each load (default: 2)")
    parser.add_argument("--how", nargs="+", choices=HOW, default=list(HOW), help="how frames are taken: packet sockets (the default on a veth), XDP")
    return parser.parse_args()


class Wire:
    """Two namespaces, and the kernel's servers in one of them."""

    def __init__(self, build, directory, cleanup):
        self.build, self.directory, self.cleanup = build, directory, cleanup
        self.server, self.client = (Namespace(f"ot{os.getpid()}{end}", cleanup) for end in "sc")
        connect_namespaces(self.server, self.client)
        for namespace, address in ((self.server, ADDRESS), (self.client, CLIENT)):
            namespace.run("ip", "address", "add", f"{address}/24", "dev", "wire")
        self.start("iperf3", "-s", "-p", BULK_PORT)
        self.start(build / "perf/msg_server", ADDRESS, MESSAGE_PORT, 4096)

    def start(self, *words, environment=()):
        return Process([*self.server.prefix(), "env", *environment, *words], self.cleanup, self.directory / "log")

    def start_stack(self, how):
        """nginx on the stack, once it answers."""
        (self.directory / "mtcp.toml").write_text(f'[device]\nport = "net_af_xdp0,iface=wire,share=kernel{HOW[how]}"\n')
        (self.directory / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {self.directory}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; server {{ listen {ADDRESS}:{STACK_PORT}; location / {{ return 200; }} }} }}\n")
        environment = (f"LD_PRELOAD={self.build / 'preload/libmtcp_shim.so'}", f"MTCP_CONF={self.directory / 'mtcp.toml'}")
        nginx = self.start("nginx", "-p", self.directory, "-c", "nginx.conf", environment=environment)
        for _ in range(100):
            time.sleep(0.1)
            stat = command("python3", ROOT / "scripts/mtcp-stat", "-r", nginx.child.pid) if self.answers() else ""
            if any(line.split()[:2] == ["counter", "passive_opens"] and int(line.split()[2]) > 0 for line in stat.splitlines()):
                return nginx
        raise BenchmarkError(f"nginx does not answer on the stack: {nginx.output()[-1000:]}")

    def answers(self):
        try:
            self.client.run("curl", "-sS", "--max-time", 1, f"http://{ADDRESS}:{STACK_PORT}/")
            return True
        except BenchmarkError:
            return False

    def measure(self, load, seconds):
        if load == "messages":
            line = self.client.run(self.build / "perf/msg_client", ADDRESS, MESSAGE_PORT, 64, seconds).splitlines()[-1]
            return json.loads(line)["per_second"]
        words = ["iperf3", "-c", ADDRESS, "-p", BULK_PORT, "-t", seconds, "-J", *(["-R"] if load == "sends" else [])]
        return json.loads(self.client.run(*words))["end"]["sum_received"]["bits_per_second"] / 1e9


def run(arguments, cleanup):
    if os.geteuid() != 0:
        raise BenchmarkError("network namespaces need root")
    warn_if_busy(os.getloadavg()[0])
    wire = Wire(arguments.build.resolve(), temporary_directory(cleanup), cleanup)
    time.sleep(0.5)
    found = {}
    for turn in range(arguments.rounds):
        for how in (None, *arguments.how):
            nginx = wire.start_stack(how) if how else None
            for load in LOADS:
                found.setdefault((how, load), []).append(wire.measure(load, arguments.seconds))
            if nginx and nginx.stop() != 0:
                raise BenchmarkError(f"nginx has ended badly: {nginx.output()[-1000:]}")
        print(f"round {turn + 1} of {arguments.rounds}", flush=True)
    print(f"{'shared by':10} {'the kernel':10} {'alone':>10} {'beside':>10}          median ratio, and its range over the rounds")
    for how in arguments.how:
        for load, unit in LOADS.items():
            alone, beside = found[None, load], found[how, load]
            ratios = [b / a for a, b in zip(alone, beside)]
            print(f"{how:10} {load:10} {statistics.median(alone):10.2f} {statistics.median(beside):10.2f} {unit:14} "
                  f"{statistics.median(ratios):.2f}  {min(ratios):.2f} to {max(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_orderly("perf/others", run, parse_arguments()))
