#!/usr/bin/env python3
"""Runs a test as nohup, a service manager or somebody's profile might: signals ignored and blocked, a narrow umask, few
descriptors, another language, no standard input, a TMPDIR that is not there.

usage: odd_surroundings.py PROGRAM [ARGUMENT...]"""
import os
import resource
import signal
import sys

for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, *range(32, 34)}:
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD])
os.umask(0o077)
resource.setrlimit(resource.RLIMIT_NOFILE, (300, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.environ.update(LC_ALL="tr_TR.UTF-8", LANG="de_DE", TMPDIR="/nonexistent", POSIXLY_CORRECT="1", MTCP_LOG="debug")
os.close(0)
os.execv(sys.argv[1], sys.argv[1:])
