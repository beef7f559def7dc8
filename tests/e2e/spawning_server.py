"""Accepts, and starts a program for each connection that gets it by posix_spawn; the program sends back what comes.

usage: spawning_server.py ADDRESS PORT WAY, where WAY says who calls posix_spawn and how the connection is passed on.
"""

import os
import socket
import subprocess
import sys


def by_file_actions(conn):
    actions = [(os.POSIX_SPAWN_DUP2, conn.fileno(), 0), (os.POSIX_SPAWN_DUP2, 0, 1)]
    return os.posix_spawn("/bin/cat", ["cat"], os.environ, file_actions=actions)


def by_inheritance(conn):
    os.set_inheritable(conn.fileno(), True)
    return os.posix_spawn("/bin/bash", ["bash", "-c", f"exec cat <&{conn.fileno()} >&{conn.fileno()}"], os.environ)


def by_subprocess(conn):
    # Without descriptors to close, Python's subprocess uses posix_spawn.
    subprocess.Popen(["/bin/cat"], stdin=conn, stdout=conn, close_fds=False)


def by_glib(conn):
    from gi.repository import Gio
    launcher = Gio.SubprocessLauncher.new(Gio.SubprocessFlags.INHERIT_FDS)
    launcher.take_stdin_fd(os.dup(conn.fileno()))
    launcher.take_stdout_fd(os.dup(conn.fileno()))
    launcher.spawnv(["cat"])


def by_system(conn):
    os.set_inheritable(conn.fileno(), True)
    os.system(f"exec bash -c 'exec cat <&{conn.fileno()} >&{conn.fileno()}'")


def main(address, port, way):
    start = {"file-actions": by_file_actions, "inheritance": by_inheritance, "subprocess": by_subprocess, "glib": by_glib,
             "system": by_system}[way]
    if way == "glib":
        import gi  # noqa: F401, before the first connection: it opens files
        from gi.repository import Gio  # noqa: F401
    with socket.create_server((address, int(port))) as listener:
        print("ready", flush=True)
        while True:
            conn, _ = listener.accept()
            try:
                os.posix_spawn("/nonexistent", ["x"], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, conn.fileno(), 0)])
            except FileNotFoundError:
                pass  # a program that can't be started changes nothing
            start(conn)
            conn.close()
            try:
                while os.waitpid(-1, os.WNOHANG)[0] != 0:
                    pass
            except ChildProcessError:
                pass


main(*sys.argv[1:])
