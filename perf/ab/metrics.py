"""What a load program has printed, taken apart. A reader takes the text and returns a Metric; what it can't find is an error, not
a zero."""

import csv
import io
import json
import re
from dataclasses import dataclass, field


class MetricError(Exception):
    """The output is not what the reader knows."""


@dataclass
class Metric:
    value: float
    unit: str
    more_is_better: bool = True
    operations: float = 0         # in all, for what is shown per operation; 0: not known
    p50_us: float = 0             # 0: not told
    p99_us: float = 0
    p999_us: float = 0
    per_second: float = 0
    errors: list = field(default_factory=list)


def find(pattern, text, what):
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise MetricError(f"no {what} in its output: {text.strip()[-200:] or 'it printed nothing'}")
    return found


TIME_UNITS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 60e6}


def microseconds(text):
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    return float(found[1]) * TIME_UNITS[found[2]]


def wrk(text):
    rate = float(find(r"^Requests/sec:\s+([\d.]+)", text, "line Requests/sec")[1])
    requests = int(find(r"^\s*(\d+) requests in ", text, "number of requests")[1])
    shares = dict(re.findall(r"^\s+(50|99)(?:\.0+)?%\s+(\S+)$", text, re.MULTILINE))
    errors = [f"{kind} errors: {n}" for kind, n in re.findall(r"(connect|read|write|timeout) (\d+)", "".join(re.findall(r"Socket errors:.*", text))) if n != "0"]
    errors += [f"not 2xx or 3xx: {n}" for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text)]
    return Metric(rate, "requests/s", operations=requests, errors=errors,
                  **{name: microseconds(shares[key]) for key, name in (("50", "p50_us"), ("99", "p99_us")) if key in shares})


def ab(text):
    rate = float(find(r"^Requests per second:\s+([\d.]+)", text, "line Requests per second")[1])
    done = int(find(r"^Complete requests:\s+(\d+)", text, "line Complete requests")[1])
    failed = int(find(r"^Failed requests:\s+(\d+)", text, "line Failed requests")[1])
    shares = dict(re.findall(r"^\s+(50|99)%\s+(\d+)", text, re.MULTILINE))
    return Metric(rate, "requests/s", operations=done, errors=[f"failed requests: {failed}"] if failed else [],
                  p50_us=float(shares.get("50", 0)) * 1e3, p99_us=float(shares.get("99", 0)) * 1e3)


def h2load(text):
    found = find(r"finished in [\d.]+(?:us|ms|s|m), ([\d.]+) req/s", text, "line 'finished in'")
    counts = find(r"requests: (\d+) total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored", text, "line 'requests:'")
    bad = int(counts[3]) + int(counts[4])
    return Metric(float(found[1]), "requests/s", operations=int(counts[2]), errors=[f"failed requests: {bad}"] if bad else [])


def redis_benchmark(text):
    """Of --csv: the sum of its tests would mean nothing, so one must have been asked for."""
    start = text.find('"test"')
    if start < 0:
        raise MetricError(f"redis-benchmark needs --csv: {text.strip()[-200:]}")
    rows = list(csv.DictReader(io.StringIO(text[start:])))
    if len(rows) != 1:
        raise MetricError(f"redis-benchmark has run {len(rows)} tests; give it one with -t")
    row = rows[0]
    return Metric(float(row["rps"]), "requests/s", p50_us=float(row["p50_latency_ms"]) * 1e3, p99_us=float(row["p99_latency_ms"]) * 1e3)


def iperf3(text):
    """Of -J: what was received, in Mbit/s."""
    try:
        result = json.loads(text[text.index("{"):])
    except ValueError:
        raise MetricError(f"iperf3 needs -J: {text.strip()[-200:]}") from None
    if "error" in result:
        raise MetricError(f"iperf3: {result['error']}")
    received = result["end"]["sum_received"]
    return Metric(received["bits_per_second"] / 1e6, "Mbit/s", operations=received["bytes"] / 1e6)


def pgbench(text):
    rate = float(find(r"^tps = ([\d.]+)", text, "line tps")[1])
    done = int(find(r"^number of transactions actually processed: (\d+)", text, "number of transactions")[1])
    failed = re.search(r"^number of failed transactions: (\d+)", text, re.MULTILINE)
    return Metric(rate, "transactions/s", operations=done,
                  errors=[f"failed transactions: {failed[1]}"] if failed and failed[1] != "0" else [])


def sysbench(text):
    found = find(r"^\s+transactions:\s+(\d+)\s+\(([\d.]+) per sec\.\)", text, "line transactions")
    errors = re.search(r"^\s+ignored errors:\s+(\d+)", text, re.MULTILINE)
    return Metric(float(found[2]), "transactions/s", operations=int(found[1]),
                  errors=[f"errors: {errors[1]}"] if errors and errors[1] != "0" else [])


def memcaslap(text):
    found = find(r"Run time: [\d.]+s Ops: (\d+) TPS: (\d+)", text, "line 'Run time'")
    bad = [f"{kind}: {n}" for kind, n in re.findall(r"^(get_misses|verify_misses|verify_failed|expired_get|unexpired_unget): (\d+)", text, re.MULTILINE)
           if n != "0" and kind != "get_misses"]
    return Metric(float(found[2]), "operations/s", operations=int(found[1]), errors=bad)


def open_load(text):
    """Our own load of a fixed rate: the 99th percentile of latency, from when a request was due."""
    try:
        result = json.loads(find(r"^\{.*\}$", text, "result of open_load")[0])
        errors = [f"{result[key]} {key.replace('_', ' ')}" for key in ("io_errors", "wrong_answers", "closed_early", "unfinished") if result[key]]
        if result["unsent"] > result["due"] / 100:
            errors.append(f"it could not keep the rate: {result['unsent']} of {result['due']} requests were still unsent at the end")
        return Metric(result["p99_us"], "us (p99)", False, operations=result["answered"], errors=errors,
                      p50_us=result["p50_us"], p99_us=result["p99_us"], p999_us=result["p999_us"], per_second=result["per_second"])
    except (ValueError, KeyError, TypeError):
        raise MetricError(f"open_load's result is not there: {text.strip()[-200:]}") from None


READERS = {"open_load": open_load, "wrk": wrk, "ab": ab, "h2load": h2load, "redis-benchmark": redis_benchmark, "iperf3": iperf3, "pgbench": pgbench,
           "sysbench": sysbench, "memcaslap": memcaslap}


def by_pattern(pattern):
    """A reader for a regular expression with one group: the last match's, a rate."""
    compiled = re.compile(pattern, re.MULTILINE)
    if compiled.groups != 1:
        raise ValueError(f"{pattern!r} must have one group, which is the number")

    def read(text):
        found = compiled.findall(text)
        if not found:
            raise MetricError(f"nothing matches {pattern!r}: {text.strip()[-200:] or 'it printed nothing'}")
        try:
            return Metric(float(found[-1].replace(",", "")), "")
        except ValueError:
            raise MetricError(f"{found[-1]!r} is no number") from None

    return read


def reader(name):
    """Of --metric: a known program's name, `time` (how long the client takes: less is better), or a regular expression."""
    if name == "time":
        return None
    return READERS[name] if name in READERS else by_pattern(name)
