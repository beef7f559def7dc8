"""Many HTTP clients in one program, which tell apart what became of each connection.

spread HOST PORT PATH CONNECTIONS PARALLEL      one request on each of so many connections
load HOST PORT PATH SECONDS CLOSING KEEPING     so many clients, with a connection per request or keeping theirs
watch HOST PORT PATH SECONDS CLIENTS [CLOSING]  clients that keep their connections and ask every 20 ms, and some with a
                                                connection per request; lists what broke

`--patient` before the mode: an answer may take half a minute.

Prints one line of JSON. Times are CLOCK_MONOTONIC's. A request on a kept connection that the server closes before the
first byte of its answer has crossed the server's close: allowed by RFC 9112 9.6, sent again on a fresh connection, and
counted as `crossed`. Everything else that is not a whole answer is a failure. Ends early, and prints, on SIGTERM.
"""

import errno
import heapq
import json
import selectors
import signal
import socket
import sys
import time

SILENCE = 6.0  # seconds after which a connection that does not answer counts as silent: a SYN has come again twice by then


class Client:
    """One client: connects, asks, reads the answer, and does so again as its run decides."""

    def __init__(self, run, keeps):
        self.run, self.keeps = run, keeps
        self.socket = None
        self.body = None  # of this connection's last answer

    def begin(self, now):
        self.asked, self.data = now, b""
        self.run.waiting[self] = now + self.run.silence
        if self.socket is None:
            self.socket = socket.socket(self.run.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.opened, self.answers, self.body = now, 0, None
            error = self.socket.connect_ex(self.run.server)
            if error not in (0, errno.EINPROGRESS):
                self.broken(now, error)
                return
            self.connecting = True
            self.run.selector.register(self.socket, selectors.EVENT_WRITE, self)
        else:
            self.ask()

    def ask(self):
        try:
            self.socket.send(self.run.request(self.keeps))
        except OSError as error:
            self.broken(time.monotonic(), error.errno)

    def ready(self, now):
        try:
            if self.connecting:
                if error := self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self.broken(now, error)
                    return
                self.connecting = False
                self.run.selector.modify(self.socket, selectors.EVENT_READ, self)
                self.ask()
                return
            part = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.broken(now, error.errno)
            return
        if not part:
            self.broken(now, 0)
            return
        self.data += part
        head, end, body = self.data.partition(b"\r\n\r\n")
        if end and len(body) >= content_length(head):
            self.answered(now, head, body)

    def answered(self, now, head, body):
        self.run.waiting.pop(self, None)
        self.body = body.decode().strip() if len(body) < 100 else f"{len(body)} bytes"
        self.answers += 1
        good = head.startswith(b"HTTP/1.1 200")
        if b"connection: close" in head.lower():
            self.close()
        self.run.answer(self, now, now - self.asked, good)

    def broken(self, now, error):
        """The connection ended before the answer did: `error` is 0 for a close, None for silence."""
        idle = self not in self.run.waiting
        self.run.waiting.pop(self, None)
        fresh = self.answers == 0
        self.close()
        kind = "silent" if error is None else "closed" if error == 0 else errno.errorcode[error]
        self.run.broke(self, now, kind, fresh, idle, bool(self.data))

    def close(self):
        if self.socket is not None:
            try:
                self.run.selector.unregister(self.socket)
            except KeyError:
                pass
            self.socket.close()
            self.socket = None

    data = b""
    connecting = False
    answers = 0
    asked = opened = 0.0
    due = 0  # which of the run's timers is this client's


def content_length(head):
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


class Run:
    """The loop, and what is counted. Subclasses say when a client asks again."""

    silence = SILENCE

    def __init__(self, host, port, path):
        self.server = (host, int(port))
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.host, self.path = f"[{host}]" if ":" in host else host, path
        self.selector = selectors.DefaultSelector()
        self.waiting, self.timers, self.serial = {}, [], 0
        self.stopped = False
        self.requests, self.crossed, self.latencies = 0, 0, []
        self.bodies, self.failures, self.failed = {}, [], 0
        self.first = {}  # when each body came first
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopped", True))

    def request(self, keeps):
        connection = "keep-alive" if keeps else "close"
        return f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: {connection}\r\n\r\n".encode()

    def later(self, client, when):
        self.serial += 1
        client.due = self.serial
        heapq.heappush(self.timers, (when, self.serial, client))

    def answer(self, client, now, took, good):
        self.requests += 1
        self.latencies.append(took)
        self.bodies[client.body] = self.bodies.get(client.body, 0) + 1
        self.first.setdefault(client.body, now)
        if not good:
            self.fail(now, client, "not 200", False)
        self.next(client, now)

    def broke(self, client, now, kind, fresh, idle, began):
        if not idle and not fresh and not began and kind in ("closed", "ECONNRESET", "EPIPE"):
            self.crossed += 1
        elif not idle:
            self.fail(now, client, kind, fresh)
        self.next(client, now)

    def fail(self, now, client, kind, fresh):
        self.failed += 1
        if len(self.failures) < 1000:
            self.failures.append({"time": now, "kind": kind, "fresh": fresh, "opened": client.opened, "body": client.body})

    def loop(self, until):
        while not self.stopped and not self.done():
            now = time.monotonic()
            if now >= until:
                break
            while self.timers and self.timers[0][0] <= now:
                _, serial, client = heapq.heappop(self.timers)
                if client.due == serial:
                    client.begin(now)
            self.wait(min([0.05, until - now] + [t[0] - now for t in self.timers[:1]]))
        while self.waiting:  # who has asked by now is answered as well
            self.wait(0.05)
        self.latencies.sort()

    def wait(self, pause):
        """For answers, and for connections that are silent."""
        for key, _ in self.selector.select(max(0.0, pause)):
            key.data.ready(time.monotonic())
        now = time.monotonic()
        for client in [c for c, deadline in self.waiting.items() if deadline <= now]:
            client.broken(now, None)

    def done(self):
        return False

    def report(self):
        def part(share):
            return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * share))] if self.latencies else None

        print(json.dumps({"requests": self.requests, "failed": self.failed, "failures": self.failures, "crossed": self.crossed,
                          "bodies": self.bodies, "first": self.first, "median": part(0.5), "p90": part(0.9), "worst": part(1)}))


