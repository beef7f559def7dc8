"""From samples to a table and a JSON file."""

import json
import os
import platform
import subprocess
from dataclasses import asdict
from pathlib import Path
from statistics import median

from compare import LEAST_ROUNDS, compare
from sides import KERNEL_SIDES, TITLES


def summarize(samples):
    """Medians and spread of one row on one side. Void if any sample had an error."""
    errors = [error for sample in samples for error in sample.errors]
    good = [sample for sample in samples if not sample.errors]
    result = {"void": bool(errors) or not samples, "errors": errors, "samples": [asdict(sample) for sample in samples]}
    if good:
        rates = [sample.rate for sample in good]
        result |= {"rate": median(rates), "rate_min": min(rates), "rate_max": max(rates)}
        for name in ("bytes_per_second", "p50_us", "p99_us", "server_cpu", "client_cpu"):
            result[name] = median(getattr(sample, name) for sample in good)
    return result


def evaluate(rows, sides, samples):
    """samples: {(row key, side name): [Sample]}. The ratio is to the best of the kernel's sides in the same run: of medians, with the
    lowest and highest of the rounds' own."""
    table = []
    for row in rows:
        entry = {"key": row.key, "title": row.title, "concurrency": row.concurrency, "size": row.size, "kind": row.kind, "sides": {}}
        for side in sides:
            if not row.serves(side):
                continue
            entry["sides"][side] = summarize(samples.get((row.key, side), []))
        kernel = {side: result for side, result in entry["sides"].items() if side in KERNEL_SIDES and not result["void"]}
        entry["baseline"] = base = max(kernel, key=lambda side: kernel[side]["rate"], default=None)
        for side, result in entry["sides"].items():
            if base and side != base and not result["void"]:
                compared = compare([s["rate"] for s in kernel[base]["samples"]], [s["rate"] for s in result["samples"]])
                if compared:
                    result |= {"ratio": compared.ratio, "ratio_min": compared.least, "ratio_max": compared.most, "verdict": compared.verdict}
        table.append(entry)
    return table


def told_by(*words, good=(0,)):
    """The first line that a program prints, if it ends with one of these statuses; "" if not, or if the program is not there."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    except OSError:
        return ""
    text = (done.stdout or done.stderr).decode(errors="replace").strip() if done.returncode in good else ""
    return text.partition("\n")[0].strip()


def machine():
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "nginx": told_by("nginx", "-v"),
            "wrk": told_by("wrk", "-v", good=(0, 1)), "dpdk": told_by("pkg-config", "--modversion", "libdpdk")}


def human_time(microseconds):
    return f"{microseconds:.0f} us" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


NAME_WIDTH = max(map(len, TITLES.values())) + 1
UNITS = {"wire": " Mbit/s", "share": " %"}  # of a row's rate, by its kind


def format_ratio(result):
    """The rounds' range beside it: of two rounds that contradict each other the median says nothing."""
    if "ratio" not in result:
        return " " * 22
    return f"{result['ratio']:6.2f}x" + f" ({result['ratio_min']:.2f} - {result['ratio_max']:.2f})".ljust(15)


def format_line(row, side, result):
    name = f"  {TITLES[side]:{NAME_WIDTH}}"
    if result["void"]:
        shown = f"void: {result['errors'][0] if result['errors'] else 'not measured'}"
        return name + shown
    if row["kind"] in UNITS:
        return f"{name}{result['rate']:>9,.1f}{UNITS[row['kind']]}  {result['rate_min']:,.1f} - {result['rate_max']:,.1f} {format_ratio(result)}"
    rate = f"{result['rate']:>9,.0f}/s  {result['rate_min']:>9,.0f} -{result['rate_max']:>8,.0f}"
    volume = f"{result['bytes_per_second'] / 1e9:5.2f} GB/s" if row["kind"] == "http" and row["size"] > 4096 else " " * 10
    latency = f"{human_time(result['p50_us']):>8} {human_time(result['p99_us']):>8}"
    return f"{name}{rate} {format_ratio(result)} {volume} {latency}   {result['server_cpu']:.2f} + {result['client_cpu']:.2f}"


def print_table(table):
    print(f"\n  {'':{NAME_WIDTH}}{'median':>11}  {'min - max':>20} {'ratio (of rounds)':22} {'':10} {'p50':>8} {'p99':>8}   CPU: server + client")
    for row in table:
        base = row["baseline"]
        several = base and sum(side in KERNEL_SIDES for side in row["sides"]) > 1
        print(row["title"] + (f"; the ratio is to: {TITLES[base]}" if several else ""))
        for side, result in row["sides"].items():
            print(format_line(row, side, result))
    rounds = min((len(result["samples"]) for row in table for result in row["sides"].values()), default=0)
    if rounds < LEAST_ROUNDS:
        print(f"\nfewer than {LEAST_ROUNDS} rounds: an impression, no verdict")
    voids = sum(result["void"] for row in table for result in row["sides"].values())
    print(f"\n{'no errors' if voids == 0 else f'{voids} of the rows void: an error or a wrong byte in any round voids a row'}")
    return voids


def write_json(path, table, settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "settings": settings, "rows": table}, indent=1) + "\n")
