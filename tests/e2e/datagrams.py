"""Datagrams beside connections.

usage: datagrams.py serve HOST PORT          answers connections and datagrams of one port with what they bring, in one loop
       datagrams.py echo HOST PORT ROUNDS    datagrams of all sizes to such a server, one after the other
       datagrams.py memcached HOST PORT ROUNDS
       datagrams.py names HOST NAME ADDRESS  a name server that knows one name, and says who has asked
"""

import random
import selectors
import socket
import struct
import sys

SIZES = (0, 1, 64, 1472, 1473, 9000, 20_000)  # those over 1472 come in fragments; a few of the largest fit into a receive buffer
PATIENCE = 5  # seconds for any one answer


def serve(host, port):
    ready = selectors.DefaultSelector()
    listener = socket.create_server((host, int(port)), backlog=64)
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((host, int(port)))
    ready.register(listener, selectors.EVENT_READ)
    ready.register(datagrams, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in ready.select():
            if key.fileobj is listener:
                ready.register(listener.accept()[0], selectors.EVENT_READ)
            elif key.fileobj is datagrams:
                data, peer = datagrams.recvfrom(65536)
                datagrams.sendto(data, peer)
            elif data := key.fileobj.recv(65536):
                key.fileobj.sendall(data)
            else:
                ready.unregister(key.fileobj)
                key.fileobj.close()


def connected(host, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(PATIENCE)
    s.connect((host, int(port)))
    return s


def echo(host, port, rounds):
    noise = random.Random(1)
    s = connected(host, port)
    for i in range(int(rounds)):
        sent = noise.randbytes(SIZES[i % len(SIZES)])
        s.send(sent)
        got = s.recv(65536)
        assert got == sent, f"datagram {i}: {len(sent)} bytes came back as {len(got)}"


def memcached(host, port, rounds):
    """Its frames have a header of request number, number of this datagram, of all, and 0."""
    s = connected(host, port)

    def ask(number, text):
        s.send(struct.pack("!HHHH", number, 0, 1, 0) + text)
        answer = s.recv(65536)
        assert struct.unpack("!HHHH", answer[:8])[:2] == (number, 0), answer[:8]
        return answer[8:]

    for i in range(int(rounds)):
        value = b"%d" % i * 100
        stored = ask(2 * i, b"set by-datagram-%d 0 0 %d\r\n%b\r\n" % (i, len(value), value))
        assert stored == b"STORED\r\n", stored
        got = ask(2 * i + 1, b"get by-datagram-%d\r\n" % i)
        assert got == b"VALUE by-datagram-%d 0 %d\r\n%b\r\nEND\r\n" % (i, len(value), value), got


def names(host, name, address):
    """RFC 1035 section 4: the question as it came, and for an A record of that name its address."""
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((host, 53))
    print("ready", flush=True)
    wanted = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    while True:
        data, peer = s.recvfrom(512)
        question = data[12:data.index(b"\0", 12) + 5]
        known = question[:-4].lower() == wanted
        answers = 1 if known and question[-4:] == b"\0\1\0\1" else 0
        header = data[:2] + struct.pack("!HHHHH", 0x8180 if known else 0x8183, 1, answers, 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(address)
        s.sendto(header + question + record * answers, peer)
        print("asked by", *peer, flush=True)


if __name__ == "__main__":
    {"serve": serve, "echo": echo, "memcached": memcached, "names": names}[sys.argv[1]](*sys.argv[2:])