class Spread(Run):
    def __init__(self, host, port, path, connections, parallel):
        super().__init__(host, port, path)
        self.wanted = self.left = int(connections)
        for _ in range(min(int(parallel), self.left)):
            self.next(Client(self, False), 0.0)

    def next(self, client, now):
        client.close()
        if self.left > 0:
            self.left -= 1
            self.later(client, now)

    def done(self):
        return self.requests + self.failed >= self.wanted


class Load(Run):
    def __init__(self, host, port, path, closing, keeping):
        super().__init__(host, port, path)
        for i in range(int(closing) + int(keeping)):
            self.later(Client(self, i >= int(closing)), 0.0)

    def next(self, client, now):
        if not client.keeps:
            client.close()
        # After a failure not at once: a server that refuses would be asked by nothing but this loop.
        self.later(client, now + (0.01 if client.socket is None and client.keeps else 0.0))


class Watch(Run):
    """Every end of a connection is listed, idle ones' too."""

    def __init__(self, host, port, path, clients, closing=0):
        super().__init__(host, port, path)
        for i in range(int(clients) + int(closing)):
            self.later(Client(self, i < int(clients)), time.monotonic() + i * 0.002)

    def broke(self, client, now, kind, fresh, idle, began):
        self.fail(now, client, kind, fresh)
        self.next(client, now)

    def next(self, client, now):
        if not client.keeps:
            client.close()
        self.later(client, now + 0.02)


def main():
    words = sys.argv[1:]
    if words[0] == "--patient":
        Run.silence = 30.0
        del words[0]
    mode, host, port, path, *rest = words
    if mode == "spread":
        run, seconds = Spread(host, port, path, *rest), 60.0
    elif mode == "load":
        run, seconds = Load(host, port, path, *rest[1:]), float(rest[0])
    else:
        run, seconds = Watch(host, port, path, *rest[1:]), float(rest[0])
    run.loop(time.monotonic() + seconds)
    run.report()


main()
