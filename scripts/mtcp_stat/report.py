"""One process's answer, taken apart: what it says of its stack, its counters, listeners and connections."""

import re
import time
from dataclasses import dataclass, field


def values(words):
    return dict(word.split("=", 1) for word in words if "=" in word)


def number(text):
    return int(text) if re.fullmatch(r"-?\d+", text) else text


@dataclass
class Counter:
    name: str
    value: int
    severity: str  # info, drop or error
    text: str


@dataclass
class Flow:
    """A connection, or a listener (whose state is LISTEN and whose remote end is empty)."""

    state: str
    local: str
    remote: str
    values: dict = field(default_factory=dict)


class Report:
    def __init__(self, lines):
        self.lines = lines
        self.time = time.monotonic()
        self.head, self.counters, self.listeners, self.connections = [], {}, [], []
        for line in lines[1:-1]:
            kind, _, rest = line.partition(" ")
            words = rest.split()
            if kind == "counter":
                name, value, severity, text = (rest.split(" ", 3) + [""])[:4]
                self.counters[name] = Counter(name, int(value), severity, text)
            elif kind == "connection":
                self.connections.append(Flow(*words[:3], values(words[3:])))
            elif kind == "listener":
                self.listeners.append(Flow("LISTEN", words[0], "", values(words[1:])))
            else:
                self.head.append(f"{kind}: {rest}")

    def value(self, pattern, default="-"):
        found = re.search(pattern, "\n".join(self.head))
        return found[1] if found else default

    @property
    def program(self):
        return self.value(r"program=(.*) device=")

    @property
    def device(self):
        return self.value(r" device=(.*)")

    @property
    def connection_count(self):
        """How many the stacks say that they have."""
        return self.groups().get("stack", {}).get("connections", 0)

    def groups(self):
        """What is no counter and no connection, by kind: {"stack": {"connections": 3, ...}, ...}. The numbers of several stacks
        are added up."""
        out = {}
        for line in self.head:
            kind, _, rest = line.partition(": ")
            if kind == "process":  # whose names may have blanks
                continue
            group = out.setdefault(kind, {})
            for key, text in values(rest.split()).items():
                value = number(text)
                group[key] = group[key] + value if isinstance(value, int) and isinstance(group.get(key), int) else value
        return out
