"""Runs a program as a kernel would that has no AF_XDP, takes no such XDP program, or has no links to attach one by:
old_kernel.py sockets|programs|links PROGRAM [ARGUMENT...]"""

import ctypes
import errno
import os
import socket
import struct
import sys

# Number on x86-64, the first argument, and what the call fails with.
CALLS = {
    "sockets": (41, 44, errno.EAFNOSUPPORT),  # socket(AF_XDP)
    "programs": (321, 5, errno.EINVAL),  # bpf(BPF_PROG_LOAD)
    "links": (321, 28, errno.EINVAL),  # bpf(BPF_LINK_CREATE)
}
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
NUMBER, FIRST_ARGUMENT = 0, 16  # in struct seccomp_data
ALLOW, FAIL = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, FILTER = 22, 2


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def refuse(number, argument, error):
    code = b"".join(struct.pack("=HBBI", *i) for i in (
        (LOAD, 0, 0, NUMBER), (EQUAL, 0, 3, number), (LOAD, 0, 0, FIRST_ARGUMENT), (EQUAL, 0, 1, argument),
        (RETURN, 0, 0, FAIL | error), (RETURN, 0, 0, ALLOW)))
    program = Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0) != 0:
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")


def main():
    which, *words = sys.argv[1:]
    refuse(*CALLS[which])
    if which == "sockets":
        try:
            socket.socket(44, socket.SOCK_RAW).close()
            sys.exit("the call is not refused")
        except OSError:
            pass
    os.execvp(words[0], words)


main()
