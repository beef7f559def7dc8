"""Clients of forking_server.py: several at a time, several rounds, and so many more lines each, and four times as many small ones; with "wait"
they wait then for SIGUSR1. Says "good N" when all answers were right, else ends with 1."""

import random
import signal
import socket
import sys
import threading

host, port, at_a_time, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
lines, waits = int((sys.argv[5:] + [0])[0]), "wait" in sys.argv
good = []
goes_on = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: goes_on.set())


def converse(number):
    with socket.create_connection((host, port), 10) as s, s.makefile("rwb") as f:
        s.settimeout(20)
        for line in (b"hello %d\n" % number, b"x" * 5000 + b"\n"):
            f.write(line)
            f.flush()
            assert f.readline() == line
        # Of the small ones each is one read, at which nothing else is on its way: so the child, which asks after 64 reads and each time after twice
        # as many, gets the connection at the latest then, also if it has read the large ones before that in pieces of a segment each.
        for i in range(lines * 5):
            small = lines // 5 <= i < lines * 4 + lines // 5
            line = random.randbytes(3 if small else random.choice((3, 100, 4000, 20000))).hex().encode() + b"\n"
            f.write(line)
            f.flush()
            assert f.readline() == line
        if waits:
            print("lasting", flush=True)
            goes_on.wait(60)
        f.write(b"peer\n")
        f.flush()
        assert f.readline().decode().strip() == s.getsockname()[0]
        f.write(b"program\n")
        f.flush()
        assert f.readline() == b"from a program\n"
        f.write(b"size 1048576\n")
        f.flush()
        s.shutdown(socket.SHUT_WR)
        assert f.read() == b"0123456789abcdef" * 65536
    good.append(number)


for r in range(rounds):
    threads = [threading.Thread(target=converse, args=(r * at_a_time + i,)) for i in range(at_a_time)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
print("good", len(good))
sys.exit(len(good) != at_a_time * rounds)
