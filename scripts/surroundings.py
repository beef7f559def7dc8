"""What a test inherits and depends on, set to what it takes for granted, here and for all that it starts. `nohup`, a service
manager, a shell's background job or a user's profile hand down something else."""

import os
import resource
import signal


def set_surroundings():
    for number in signal.valid_signals():
        # SIGPIPE and SIGXFSZ are Python's own, which subprocess restores.
        if number not in (signal.SIGPIPE, signal.SIGXFSZ) and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    for name in list(os.environ):
        if name.startswith(("LC_", "MTCP_")) or name.lower().endswith("_proxy") or name in UNWANTED:
            del os.environ[name]
    os.environ["LC_ALL"] = "C.UTF-8"
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ.setdefault("HOME", "/nonexistent")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if most == resource.RLIM_INFINITY else min(8192, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


# What changes what programs do or say, or where they put their files.
UNWANTED = {"LANG", "LANGUAGE", "LD_PRELOAD", "LD_LIBRARY_PATH", "TMPDIR", "POSIXLY_CORRECT", "CURL_HOME", "COLUMNS", "PYTHONPATH",
            "PYTHONWARNINGS", "GREP_OPTIONS", "BASH_ENV", "ENV", "CDPATH", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"}
