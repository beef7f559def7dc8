"""Programs of several processes on one device, for suite_family.py. usage: family.py WHAT ADDRESS PORT [COUNT]"""

import os
import select
import signal
import socket
import sys
import threading
import time

WHAT, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
COUNT = int(sys.argv[4]) if len(sys.argv) > 4 else 1


def child(body):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    return pid


def statuses(pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def listener(port=PORT, address=ADDRESS):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    s.listen(64)
    return s


def serve(s, text):
    connection, _ = s.accept()
    with connection:
        connection.recv(100)
        connection.sendall(text)


def ask(port=PORT, address=ADDRESS, keep=0.0):
    with socket.create_connection((address, port), 30) as s:
        s.sendall(b"ask")
        answer = s.recv(100)
        time.sleep(keep)
        return answer


def to_parent():
    """Children reach their parent's listener, and the parent that of a child, on the device's own address and on loopback."""
    for address in (ADDRESS, "127.0.0.1"):
        with listener(0, address) as s:
            port = s.getsockname()[1]

            def talk(port=port, address=address):
                assert ask(port, address) == b"parent"

            children = [child(talk) for _ in range(COUNT)]
            for _ in range(COUNT):
                serve(s, b"parent")
            print(address, statuses(children), flush=True)
            server = child(lambda s=s: serve(s, b"child"))
            print(ask(port, address), statuses([server]), flush=True)


def connect():
    """Children that have been forked before anybody has used the device: each connects and stays."""

    def talk():
        assert ask(keep=1.0) == b"answer"

    print(statuses([child(talk) for _ in range(COUNT)]), flush=True)


def listen():
    """Each has a listener of its own."""

    def one(i):
        s = listener(PORT + i)
        print("listens", flush=True)
        serve(s, b"child %d" % i)

    print(statuses([child(lambda i=i: one(i)) for i in range(COUNT)]), flush=True)


def hand_down():
    """The first that has opened the device leaves before the others are done."""
    reader, writer = os.pipe()

    def first():
        assert ask() == b"answer"
        os.write(writer, b"x" * COUNT)

    def second():
        os.read(reader, 1)
        time.sleep(0.3)
        for _ in range(20):
            assert ask(keep=0.02) == b"answer"

    others = [child(second) for _ in range(COUNT)]
    print(statuses([child(first)] + others), flush=True)


def stopped():
    """One that has the device is stopped. Another one wants its part of it, and its other threads go on meanwhile."""
    reader, writer = os.pipe()

    def first():
        assert ask() == b"answer"
        os.write(writer, b"x")
        time.sleep(60)

    pid = child(first)
    answers = []

    def second():
        os.read(reader, 1)
        os.kill(pid, signal.SIGSTOP)
        thread = threading.Thread(target=lambda: answers.append(ask()))
        thread.start()
        longest = 0.0
        end = time.monotonic() + 2
        while time.monotonic() < end:
            start = time.monotonic()
            socket.socket().close()
            longest = max(longest, time.monotonic() - start)
            time.sleep(0.01)
        os.kill(pid, signal.SIGCONT)
        thread.join(10)
        print(f"longest {longest:.2f} {answers}", flush=True)

    print(statuses([child(second)]), flush=True)
    os.kill(pid, signal.SIGKILL)


def busy():
    """Listens, and does something else for a while; says when it is back (CLOCK_MONOTONIC)."""
    s = listener()
    print("listens", flush=True)
    time.sleep(3)
    print(f"back at {time.monotonic()}", flush=True)
    while True:
        serve(s, b"late")


def transfer():
    """As FTP: a child opens a listener of its own, tells its port on the connection that its parent has accepted, and receives."""
    s = listener()
    print("listens", flush=True)
    for _ in range(COUNT):
        control, _ = s.accept()

        def receive(control=control):
            s.close()
            with listener(0) as own:
                control.sendall(b"%d" % own.getsockname()[1])
                data, _ = own.accept()
            total = 0
            while block := data.recv(65536):
                total += len(block)
            data.sendall(b"%d" % total)

        print(statuses([child(receive)]), flush=True)
        control.close()


def beside():
    """A server of both protocols."""
    with listener() as s, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind((ADDRESS, PORT))
        print("bound to", datagrams.getsockname()[0], flush=True)
        serve(s, b"tcp")


def crowd():
    """More processes at a time than a device has slots: each connects and stays, and the last one listens instead."""
    assert ask() == b"answer"  # the device is this process's, and its children inherit it
    (connected, done), (end, goes_on) = os.pipe(), os.pipe()

    def stay():
        os.close(goes_on)
        with socket.create_connection((ADDRESS, PORT), 30) as s:
            s.sendall(b"ask")
            assert s.recv(100) == b"answer"
            os.write(done, b"x")
            os.read(end, 1)

    def last():
        with listener(PORT, "0.0.0.0") as s:
            print("listens", flush=True)
            serve(s, b"at once")
            select.select([s], [], [])
            serve(s, b"when told")

    children = [child(stay) for _ in range(COUNT)]
    count = 0
    while count < COUNT:
        count += len(os.read(connected, COUNT))
    server = child(last)
    print("served", statuses([server]), flush=True)
    os.close(goes_on)
    print(set(statuses(children)), flush=True)


def late():
    """Listens on the wildcard address and leaves that to a child, which has something else to do first."""
    s = listener(PORT, "0.0.0.0")
    pid = child(lambda: (time.sleep(0.7), serve(s, b"late")))
    s.close()
    print("listens", flush=True)
    print(statuses([pid]), flush=True)


def activated():
    """As sd_listen_fds(3) has it: the listener is descriptor 3."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        s = socket.socket()
        s.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
        s.bind((ADDRESS, PORT))
        s.listen(5)
        if s.fileno() != 3:
            os.dup2(s.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LD_PRELOAD=os.environ["SHIM"])
        os.execv(sys.executable, [sys.executable, *sys.argv])
    s = socket.socket(fileno=3)
    print("listens", flush=True)
    serve(s, b"activated")


{"to-parent": to_parent, "connect": connect, "listen": listen, "hand-down": hand_down, "busy": busy, "transfer": transfer,
 "beside": beside, "crowd": crowd, "late": late, "activated": activated, "stopped": stopped}[WHAT]()
