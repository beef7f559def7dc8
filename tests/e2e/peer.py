"""The kernel's end in the tests of idleness and of the service thread: connects, does one thing, and prints what it saw."""

import ctypes
import fcntl
import select
import socket
import struct
import sys
import time

SIOCOUTQ = 0x5411
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
COMPUTES = 4  # seconds that busy_server computes once it has heard what to do: what is there before so long after that was said came meanwhile


def connect(host, port):
    s = socket.create_connection((host, int(port)), 10)
    s.settimeout(10)
    return s


def unacknowledged(s):
    return struct.unpack("i", fcntl.ioctl(s.fileno(), SIOCOUTQ, struct.pack("i", 0)))[0]


def hold(host, port, how_many):
    held = [connect(host, port) for _ in range(int(how_many))]
    print("holding", len(held))
    time.sleep(60)


def stall(host, port, path, how_many):
    """Asks for something large, with a small window, and never reads."""
    held = []
    for _ in range(int(how_many)):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(10)
        s.connect((host, int(port)))
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        held.append(s)
    print("stalled", len(held))
    time.sleep(60)


def ask(host, port, how_many, pause):
    """Requests on one connection, with a pause after each."""
    s = connect(host, port)
    for i in range(int(how_many) + 20):
        if i == 20:
            print("begins")
        s.sendall(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert s.recv(10000).endswith(b"hello\n")
        time.sleep(float(pause))
    print("asked")


def acks(host, port):
    """Sends while the server computes: all of it must be acknowledged before the server looks at its socket again."""
    s = connect(host, port)
    said = time.monotonic()
    s.sendall(b"receive")
    assert s.recv(100) == b"computing"
    for _ in range(20):
        s.sendall(b"x" * 1000)
        time.sleep(0.02)
    while unacknowledged(s) > 0 and time.monotonic() - said < COMPUTES:
        time.sleep(0.01)
    done, took = unacknowledged(s) == 0, time.monotonic() - said
    print("all of it" if done else "not all", "after", round(took, 2), "s")
    if done and took < COMPUTES:
        print("acknowledged")
    s.shutdown(socket.SHUT_WR)
    s.recv(100)


def deafen(s):
    """From now on the kernel drops whatever comes for the socket, as if it were lost on the wire."""
    nothing = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET of 0 bytes
    s.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(nothing)))


def retransmits(host, port):
    """Is deaf while the server sends; what was lost must come again while the server computes."""
    s = connect(host, port)
    s.sendall(b"send")
    assert s.recv(100) == b"computing"
    deafen(s)
    said = time.monotonic()
    s.sendall(b"go")
    time.sleep(0.9)
    assert not select.select([s], [], [], 0)[0], "its peer was not deaf"
    s.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    got = 0
    while got < 5000:
        part = s.recv(10000)
        if not part:
            break
        got += len(part)
    took = time.monotonic() - said
    print("got", got, "after", round(took, 2), "s")
    if got == 5000 and took < COMPUTES:
        print("arrived")
    s.shutdown(socket.SHUT_WR)
    s.recv(100)


def connects(host, port):
    """A handshake is answered while the server computes."""
    s = connect(host, port)
    said = time.monotonic()
    s.sendall(b"compute")
    assert s.recv(100) == b"computing"
    asked = time.monotonic()
    second = connect(host, port)
    print("second connection after", round(time.monotonic() - asked, 2), "s")
    if time.monotonic() - said < COMPUTES:
        print("connected")
    second.close()
    s.shutdown(socket.SHUT_WR)
    s.recv(100)


def await_end(address, port):
    """Accepts one connection, reads to its end, and tells how long that took."""
    with socket.create_server((address, int(port))) as listener:
        print("listening")
        s, _ = listener.accept()
    s.settimeout(10)
    assert s.recv(100) == b"hello"
    print("connected")
    started = time.monotonic()
    try:
        s.recv(100)
    except ConnectionResetError:
        pass
    print("ended after", round(time.monotonic() - started, 2), "s")


def stay(host, port):
    s = connect(host, port)
    s.sendall(b"hello")
    time.sleep(60)


globals()[sys.argv[1]](*sys.argv[2:])
