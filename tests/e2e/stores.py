"""A kernel client of memcached, redis and echo servers that checks every byte: several connections at once, values of all sizes.

usage: stores.py memcached|redis|echo HOST PORT CONNECTIONS ROUNDS
"""

import random
import socket
import sys
import threading
import time

SIZES = (1, 64, 1460, 1461, 9000, 100_000)
PATIENCE = 10  # seconds for any one answer


class Wire:
    """A connection with a buffer to read lines and counted bytes from."""

    def __init__(self, host, port):
        self.socket = socket.create_connection((host, int(port)), PATIENCE)
        self.socket.settimeout(PATIENCE)
        self.file = self.socket.makefile("rb", 1 << 16)

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        line = self.file.readline()
        assert line.endswith(b"\r\n"), f"the server closed after {line!r}"
        return line[:-2]

    def exactly(self, n):
        data = self.file.read(n)
        assert len(data) == n, f"{len(data)} bytes of {n}"
        return data

    def close(self):
        self.file.close()
        self.socket.close()


class Memcached(Wire):
    def set(self, key, value):
        self.send(b"set %b 0 0 %d\r\n%b\r\n" % (key, len(value), value))
        return lambda: self.expect(self.line(), b"STORED")

    def get(self, key, value):
        self.send(b"get %b\r\n" % key)

        def check():
            self.expect(self.line(), b"VALUE %b 0 %d" % (key, len(value)))
            self.expect(self.exactly(len(value) + 2), value + b"\r\n")
            self.expect(self.line(), b"END")

        return check

    @staticmethod
    def expect(got, wanted):
        assert got == wanted, f"got {got[:60]!r} ({len(got)} bytes), expected {wanted[:60]!r} ({len(wanted)} bytes)"


class Redis(Memcached):
    def ask(self, *words):
        self.send(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))

    def set(self, key, value):
        self.ask(b"SET", key, value)
        return lambda: self.expect(self.line(), b"+OK")

    def get(self, key, value):
        self.ask(b"GET", key)

        def check():
            self.expect(self.line(), b"$%d" % len(value))
            self.expect(self.exactly(len(value) + 2), value + b"\r\n")

        return check


class Echo(Memcached):
    def set(self, key, value):
        value = value[:9000]  # several of them must fit into the buffers: the server answers while this end still sends
        self.send(value)
        return lambda: self.expect(self.exactly(len(value)), value)

    get = set


def serve_one(make, number, rounds, report):
    """One connection's life: sets and gets, in pairs and pipelined, now and then from a fresh connection."""
    try:
        noise = random.Random(number)
        block = noise.randbytes(max(SIZES) + 997)
        wire = make()
        slowest = 0.0
        for i in range(rounds):
            if i % 50 == 49:
                wire.close()
                wire = make()
            pipeline = []
            for j in range(noise.choice((1, 1, 4))):
                size, start = noise.choice(SIZES), noise.randrange(997)
                pipeline.append((b"key-%d-%d" % (number, j), block[start:start + size]))
            started = time.monotonic()
            for answer in [wire.set(key, value) for key, value in pipeline]:
                answer()
            for answer in [wire.get(key, value) for key, value in pipeline]:
                answer()
            slowest = max(slowest, time.monotonic() - started)
        wire.close()
        report.append((None, slowest))
    except Exception as error:  # told by main(): a thread has no status of its own
        report.append((f"connection {number}: {type(error).__name__}: {error}", 0))


def main(protocol, host, port, connections, rounds):
    make = {"memcached": Memcached, "redis": Redis, "echo": Echo}[protocol]
    report = []
    started = time.monotonic()
    threads = [threading.Thread(target=serve_one, args=(lambda: make(host, port), n, int(rounds), report)) for n in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wrong = [problem for problem, _ in report if problem]
    print("\n".join(wrong[:5]) or f"all {len(report)} connections right in {time.monotonic() - started:.2f} s, slowest round "
          f"{max(slow for _, slow in report) * 1000:.1f} ms")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
