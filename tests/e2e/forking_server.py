"""A socketserver that forks for each connection: echoes what comes, line by line; "size N" answers N bytes."""

import socketserver
import subprocess
import sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            words = line.split()
            if words[:1] == [b"size"]:
                self.wfile.write(b"0123456789abcdef" * (int(words[1]) // 16))
            elif words[:1] == [b"program"]:
                self.wfile.write(subprocess.run(["/bin/echo", "from", "a", "program"], stdout=subprocess.PIPE, check=True).stdout)
            elif words[:1] == [b"peer"]:
                self.wfile.write(f"{self.request.getpeername()[0]}\n".encode())
            else:
                self.wfile.write(line)


class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64


with Server((sys.argv[1], int(sys.argv[2])), Handler) as server:
    print("ready", flush=True)
    server.serve_forever()
