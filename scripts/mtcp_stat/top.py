"""A live view of all processes on mtcp, in the manner of top."""

import curses
import sys
import time

from .processes import StatError
from .tables import changes

COUNTERS = (("rx_packets", "rx/s"), ("tx_packets", "tx/s"), ("passive_opens", "accepts/s"), ("retransmitted_segments", "retrans/s"))
HEAD = f"{'PID':>8} {'program':16}{'device':24}{'conns':>8}{'queued':>8}" + "".join(f"{t:>11}" for _, t in COUNTERS) + f"{'drops/s':>10}{'useful':>8}{'memory':>9}"


def share_of_useful_rounds(report, previous):
    now, then = report.groups().get("stack", {}), previous.groups().get("stack", {}) if previous else {}
    rounds = now.get("turns", 0) - then.get("turns", 0)
    return f"{100 * (now.get('useful', 0) - then.get('useful', 0)) / rounds:.0f} %" if rounds > 0 else "-"


def row(pid, report, previous):
    grown = changes(report, previous) if previous and report.time > previous.time else None

    def rate(names):
        return "-" if grown is None else f"{sum(grown.get(n, 0) for n in names):,.0f}"

    drops = [c.name for c in report.counters.values() if c.severity == "drop"]
    queued = sum(int(f.values.get("queued", 0)) for f in report.listeners)
    memory = report.groups().get("memory", {}).get("used", 0)
    return (f"{pid:>8} {report.program[:15]:16}{report.device[:23]:24}{report.connection_count:>8}{queued:>8}"
            + "".join(f"{rate([name]):>11}" for name, _ in COUNTERS) + f"{rate(drops):>10}{share_of_useful_rounds(report, previous):>8}"
            + f"{memory / (1 << 20):>7.1f}MB")


def run(screen, read, seconds):
    curses.use_default_colors()
    curses.curs_set(0)
    screen.timeout(int(seconds * 1000))
    previous = {}
    while True:
        reports = read()
        height, width = screen.getmaxyx()
        screen.erase()
        lines = [f"mtcp-stat  {time.strftime('%H:%M:%S')}  processes: {len(reports)}  (q ends)", "", HEAD]
        busiest = sorted(reports, key=lambda pid: -reports[pid].connection_count)
        lines += [row(pid, reports[pid], previous.get(pid)) for pid in busiest]
        for y, line in enumerate(lines[:height]):
            screen.insnstr(y, 0, line, width - 1, curses.A_REVERSE if y == 2 else curses.A_NORMAL)
        screen.refresh()
        previous = reports
        if screen.getch() in (ord("q"), 27):
            return


def show(read, seconds):
    """`read` returns pid -> Report. Until q or ctrl-C."""
    if not sys.stdout.isatty():
        raise StatError("--top wants a terminal")
    try:
        curses.wrapper(run, read, seconds)
    except curses.error as error:
        raise StatError(f"this terminal can't show it: {error}") from None
