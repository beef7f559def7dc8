"""Traffic of the kernel that must not notice what else goes on: one request after another, by TCP on one connection, by TCP with a
connection for each, and by UDP.

serve HOST PORT      echoes
ask HOST PORT        until SIGTERM; then prints one line of JSON: requests of each kind, what failed, how many segments were lost, and the
                     longest answer in seconds
"""

import json
import signal
import socket
import struct
import sys
import threading
import time

TOTAL_RETRANS, DSACK_DUPS = 100, 216  # offsets of tcpi_total_retrans and tcpi_dsack_dups in struct tcp_info
ended = threading.Event()


def echo(connection):
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)


def serve(host, port):
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((host, port))
    listener = socket.create_server((host, port), backlog=64)

    def answer():
        while True:
            datagrams.sendto(*datagrams.recvfrom(4096))

    threading.Thread(target=answer, daemon=True).start()
    print("ready", flush=True)
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()


class Asker:
    def __init__(self, kind, server):
        self.kind, self.server = kind, server
        self.requests, self.lost, self.longest, self.failures = 0, 0, 0.0, []
        self.kept = self.open() if kind != "each" else None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def open(self):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if self.kind == "udp" else socket.SOCK_STREAM)
        s.settimeout(5)
        s.connect(self.server)
        return s

    def count_lost(self, s):
        """Those that were sent again and that the peer has not had twice (RFC 2883): where the machine stands still for long enough the kernel
        sends again what is merely late. The peer's word about it may be on its way."""
        if self.kind == "udp":
            return
        for _ in range(50):
            info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            lost = struct.unpack_from("I", info, TOTAL_RETRANS)[0] - struct.unpack_from("I", info, DSACK_DUPS)[0]
            if lost <= 0:
                return
            time.sleep(0.02)
        self.lost += lost

    def ask(self, s):
        question = b"%s %d" % (self.kind.encode(), self.requests)
        s.sendall(question)
        if s.recv(4096) != question:
            raise OSError("another answer")

    def run(self):
        while not ended.wait(0.003 if self.kept else 0.02):
            began = time.monotonic()
            try:
                if self.kept:
                    self.ask(self.kept)
                else:
                    with self.open() as s:
                        self.ask(s)
                        self.count_lost(s)
                self.requests += 1
            except OSError as error:
                self.failures.append(f"{self.kind}: {type(error).__name__}: {error}")
                if len(self.failures) > 3:
                    break
            self.longest = max(self.longest, time.monotonic() - began)
        if self.kept:
            self.count_lost(self.kept)


def ask(host, port):
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    askers = [Asker(kind, (host, port)) for kind in ("kept", "each", "udp")]
    print("begun", flush=True)
    while not ended.is_set():
        ended.wait(0.1)
    for asker in askers:
        asker.thread.join()
    print(json.dumps({"requests": {a.kind: a.requests for a in askers}, "failures": [f for a in askers for f in a.failures],
                      "lost": sum(a.lost for a in askers), "longest": max(a.longest for a in askers)}), flush=True)


{"serve": serve, "ask": ask}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
