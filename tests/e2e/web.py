"""What a client does with a web server: curl and wrk, and what must come of it."""

import hashlib
import re
import subprocess

from harness import Failure, expect, expect_equal, wait_until


def get(client, url, timeout=10, *options):
    """The body as text; anything but 200 is a failure."""
    done = client.run("curl", "-sS", "--max-time", timeout, "-w", "\n%{http_code}", *options, url, check=False, timeout=timeout + 10)
    body, _, status = done.stdout.rpartition("\n")
    if done.returncode != 0 or status != "200":
        raise Failure(f"curl {url}: status {done.returncode}, HTTP {status}: {done.stderr.strip()[-300:]}")
    return body


def get_status(client, url, timeout=10, *options):
    """(curl's status, HTTP's status)"""
    done = client.run("curl", "-sS", "-o", "/dev/null", "--max-time", timeout, "-w", "%{http_code}", *options, url, check=False,
                      timeout=timeout + 10)
    return done.returncode, done.stdout[-3:]


def get_hash(client, url, timeout=60, *options):
    """(SHA-256, length) of the body, read as it comes."""
    env = [f"{key}={value}" for key, value in client.env.items()]
    words = [*client.namespace.prefix(), *(["env", *env] if env else []), "curl", "-sSf", "--max-time", timeout, *options, url]
    digest, length = hashlib.sha256(), 0
    with subprocess.Popen([str(w) for w in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        while part := child.stdout.read(1 << 20):
            digest.update(part)
            length += len(part)
        complaint = child.stderr.read().decode(errors="replace").strip()
    expect(child.returncode == 0, f"curl {url}: status {child.returncode} after {length} bytes: {complaint[-300:]}")
    return digest.hexdigest(), length


def start_download(client, url, rate, *options):
    """(the program, the file that it writes) of a download at this rate, of which something has come."""
    path = client.context.new_file("download")
    program = client.start("curl", "-sSf", "--limit-rate", rate, "--max-time", "60", "-o", path, *options, url)
    wait_until(lambda: (path.exists() and path.stat().st_size > 0) or not program.running(), 10, "the beginning of a download")
    return program, path


def expect_download(program, path, wanted):
    """It has come to its end, with this hash."""
    expect_equal("curl's status", program.wait(60), 0)
    expect(hashlib.sha256(path.read_bytes()).hexdigest() == wanted, f"the download was cut: {path.stat().st_size} bytes")


def expect_files(client, base, names, timeout=60, *options):
    """Fetches the files one by one and compares them by hash."""
    sums = client.context.files.sums
    for name in names:
        got, length = get_hash(client, f"{base}/{name}", timeout, *options)
        expect(got == sums[name], f"{name}: {length} bytes with a wrong hash")


def small_files(client):
    return list(client.context.files.SIZES)


class WrkResult:
    def __init__(self, text):
        self.text = text
        self.requests = int(match[1]) if (match := re.search(r"(\d+) requests in", text)) else 0
        self.errors = [line.strip() for line in text.splitlines() if "Socket errors" in line or "Non-2xx" in line]


def wrk(client, url, seconds=2, threads=1, connections=20, *options):
    done = client.run("wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s", *options, url, timeout=seconds + 30)
    return WrkResult(done.stdout)


def expect_wrk(client, url, at_least=200, **options):
    """wrk must get through without a single error."""
    more = options.pop("more", ())
    result = wrk(client, url, options.get("seconds", 2), options.get("threads", 1), options.get("connections", 20), *more)
    expect_equal("wrk's list of errors", result.errors, [])
    expect(result.requests >= at_least, f"wrk made {result.requests} requests, expected {at_least}: {result.text[-300:]}")
    return result
