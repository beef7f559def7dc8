"""What a person reads: counters, listeners and connections, and the list of processes."""

import os

COLUMNS = (("rx_queued", "Recv-Q"), ("tx_queued", "Send-Q"), ("cwnd", "cwnd bytes"), ("snd_wnd", "wnd bytes"), ("srtt_us", "srtt us"),
           ("rto_us", "rto us"), ("retransmits", "retrans"))
MARKS = {"drop": "drop ", "error": "ERROR"}


def changes(report, previous):
    """name -> how much a counter has grown per second."""
    elapsed = report.time - previous.time
    return {name: (c.value - (previous.counters[name].value if name in previous.counters else 0)) / elapsed
            for name, c in report.counters.items()}


def print_counters(report, previous, zeros):
    grown = changes(report, previous) if previous else {}
    for name, counter in report.counters.items():
        if counter.value == 0 and not zeros:
            continue
        rate = f"{grown[name]:>13,.0f}/s" if grown else ""
        print(f"{counter.value:>16,} {rate}  {MARKS.get(counter.severity, '     ')} {name:32} {counter.text}")


def details(flow):
    """What `ss -ti` tells, in its words and units: windows in segments, times in milliseconds."""
    v = flow.values
    mss = max(1, int(v.get("mss", 1)))

    def ms(key):
        return f"{int(v.get(key, 0)) / 1000:g}"

    words = [f"rto:{ms('rto_us')}", f"rtt:{ms('srtt_us')}/{ms('rttvar_us')}", f"mss:{v.get('mss', '-')}", f"cwnd:{int(v.get('cwnd', 0)) // mss}"]
    if 0 < int(v.get("ssthresh", 0)) < 1 << 30:
        words.append(f"ssthresh:{int(v['ssthresh']) // mss}")
    words += [f"bytes_acked:{v.get('acked', 0)}", f"bytes_received:{v.get('received', 0)}", f"snd_wnd:{v.get('snd_wnd', 0)}",
              f"rcv_wnd:{v.get('rcv_wnd', 0)}"]
    for key, word in (("unsent", "notsent"), ("flight", "in_flight"), ("retransmits", "retrans"), ("backoff", "backoff")):
        if int(v.get(key, 0)):
            words.append(f"{word}:{v[key]}")
    for key in ("pacing_rate", "delivery_rate"):
        if int(v.get(key, 0)):
            words.append(f"{key} {int(v[key]) * 8:,}bps")
    return " ".join(words)


def print_flows(report, wanted, with_details):
    print(f"{'state':13}{'local':24}{'remote':24}" + "".join(f"{title:>11}" for _, title in COLUMNS))
    for flow in filter(wanted, report.listeners):
        queue = "".join(f"{flow.values.get(key, '-'):>11}" for key in ("queued", "backlog"))
        print(f"{'LISTEN':13}{flow.local:24}{'*' if flow.values.get('kernel') == '0' else '* (and the kernel)':24}{queue}")
    for flow in filter(wanted, report.connections):
        print(f"{flow.state:13}{flow.local:24}{flow.remote:24}" + "".join(f"{flow.values.get(key, '-'):>11}" for key, _ in COLUMNS))
        if with_details:
            print("\t" + details(flow))


def print_list(rows):
    """A line for each process; `rows`: pid -> Report, or (name, why there is none)."""
    if not rows:
        print("no process on mtcp" + ("" if os.geteuid() == 0 else " that this user may look at"))
        return
    print(f"{'PID':>8}  {'program':20}{'device':44}{'connections':>11}{'listeners':>11}")
    for pid, row in sorted(rows.items()):
        if isinstance(row, tuple):
            print(f"{pid:>8}  {row[0]:20}{row[1]}")
        else:
            print(f"{pid:>8}  {row.program:20}{row.device:44}{row.connection_count:>11}{len(row.listeners):>11}")
