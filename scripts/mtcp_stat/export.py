"""What programs read: JSON, and the text format of Prometheus, at once or from a small HTTP server."""

import json
import os
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from .processes import StatError
from .report import number

# What is no counter although a number: it goes up and down.
GAUGES = {
    "stack": {"connections": "connections of the stack", "time_waits": "connections in TIME-WAIT",
              "packets_free": "packet buffers that are free", "packets": "packet buffers in all"},
    "memory": {"used": "bytes of packets that connections hold", "out_of_order": "bytes that wait for a hole to be filled",
               "orphans": "connections that no descriptor refers to"},
}
RUNNING = {"stack": {"turns": "rounds of the stack's loop", "useful": "rounds that found something to do",
                     "contended": "times that a call had to wait for the stack's lock"}}


def flow_dict(flow):
    return {"state": flow.state, "local": flow.local, **({"remote": flow.remote} if flow.remote else {}),
            **{key: number(value) for key, value in flow.values.items()}}


def process_dict(pid, report, wanted):
    return {
        "pid": pid, "program": report.program, "device": report.device, **report.groups(),
        "counters": {c.name: c.value for c in report.counters.values()},
        "listeners": [flow_dict(f) for f in report.listeners if wanted(f)],
        "connections": [flow_dict(f) for f in report.connections if wanted(f)],
    }


def as_json(reports, wanted):
    return json.dumps([process_dict(pid, report, wanted) for pid, report in sorted(reports.items())], indent=2)


def label(text):
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Metrics:
    """Samples in order of their metric, each metric with its HELP and TYPE once, as the format wants it."""

    def __init__(self):
        self.metrics = {}

    def add(self, name, kind, text, labels, value):
        _, _, samples = self.metrics.setdefault(name, (kind, text, []))
        samples.append((labels, value))

    def __str__(self):
        out = []
        for name, (kind, text, samples) in self.metrics.items():
            help_text = text.replace("\\", r"\\").replace("\n", r"\n")
            out += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
            for labels, value in samples:
                pairs = ",".join(f'{key}="{label(str(text))}"' for key, text in labels.items())
                out.append(f"{name}{{{pairs}}} {value}")
        return "\n".join(out) + "\n"


def states_of(report):
    counts = {}
    for flow in report.connections:
        counts[flow.state] = counts.get(flow.state, 0) + 1
    return counts


def as_prometheus(reports):
    metrics = Metrics()
    for pid, report in sorted(reports.items()):
        whose = {"pid": pid, "program": report.program, "device": report.device}
        groups = report.groups()
        for table, kind, suffix in ((GAUGES, "gauge", ""), (RUNNING, "counter", "_total")):
            for group, names in table.items():
                for name, text in names.items():
                    if name in groups.get(group, {}):
                        metrics.add(f"mtcp_{group}_{name}{suffix}", kind, text, whose, groups[group][name])
        for state, count in sorted(states_of(report).items()):
            metrics.add("mtcp_connections", "gauge", "connections by state", {**whose, "state": state}, count)
        for flow in report.listeners:
            for key, text in (("queued", "connections that wait to be accepted"), ("backlog", "how many may wait"),
                              ("half_open", "handshakes that are not complete")):
                if key in flow.values:
                    metrics.add(f"mtcp_listener_{key}", "gauge", text, {**whose, "local": flow.local}, flow.values[key])
        for counter in report.counters.values():
            metrics.add(f"mtcp_{counter.name}_total", "counter", counter.text, {**whose, "severity": counter.severity}, counter.value)
    return str(metrics)


# --- the server

class UnixServer(HTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self):  # HTTPServer's looks up the name of a host
        socket.socket.bind(self.socket, self.server_address)
        self.server_name, self.server_port = "localhost", 0

    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("unix", 0)


def handler(read):
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds; one client at a time is served

        def do_GET(self):
            if self.path.split("?")[0] not in ("/", "/metrics"):
                self.send_error(404)
                return
            try:
                text = as_prometheus(read())
            except StatError as error:
                self.send_error(503, str(error))
                return
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


def parse_listen(text):
    """unix:PATH, HOST:PORT or PORT (of 127.0.0.1): a path, or (host, port)."""
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, _, number_text = text.rpartition(":")
    if not number_text.isdecimal() or not 0 < int(number_text) < 65536:
        raise ValueError(f"{text!r} is neither unix:PATH nor HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(number_text)


def serve(where, read):
    """Answers until it is interrupted. `read` returns what as_prometheus() takes."""
    try:
        if isinstance(where, str):
            server = UnixServer(where, handler(read))
        else:
            class Server(HTTPServer):
                address_family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
            server = Server(where, handler(read))
    except OSError as error:
        raise StatError(f"can't listen on {where}: {error.strerror}") from None
    inode = os.stat(where).st_ino if isinstance(where, str) else None
    try:
        server.serve_forever()
    finally:
        server.server_close()
        if inode is not None and Path(where).exists() and os.stat(where).st_ino == inode:
            os.unlink(where)
