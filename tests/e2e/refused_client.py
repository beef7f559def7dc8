"""Clients that may be refused, and say what else happens to them.

HOST PORT SECONDS CLIENTS     so many clients, a connection for each request of /hello; prints how many were answered, refused,
                              and what became of the others
--hold HOST PORT CONNECTIONS  opens so many connections, asks on each for /port, prints the local ports that the server has seen,
                              and holds them

Prints one line of JSON.
"""

import collections
import json
import socket
import sys
import threading
import time


def ask(connection, path, close=True):
    connection.settimeout(10)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{'Connection: close' if close else 'X: y'}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or (close and not answer.endswith(b"hello\n")):
        part = connection.recv(65536)
        if not part:
            break
        answer += part
    return answer


def load(host, port, seconds, clients):
    ends = time.monotonic() + float(seconds)
    seen, other, lock = collections.Counter(), collections.Counter(), threading.Lock()

    def run():
        while time.monotonic() < ends:
            what = None
            try:
                with socket.create_connection((host, int(port)), timeout=10) as connection:
                    answer = ask(connection, "/hello")
                    if not answer.startswith(b"HTTP/1.1 200"):
                        what = f"answer of {len(answer)} bytes"
            except ConnectionRefusedError:
                with lock:
                    seen["refused"] += 1
                time.sleep(0.01)
                continue
            except OSError as error:
                what = f"{type(error).__name__}: {error}"
            with lock:
                if what:
                    other[what] += 1
                else:
                    seen["answered"] += 1

    threads = [threading.Thread(target=run) for _ in range(int(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"answered": seen["answered"], "refused": seen["refused"], "other": other}), flush=True)


def hold(host, port, count):
    held, ports = [], []
    for _ in range(int(count)):
        held.append(socket.create_connection((host, int(port)), timeout=10))
        ports.append(int(ask(held[-1], "/port", close=False).split(b"\r\n\r\n")[1]))
    print(json.dumps({"ports": ports}), flush=True)
    time.sleep(60)


if __name__ == "__main__":
    hold(*sys.argv[2:]) if sys.argv[1] == "--hold" else load(*sys.argv[1:])
