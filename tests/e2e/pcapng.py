"""Reads what mtcp-dump writes, block by block."""

import struct
from dataclasses import dataclass, field

from harness import expect, expect_equal


@dataclass
class Interface:
    name: str = ""
    description: str = ""
    snap_length: int = 0
    options: dict = field(default_factory=dict)
    received: int = None  # of the statistics, if there are some
    dropped: int = None


@dataclass
class Packet:
    interface: Interface
    nanoseconds: int
    length: int
    direction: str
    bytes: bytes


def options_of(text):
    found, at = {}, 0
    while at + 4 <= len(text):
        code, length = struct.unpack_from("=HH", text, at)
        if code == 0:
            break
        found[code] = text[at + 4:at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
    return found


def read(path):
    """(interfaces, packets)"""
    text = path.read_bytes()
    interfaces, packets, at = [], [], 0
    while at < len(text):
        kind, length = struct.unpack_from("=II", text, at)
        expect(length >= 12 and length % 4 == 0 and at + length <= len(text), f"a block of {length} bytes at {at} of {len(text)}")
        expect_equal("a block's second length", struct.unpack_from("=I", text, at + length - 4)[0], length)
        body = text[at + 8:at + length - 4]
        if kind == 1:
            options = options_of(body[8:])
            interfaces.append(Interface(options[2].decode(), options[3].decode(), struct.unpack_from("=I", body, 4)[0], options))
        elif kind == 6:
            number, high, low, captured, original = struct.unpack_from("=5I", body)
            flags, = struct.unpack("=I", options_of(body[20 + (captured + 3) // 4 * 4:])[2])
            packets.append(Packet(interfaces[number], high << 32 | low, original, {1: "in", 2: "out"}[flags & 3], body[20:20 + captured]))
        elif kind == 5:
            options = options_of(body[12:])
            entry = interfaces[struct.unpack_from("=I", body)[0]]
            entry.received, entry.dropped = (struct.unpack("=Q", options[code])[0] for code in (4, 5))
        else:
            expect_equal("the kind of a block", kind, 0x0a0d0d0a)
        at += length
    return interfaces, packets
