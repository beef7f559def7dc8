#!/usr/bin/env python3
"""The shim exports exactly the names of calls.def, and every name of libc that concerns sockets, descriptors, signals or
processes and that an installed program imports is there: interposed, or left to libc with a reason."""
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "scripts"))
sys.dont_write_bytecode = True
from surroundings import set_surroundings  # noqa: E402

PROGRAMS = ["nginx", "wrk", "curl", "redis-server", "memcached", "haproxy", "/usr/bin/python3", "bash", "iperf3", "lighttpd"]

# What the list has to answer for.
CONCERNS = re.compile(
    r"""^_*(socket|sockatmark|bind$|listen$|accept|connect$|shutdown|.*peername|.*sockname|.*sockopt
    |recv|send|read$|readv|read_chk|write$|writev|p(read|write)(v|64|_|$)|splice|vmsplice|tee$|copy_file_range
    |close$|close_range|closefrom|dup\d?$|fcntl|ioctl|epoll|p?poll|pp?oll|p?select$|eventfd|timerfd|signalfd|inotify|pipe2?$
    |fdopen|fileno|v?dprintf|fork|vfork|_fork|daemon|exec|fexec|posix_spawnp?$|clone$|system$|popen$|exit$|quick_exit|abort$
    |sig(?!nbit|nificand)|bsd_signal|ssignal|sysv_signal|pthread_sigmask|set(re|res|e)?[ug]id|setgroups|initgroups|cap[sg]et|prctl|chroot
    |syscall$)""",
    re.VERBOSE | re.IGNORECASE)
# Not functions of the application's descriptors, signals or privileges, though they sound like it.
SOUND_ALIKE = re.compile(r"^(sigsetjmp|__sigsetjmp|siglongjmp|__libc_.*|readlink.*|readdir.*|sigabbrev_np|sigdescr_np)$")


def names_of(calls_def):
    """(exported, left) as the macros of calls.def have them."""
    exported, left = [], []
    for line in calls_def.read_text().splitlines():
        if match := re.match(r"(SOCKET_CALL|FD_CALL|CALL)\([^,]+, (\w+),", line):
            exported.append(match[2])
        elif match := re.match(r"(ALIAS|HAND)\((\w+)[,)]", line):
            exported.append(match[2])
        elif match := re.match(r'LEFT\((\w+), ".+"\)', line):
            left.append(match[1])
        elif line and not line.startswith("//"):
            sys.exit(f"{calls_def}: not understood: {line}")
    return exported, left


def symbols(path, which):
    output = subprocess.run(["nm", "-D", which, path], capture_output=True, text=True, check=True).stdout
    return [line.split()[-1] for line in output.splitlines()]


def imports(program):
    """Names that a program and its libraries (not libc itself) want of libc."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    files = [program] + [word for word in listed.split() if word.startswith("/") and not re.search(r"/(libc\.so|ld-linux|libmtcp)", word)]
    found = set()
    for file in files:
        found.update(name.split("@")[0] for name in symbols(file, "--undefined-only") if "@GLIBC_" in name)
    return found


def main():
    set_surroundings()
    shim, calls_def = sys.argv[1], pathlib.Path(sys.argv[2])
    exported, left = names_of(calls_def)
    problems = [f"{name} is in calls.def twice" for name in set(exported + left) if (exported + left).count(name) > 1]
    actual = set(symbols(shim, "--defined-only"))
    problems += [f"{name} is in calls.def and not exported" for name in sorted(set(exported) - actual)]
    problems += [f"{name} is exported and not in calls.def" for name in sorted(actual - set(exported))]
    seen = 0
    for program in PROGRAMS:
        path = shutil.which(program)
        if path is None or pathlib.Path(path).read_bytes()[:4] != b"\x7fELF":
            continue
        seen += 1
        concerning = {name for name in imports(path) if CONCERNS.match(name) and not SOUND_ALIKE.match(name)}
        problems += [f"{program} imports {name}, which calls.def does not know" for name in sorted(concerning - set(exported) - set(left))]
    if seen == 0:
        problems.append("no program was there to look at")
    for problem in sorted(set(problems)):
        print(problem)
    print(f"{len(exported)} names exported, {len(left)} left, {seen} programs looked at")
    sys.exit(1 if problems else 0)


main()
