#!/usr/bin/env python3
"""The open loop counts what a closed one leaves out: a server that stops for a while makes all late that was due meanwhile. And it believes
no wrong answer.

usage: check_open_load.py OPEN_LOAD ECHO_SERVER"""
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

passed = failed = 0


def check(what, right, detail=""):
    global passed, failed
    passed, failed = passed + bool(right), failed + (not right)
    if not right:
        print(f"not ok: {what}: {detail}", flush=True)


def load(program, port, *words):
    done = subprocess.run([program, *map(str, words), "127.0.0.1", str(port)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=30, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"status": done.returncode, "said": done.stderr}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def echoes(program, server):
    """Also of one that is stopped from 0.5 to 1.1 s of the two seconds: three tenths were due then, and wait half of that in the mean."""
    port = free_port()
    with subprocess.Popen([server, "127.0.0.1", str(port)], stdin=subprocess.DEVNULL) as process:
        result = load(program, port, "--rate", 100, "--connections", 4, "--seconds", 0.5, "--echo", 100000)
        check("echoes of 100 kB", result.get("answered") == result.get("due") == 50 and result["wrong_answers"] == 0, result)

        def stall():
            time.sleep(0.5)
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.6)
            os.kill(process.pid, signal.SIGCONT)

        thread = threading.Thread(target=stall)
        thread.start()
        result = load(program, port, "--rate", 1000, "--connections", 4, "--seconds", 2, "--echo", 64)
        thread.join()
        process.terminate()
    check("all are sent and answered", result.get("answered") == result.get("due") == 2000, result)
    # Of a closed loop, four of all its requests would be late: not even p99 would show it.
    check("p90 of a server that stopped for 0.6 of 2 s", 250_000 < result["p90_us"] < 1_500_000, result)
    check("its p99 and longest", 450_000 < result["p99_us"] <= result["p999_us"] <= result["max_us"] < 2_000_000, result)
    check("its median", result["p50_us"] < 400_000, result)
    check("the server's status", process.returncode == 0, process.returncode)


def answer_once(listener, answer):
    end, _ = listener.accept()
    while end.recv(65536):
        if answer is None:
            break
        end.sendall(answer)
    end.close()


def http(program):
    good = b"HTTP/1.1 200 OK\r\nServer: x\r\nCONTENT-length:  5\r\n\r\nhello"
    for what, answer, key in (("a right answer", good, "answered"), ("a status of 404", good.replace(b"200 OK", b"404 No"), "wrong_answers"),
                              ("a byte more", good + b"x", "wrong_answers"), ("no length", good.replace(b"CONTENT-", b"X-"), "wrong_answers"),
                              ("the end instead", None, "closed_early")):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=answer_once, args=(listener, answer))
            thread.start()
            result = load(program, listener.getsockname()[1], "--rate", 20, "--connections", 1, "--seconds", 0.1, "--http", "/")
            thread.join()
        check(what, result.get(key) == (2 if answer == good else 1), result)


def too_fast(program):
    """A server that answers one in 50 ms, of 200 a second: what is not sent is said, and counts as late."""
    def slow(listener):
        end, _ = listener.accept()
        while data := end.recv(64):
            time.sleep(0.05)
            end.sendall(data)
        end.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=slow, args=(listener,))
        thread.start()
        result = load(program, listener.getsockname()[1], "--rate", 200, "--connections", 1, "--seconds", 1, "--echo", 8)
        thread.join()
    check("those that were not sent", result.get("answered", 0) + result["unsent"] == 200 and result["unsent"] >= 120 and result["p99_us"] > 500_000
          and 10 < result["per_second"] < 21, result)


def main():
    program, server = sys.argv[1:]
    echoes(program, server)
    http(program)
    too_fast(program)
    check("nobody listens", load(program, 1, "--rate", 1, "--connections", 1, "--seconds", 1, "--echo", 0)["status"] == 2)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
