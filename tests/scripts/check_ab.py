"""Tests what mtcp-ab makes of programs' outputs and of samples. usage: check_ab.py ROOT"""

import pathlib
import random
import sys

root = pathlib.Path(sys.argv[1]).resolve()
sys.path[:0] = [str(root / "perf/ab"), str(root / "scripts")]
sys.dont_write_bytecode = True

import metrics  # noqa: E402
from attached_sides import OtherHost  # noqa: E402
from compare import compare  # noqa: E402
from loads import Sample, all_rows  # noqa: E402
from report import evaluate, format_ratio, told_by  # noqa: E402

WRK = """Running 1s test @ http://10.0.0.1:8080/64
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.50ms    2.90ms  30.55ms   89.62%
    Req/Sec    99.12k     5.13k  104.51k    90.00%
  Latency Distribution
     50%  553.00us
     75%    1.02ms
     90%    4.81ms
     99%   13.63ms
  98663 requests in 1.00s, 28.32MB read
Requests/sec:  98500.51
Transfer/sec:     28.27MB
"""
REDIS = '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"\n"GET","90909.09","0.284","0.088","0.279","0.343","0.463","1.023"\n'
PGBENCH = """transaction type: <builtin: select only>
scaling factor: 1
number of clients: 20
number of transactions actually processed: 32011
number of failed transactions: 0 (0.000%)
latency average = 0.617 ms
initial connection time = 23.451 ms
tps = 32407.113000 (without initial connection time)
"""
MEMCASLAP = "servers : 10.0.0.1:11211\nget_misses: 5\nverify_misses: 0\nverify_failed: 0\nRun time: 1.0s Ops: 161244 TPS: 160120 Net_rate: 161.3M/s\n"
H2LOAD = """finished in 1.00s, 50321.00 req/s, 5.1MB/s
requests: 50321 total, 50321 started, 50321 done, 50320 succeeded, 1 failed, 0 errored, 0 timeout
"""
AB = """Complete requests:      1000
Failed requests:        2
Requests per second:    5543.21 [#/sec] (mean)
  50%      2
  99%     11 (longest request)
"""
OPEN_LOAD = ('{"rate": 1000.0, "seconds": 2.0, "due": 2000, "answered": 1990, "per_second": 994.0, "unsent": 10, "p50_us": 30.5, "p90_us": 40, "p99_us": 90.0, "p999_us": 700.0, '
             '"max_us": 900.0, "io_errors": 0, "wrong_answers": 0, "closed_early": 0, "unfinished": 0}\n')
SYSBENCH = "    transactions:                        1234   (123.40 per sec.)\n    ignored errors:                      0      (0.00 per sec.)\n"
IPERF3 = '{"start": {}, "end": {"sum_sent": {"bytes": 2, "bits_per_second": 9e9}, "sum_received": {"bytes": 1000000000, "bits_per_second": 8e9}}}'

passed = failed = 0


def check(what, right):
    global passed, failed
    passed, failed = passed + bool(right), failed + (not right)
    if not right:
        print(f"FAILED: {what}")


def refuses(read, text):
    try:
        read(text)
    except metrics.MetricError:
        return True
    return False


def readers():
    for name, text, value, operations, p50, p99, errors in (
            ("wrk", WRK, 98500.51, 98663, 553, 13630, 0), ("wrk", WRK + "  Socket errors: connect 0, read 3, write 0, timeout 1\n", 98500.51, 98663, 553, 13630, 2),
            ("wrk", WRK + "  Non-2xx or 3xx responses: 7\n", 98500.51, 98663, 553, 13630, 1), ("redis-benchmark", REDIS, 90909.09, 0, 279, 463, 0),
            ("pgbench", PGBENCH, 32407.113, 32011, 0, 0, 0), ("pgbench", PGBENCH.replace("transactions: 0 (0", "transactions: 4 (0"), 32407.113, 32011, 0, 0, 1),
            ("memcaslap", MEMCASLAP, 160120, 161244, 0, 0, 0), ("memcaslap", MEMCASLAP.replace("failed: 0", "failed: 9"), 160120, 161244, 0, 0, 1),
            ("open_load", OPEN_LOAD, 90, 1990, 30, 90, 0), ("open_load", OPEN_LOAD.replace('unsent": 10', 'unsent": 21'), 90, 1990, 30, 90, 1),
            ("open_load", OPEN_LOAD.replace('early": 0', 'early": 1'), 90, 1990, 30, 90, 1), ("h2load", H2LOAD, 50321, 50320, 0, 0, 1), ("ab", AB, 5543.21, 1000, 2000, 11000, 1), ("sysbench", SYSBENCH, 123.4, 1234, 0, 0, 0),
            ("iperf3", IPERF3, 8000, 1000, 0, 0, 0), (r"(\d[\d,]*) widgets", "3 widgets\n1,234 widgets\n", 1234, 0, 0, 0, 0)):
        m = metrics.reader(name)(text)
        got = (round(m.value, 3), m.operations, round(m.p50_us), round(m.p99_us), len(m.errors))
        check(f"{name}: {got}", got == (round(value, 3), operations, p50, p99, errors))
    for name in (*metrics.READERS, r"(\d+) widgets"):
        for text in ("", "Segmentation fault\n", "{}x", "\x00\xff" * 100):
            check(f"{name} takes {text[:20]!r} for a result", refuses(metrics.reader(name), text))
    check("iperf3's own error", refuses(metrics.reader("iperf3"), '{"error": "unable to connect"}'))
    check("two tests of redis-benchmark", refuses(metrics.reader("redis-benchmark"), REDIS + '"SET","1","1","1","1","1","1","1"\n'))
    check("p99.9 of a fixed rate, of which less is better", (lambda m: (m.p999_us, m.per_second, m.more_is_better))(metrics.reader("open_load")(OPEN_LOAD)) == (700, 994, False))
    check("time is the clock's", metrics.reader("time") is None)
    for pattern in ("no group", "(two) (groups)"):
        try:
            metrics.reader(pattern)
            check(f"{pattern} is taken", False)
        except ValueError:
            check(pattern, True)


