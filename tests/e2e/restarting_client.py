"""One life of a client: COUNT connections, one after the other, each with a request for PATH that the server ends. Says how
long the slowest but the first took ("slowest S", seconds). With "killed" it ends by SIGKILL, with connections open."""

import os
import signal
import socket
import sys
import time

host, port, path, count, end = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
slowest = 0.0
kept = []


for i in range(count):
    start = time.monotonic()
    with socket.create_connection((host, port), 10) as s:
        s.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = b""
        while part := s.recv(65536):
            answer += part
        assert answer.endswith(b"\r\n\r\nhello\n"), answer
    if i > 0:  # a device that has just been opened may lose its first frame
        slowest = max(slowest, time.monotonic() - start)
if end == "killed":
    kept = [socket.create_connection((host, port), 10) for _ in range(20)]
print(f"slowest {slowest:.3f}", flush=True)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
