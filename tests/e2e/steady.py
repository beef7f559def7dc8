"""Traffic of the kernel that must not notice what else goes on: one request after another, by TCP on one connection, by TCP with a
connection for each, and by UDP.

serve HOST PORT      echoes
ask HOST PORT        until SIGTERM; then prints one line of JSON: requests of each kind, what failed, how many segments the kernel had to send
                     again, and the longest answer in seconds
"""

import json
import signal
import socket
import struct
import sys
import threading
import time

TOTAL_RETRANS = 100  # offset of tcpi_total_retrans in struct tcp_info
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
        self.requests, self.resent, self.longest, self.failures = 0, 0, 0.0, []
        self.kept = self.open() if kind != "each" else None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def open(self):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if self.kind == "udp" else socket.SOCK_STREAM)
        s.settimeout(5)
        s.connect(self.server)
        return s

    def count_resent(self, s):
        if self.kind != "udp":
            self.resent += struct.unpack_from("I", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), TOTAL_RETRANS)[0]

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
                        self.count_resent(s)
                self.requests += 1
            except OSError as error:
                self.failures.append(f"{self.kind}: {type(error).__name__}: {error}")
                if len(self.failures) > 3:
                    break
            self.longest = max(self.longest, time.monotonic() - began)
        if self.kept:
            self.count_resent(self.kept)


def ask(host, port):
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    askers = [Asker(kind, (host, port)) for kind in ("kept", "each", "udp")]
    print("begun", flush=True)
    while not ended.is_set():
        ended.wait(0.1)
    for asker in askers:
        asker.thread.join()
    print(json.dumps({"requests": {a.kind: a.requests for a in askers}, "failures": [f for a in askers for f in a.failures],
                      "resent": sum(a.resent for a in askers), "longest": max(a.longest for a in askers)}), flush=True)


{"serve": serve, "ask": ask}[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