def verdicts():
    draw = random.Random(1)
    noise = [draw.uniform(0.95, 1.05) for _ in range(40)]
    base, same, more = noise[:10], noise[10:20], [2 * n for n in noise[20:30]]
    check("the same twice differs", compare(base, base).verdict == "no difference shown")
    check("noise is a difference", compare(base, same).verdict == "no difference shown")
    twice = compare(base, more)
    check(f"twice as much: {twice}", twice.verdict == "faster" and 1.8 < twice.low <= twice.ratio <= twice.high < 2.2 and twice.least <= twice.low)
    check("half as much", compare(more, base).verdict == "slower")
    check("a time that is half as long", compare(more, base, more_is_better=False).verdict == "faster")
    check("the ratio of times", abs(compare([4, 4, 4, 4, 4], [2, 2, 2, 2, 2], False).ratio - 2) < 1e-9)
    check("four rounds are too few", compare(base[:4], more[:4]).verdict == "too few rounds")
    check("two rounds that contradict each other", compare([53, 97], [97, 53]).verdict == "too few rounds")
    check("one bad round of five", compare([10, 10, 10, 10, 10], [11, 11, 11, 11, 5]).verdict == "no difference shown")
    check("nothing", compare([], []) is None and compare([1, 0], [1, 1]) is None)
    check("the same samples, the same interval", compare(base, more) == compare(base, more))


def other_hosts():
    check("by ssh, whose other end is a shell", OtherHost("ssh -4 root@there", 9).command(["a b", "c"]) == ["ssh", "-4", "root@there", "timeout -k 1 9 'a b' c"])
    check("by something else", OtherHost("ip netns exec there", 2.5).command(["a b"]) == ["ip", "netns", "exec", "there", "timeout", "-k", "1", "2.5", "a b"])


def rows():
    """scripts/ab: the best of the kernel's sides is the baseline of a row, whatever it is called, and void ones are none."""
    row = next(row for row in all_rows() if row.kind == "http")
    rates = {"kernel": (100, 100), "loopback": (150, 90), "sockmap": (999, 999), "memif": (240, 360)}
    samples = {(row.key, side): [Sample(rate=rate, errors=["wrong"] if side == "sockmap" else []) for rate in of_rounds] for side, of_rounds in rates.items()}
    (entry,) = evaluate([row], list(rates), samples)
    result = entry["sides"]["memif"]
    check(f"the baseline {entry['baseline']}", entry["baseline"] == "loopback" and "ratio" not in entry["sides"]["loopback"])
    check(f"the ratio and its rounds: {format_ratio(result)}", format_ratio(result).split() == ["2.50x", "(1.60", "-", "4.00)"])
    check(f"two rounds: {result['verdict']}", result["verdict"] == "too few rounds")
    (entry,) = evaluate([row], ["sockmap", "memif"], samples)
    check("no baseline", entry["baseline"] is None and "ratio" not in entry["sides"]["memif"])


def versions():
    check("what a program says", told_by("sh", "-c", "echo one; echo two") == "one")
    check("to its standard error", told_by("sh", "-c", "echo one >&2") == "one")
    check("with a status", (told_by("sh", "-c", "echo one; exit 1"), told_by("sh", "-c", "echo one; exit 1", good=(0, 1))) == ("", "one"))
    check("a program that is not there", told_by("/nonexistent/program") == "")


readers()
verdicts()
other_hosts()
rows()
versions()
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
