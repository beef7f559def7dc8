"""Files that are sent again and again, which the stack then has mapped, while they change: what comes is what is in them."""

import contextlib
import hashlib
import os
import random
from pathlib import Path

from harness import command, expect, expect_equal, wait_until
from nginx import Nginx
from registry import test
from web import expect_files, get_hash, start_download

SIZE = (8 << 20) + 5


def content(seed, size=SIZE):
    return random.Random(seed).randbytes(size)


def is_mapped(pid, path):
    return str(path) in Path(f"/proc/{pid}/maps").read_text()


def serve_file(context):
    """A server that has sent a file of two hundred pages or more twice, so that it has it mapped."""
    server, client = context.veth()
    nginx = Nginx(server).start()
    path = nginx.prefix / "put/file"
    write_file(path, "first")
    send_twice(client, nginx)
    return nginx, client, path


def write_file(path, seed):
    path.write_bytes(content(seed))
    path.chmod(0o644)


def send_twice(client, nginx, name="file"):
    for _ in range(2):
        expect_file(client, nginx, content("first"), name)
    if nginx.side.on_stack:
        expect(is_mapped(nginx.serving_pids()[0], f"put/{name}"), "a file that is sent again is not mapped")


def expect_file(client, nginx, wanted, name="file"):
    got, length = get_hash(client, f"{nginx.url}/put/{name}")
    expect(got == hashlib.sha256(wanted).hexdigest(), f"{length} bytes of {len(wanted)} with a wrong hash")


@test("sendfile-again-and-again-and-what-is-not-sent-any-more-is-let-go")
def again(context):
    nginx, client, path = serve_file(context)
    pid = nginx.serving_pids()[0]
    for _ in range(3):
        expect_file(client, nginx, content("first"))
        expect_files(client, nginx.url, ["k8", "k64", "m1", "m10", "segment1"])
    ranges = [client.run("curl", "-sS", "-r", f"{start}-{start + 70000}", f"{nginx.url}/put/file", "-o", "/dev/null", "-w",
                         "%{size_download}").stdout for start in (0, 1, 4095, 2097151, 5000001)]
    expect_equal("the sizes of parts", ranges, ["70001"] * 5)
    path.unlink()
    wait_until(lambda: not is_mapped(pid, path), 8, "the end of the mapping of a deleted file")
    nginx.stop()


@test("sendfile-a-file-that-is-replaced-grows-or-is-written-to")
def changed(context):
    nginx, client, path = serve_file(context)
    other = path.with_name("other")
    other.write_bytes(content("second"))
    other.chmod(0o644)
    os.rename(other, path)
    expect_file(client, nginx, content("second"))
    expect_file(client, nginx, content("second"))
    with open(path, "ab") as file:
        file.write(content("more", 300_000))
    expect_file(client, nginx, content("second") + content("more", 300_000))
    expect_file(client, nginx, content("second") + content("more", 300_000))
    with open(path, "r+b") as file:
        file.write(content("third", 1_000_000))
    expect_file(client, nginx, content("third", 1_000_000) + content("second")[1_000_000:] + content("more", 300_000))
    nginx.stop()


@contextlib.contextmanager
def overlay(place, lower):
    """`place` is an overlay over `lower`, as the file system of a container is."""
    place.mkdir()
    command("mount", "-t", "tmpfs", "tmpfs", place)
    for name in ("upper", "work"):
        (place / name).mkdir(mode=0o755)
    command("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={place}/upper,workdir={place}/work", place)
    try:
        yield
    finally:
        command("umount", "-l", place)
        command("umount", "-l", place)


@test("sendfile-a-file-of-a-container-that-is-written-to")
def in_an_overlay(context):
    """It becomes a copy of what had been mapped, with the same number."""
    server, client = context.veth()
    nginx = Nginx(server)
    lower = nginx.prefix / "lower"
    lower.mkdir(mode=0o755)
    write_file(lower / "file", "first")
    with overlay(nginx.prefix / "put/over", lower):
        nginx.start()
        send_twice(client, nginx, "over/file")
        number = (nginx.prefix / "put/over/file").stat().st_ino
        with open(nginx.prefix / "put/over/file", "r+b") as file:
            file.write(content("third", 1_000_000))
        for _ in range(3):
            expect_file(client, nginx, content("third", 1_000_000) + content("first")[1_000_000:], "over/file")
        expect_equal("the number of the copy", (nginx.prefix / "put/over/file").stat().st_ino, number)
        nginx.stop()


@test("sendfile-a-file-that-is-cut-off-while-it-is-sent")
def cut_off(context):
    nginx, client, path = serve_file(context)
    worker = nginx.serving_pids()
    slow, got = start_download(client, f"{nginx.url}/put/file", "2M")
    wait_until(lambda: got.stat().st_size > 1 << 20, 10, "a megabyte of the download")
    os.truncate(path, 50_000)
    slow.wait(40)
    # What was on its way arrives, as zeros or as it was; the rest does not.
    expect(got.stat().st_size <= SIZE, f"a file that was cut off: {got.stat().st_size} bytes")
    expect_equal("the worker", nginx.serving_pids(), worker)
    expect_file(client, nginx, content("first")[:50_000])
    expect_files(client, nginx.url, ["m1", "m1"])
    pids = nginx.all_pids()
    nginx.command("quit")
    nginx.wait_gone(pids)
    complaints = [line for line in nginx.log().splitlines() if "[alert]" in line and "was truncated at" not in line]
    expect(not complaints, f"nginx complains: {complaints[:3]}")
