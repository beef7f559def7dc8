"""Raw packets from the kernel's end of the wire: echo requests, fragments, and frames that no honest peer sends."""

import os
import random
import select
import socket
import struct
import sys
import time

ETH_IPV4 = 0x0800


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ping(host):
    """Five echo requests; says how many were answered with what was sent."""
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    good = 0
    for number in range(5):
        payload = os.urandom(56 + number * 200)
        head = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, number)
        packet = struct.pack("!BBHHH", 8, 0, checksum(head + payload), os.getpid() & 0xFFFF, number) + payload
        s.sendto(packet, (host, 0))
        deadline = time.monotonic() + 5
        while select.select([s], [], [], max(0, deadline - time.monotonic()))[0]:
            answer = s.recv(4096)[20:]
            if answer[0] == 0 and answer[4:] == packet[4:]:
                good += 1
                break
    print(f"{good} of 5")


def ip(source, target, payload, protocol=6, total=None, version=4, ihl=5, fragment=0, bad_sum=False):
    total = 20 + len(payload) if total is None else total
    head = struct.pack("!BBHHHBBH4s4s", version << 4 | ihl, 0, total, random.getrandbits(16), fragment, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(target))
    value = checksum(head[:20]) ^ (0x5555 if bad_sum else 0)
    return head[:10] + struct.pack("!H", value) + head[12:] + payload


def tcp(source, target, sport, flags, options=b"", data=b"", offset=None, seq=None, ack=0, bad_sum=False, urgent=0):
    options += b"\0" * (-len(options) % 4)
    offset = 5 + len(options) // 4 if offset is None else offset
    seq = random.getrandbits(32) if seq is None else seq
    head = struct.pack("!HHIIBBHHH", sport, 8080, seq, ack, offset << 4, flags, 65535, 0, urgent) + options + data
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, 6, len(head))
    value = checksum(pseudo + head) ^ (0x5555 if bad_sum else 0)
    return head[:16] + struct.pack("!H", value) + head[18:]


def frames(target, source):
    """Malformed and odd ones, named for whoever reads a trace."""
    syn, ack, rst, fin = 2, 16, 4, 1

    def segment(*args, **kwargs):
        return ip(source, target, tcp(source, target, random.randrange(1024, 65535), *args, **kwargs))

    for length in range(0, 60, 3):  # truncated anywhere
        yield segment(syn)[:length]
    yield ip(source, target, b"\0" * 8)  # a TCP header cut short
    yield ip(source, target, b"", total=19)
    yield ip(source, target, b"x" * 20, total=2000)
    yield ip(source, target, b"x" * 20, version=5)
    yield ip(source, target, b"x" * 20, version=6)
    yield ip(source, target, b"x" * 20, ihl=4)
    yield ip(source, target, b"x" * 20, ihl=15)
    yield ip(source, target, tcp(source, target, 5000, syn), bad_sum=True)
    yield ip(source, target, tcp(source, target, 5000, syn), fragment=0x2000)
    yield ip(source, target, tcp(source, target, 5000, syn), fragment=0x0005)
    yield ip(source, target, b"\x08\x00\x00\x00", protocol=1)
    yield ip(source, target, b"\x03\x03\x00", protocol=1)
    yield ip(source, target, b"whatever", protocol=200)
    yield ip(target, target, tcp(target, target, 8080, syn))  # from itself
    yield ip("255.255.255.255", target, tcp("255.255.255.255", target, 8080, syn))
    yield ip("224.0.0.1", target, tcp("224.0.0.1", target, 8080, syn))
    for offset in (0, 1, 4, 15):
        yield segment(syn, offset=offset)
    for options in (b"\x02\x00", b"\x02\x01", b"\x03\x00\x00", b"\x08\x00" * 5, b"\x02\x04\x00\x00", b"\x02\x04\x00\x0c", b"\x03\x03\xff",
                    b"\xfe\xff", b"\x01" * 39 + b"\x02", b"\x05\x03", b"\x08\x0a" + b"\0" * 3):
        yield segment(syn, options)
    yield segment(syn, bad_sum=True)
    for flags in (0, fin, syn | fin, syn | rst, syn | fin | rst | ack, 0xFF, ack, rst, rst | ack, fin | ack):
        yield segment(flags)
        yield segment(flags, data=b"data", urgent=60000)
    for _ in range(300):  # a small flood of half-open connections
        yield segment(syn, b"\x02\x04\x05\xb4")
    noise = random.Random(4711)
    for _ in range(500):
        packet = bytearray(segment(noise.choice((syn, ack, fin, rst, syn | ack)), noise.randbytes(noise.randrange(0, 40))))
        for _ in range(noise.randrange(0, 4)):
            packet[noise.randrange(len(packet))] = noise.randrange(256)
        yield bytes(packet)


def raw_socket(mac, kind=ETH_IPV4):
    """A socket for frames on the wire that receives those of one kind, and how each to `mac` begins: the addresses."""
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
    s.bind(("wire", kind))
    return s, bytes.fromhex(mac.replace(":", "")) + s.getsockname()[4]


def hostile(target, source, mac):
    s, head = raw_socket(mac, 0)
    for number, packet in enumerate(frames(target, source)):
        s.send((head + struct.pack("!H", ETH_IPV4) + packet).ljust(14, b"\0"))
        if number % 50 == 49:
            time.sleep(0.01)
    for kind in (0x0806, 0x86DD, 0x8100, 0x0000, 0xFFFF):
        for length in (0, 1, 10, 27, 28, 40, 100):
            s.send(head + struct.pack("!H", kind) + random.Random(length).randbytes(length))
    time.sleep(0.2)


def tagged(target, source, mac):
    """Opens a connection with a frame without a tag, one with a priority (VLAN 0), and one of VLAN 5, four times each; which of
    these have been answered. (This kernel may have no VLAN interfaces, so the tags are in the frames as they are sent.)"""
    s, head = raw_socket(mac)
    for name, tag, patience in (("none", b"", 5), ("priority", struct.pack("!HH", 0x8100, 3 << 13), 5), ("vlan", struct.pack("!HH", 0x8100, 5), 0.5)):
        answered = 0
        s.settimeout(patience)
        for port in range(20000, 20004):
            packet = ip(source, target, tcp(source, target, port, 2, b"\x02\x04\x05\xb4"))
            s.send(head + tag + struct.pack("!H", ETH_IPV4) + packet)
            try:
                while True:
                    answer = s.recv(2000)[14:]
                    if answer[9] == 6 and answer[22:24] == struct.pack("!H", port) and answer[33] == 0x12:
                        answered += 1
                        break
            except TimeoutError:
                pass
            s.send(head + struct.pack("!H", ETH_IPV4) + ip(source, target, tcp(source, target, port, 4, seq=struct.unpack("!I", packet[24:28])[0] + 1 & 0xFFFFFFFF)))
        print(name, answered, flush=True)


def flags_of(answers, port, seconds=0.5):
    """What has come for the port within so long: (flags, sequence number, acknowledgment, data) of each segment."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and select.select([answers], [], [], left)[0]:
        answer = answers.recv(2000)[14:]
        if answer[9] == 6 and answer[22:24] == struct.pack("!H", port):
            begin = 20 + (answer[32] >> 4) * 4
            yield answer[33], *struct.unpack("!II", answer[24:32]), answer[begin:struct.unpack("!H", answer[2:4])[0]]


def fragments(target, source, mac):
    """Opens a connection, sends a request in two fragments, then whole: says whether there was a reset, and whether an answer."""
    s, addresses = raw_socket(mac)
    head = addresses + struct.pack("!H", ETH_IPV4)
    port, first, request = 20100, 1000, b"GET /hello HTTP/1.0\r\nX: " + b"x" * 40 + b"\r\n\r\n"
    s.send(head + ip(source, target, tcp(source, target, port, 2, b"\x02\x04\x05\xb4", seq=first)))
    synack = next((a for a in flags_of(s, port, 5) if a[0] == 0x12), None)
    if synack is None:
        sys.exit("no SYN-ACK")
    theirs = synack[1] + 1 & 0xFFFFFFFF
    segment = tcp(source, target, port, 0x18, data=request, seq=first + 1, ack=theirs)
    s.send(head + ip(source, target, tcp(source, target, port, 16, seq=first + 1, ack=theirs)))
    number = struct.pack("!H", 4711)
    for at, end, more in ((0, 48, 0x2000), (48, len(segment), 0)):
        fragment = bytearray(ip(source, target, segment[at:end], fragment=more | at // 8))
        fragment[4:6], fragment[10:12] = number, b"\0\0"
        fragment[10:12] = struct.pack("!H", checksum(bytes(fragment[:20])))
        s.send(head + fragment)
    seen = list(flags_of(s, port))
    if not any(data for *_, data in seen):
        s.send(head + ip(source, target, segment))
        for answer in flags_of(s, port, 5):
            seen.append(answer)
            if answer[3]:
                break
    print("reset" if any(flags & 4 for flags, *_ in seen) else "no reset", "answer" if any(b"hello" in data for *_, data in seen) else "no answer")
    s.send(head + ip(source, target, tcp(source, target, port, 4, seq=first + 1 + len(request))))


{"ping": ping, "hostile": hostile, "tagged": tagged, "fragments": fragments}[sys.argv[1]](*sys.argv[2:])
