"""The result of a comparison, for people: text and a page to mail; for programs: JSON and CSV."""

import base64
import csv
import html
import io
import json
from dataclasses import asdict
from statistics import median

from report import human_time, machine


def middle(samples, name):
    return median(getattr(sample, name) for sample in samples)


def amount(value, unit):
    digits = 0 if value >= 1000 else 1 if value >= 10 else 3
    return f"{value:,.{digits}f}{' ' + unit if unit else ''}"


def per_operation(seconds, operations):
    return f"{seconds / operations * 1e6:,.2f} us" if operations and seconds else "-"


def verdict(result):
    c = result.comparison
    if c is None:
        return "baseline" if result.is_base else ""
    return f"{c.ratio:.2f}x  [{c.low:.2f}, {c.high:.2f}]  {c.verdict}" if c.rounds > 1 else f"{c.ratio:.2f}x  (one round)"


def row_of(result):
    """The cells of a side: text by column."""
    good = result.samples
    value = middle(good, "value")
    operations = middle(good, "operations")
    return {
        "side": result.kind.title, "median": amount(value, good[0].unit),
        "range": f"{amount(min(s.value for s in good), '')} - {amount(max(s.value for s in good), '')}", "against the baseline": verdict(result),
        "p50": human_time(middle(good, "p50_us")) if good[0].p50_us else "-", "p99": human_time(middle(good, "p99_us")) if good[0].p99_us else "-",
        "p99.9": human_time(middle(good, "p999_us")) if good[0].p999_us else "-",
        "server CPU/op": per_operation(middle(good, "server_cpu"), operations), "client CPU/op": per_operation(middle(good, "client_cpu"), operations),
        "CPUs": f"{median(s.server_cpu / s.seconds for s in good):.2f}" + (
            "" if result.kind.client_elsewhere else f" + {median(s.client_cpu / s.seconds for s in good):.2f}"),
        "calls/op": "-" if good[0].calls_per_operation is None else f"{good[0].calls_per_operation:.2f}",
        "switches/op": f"{middle(good, 'switches') / operations:.2f}" if operations and middle(good, "switches") >= 0 else "-",
        "memory": f"{middle(good, 'memory') / (1 << 20):,.0f} MB",
    }


COLUMNS = ("side", "median", "range", "against the baseline", "p50", "p99", "p99.9", "server CPU/op", "client CPU/op", "CPUs", "calls/op", "switches/op", "memory")


def notes(results, base):
    """What a reader must know beside the figures."""
    out = []
    steal = max((s.steal for r in results for s in r.samples), default=0)
    if steal > 0.01:
        out.append(f"up to {100 * steal:.0f} % of the machine's time was stolen by others on its host: trust the interval, not the median")
    clocks = [s.megahertz for r in results for s in r.samples if s.megahertz]
    if clocks and max(clocks) > 1.05 * min(clocks):
        out.append(f"the processors ran at {min(clocks):,.0f} to {max(clocks):,.0f} MHz: part of a difference may be theirs")
    wire = next((r.kind.wire for r in results if r.side == base), None)
    foreign = [r.kind.title for r in results if not r.void and r.kind.wire != wire]
    if foreign:
        out.append(f"over another wire than the baseline, so the wire is part of the difference: {'; '.join(foreign)}")
    if any(s.calls_per_operation is not None for r in results for s in r.samples):
        out.append("calls/op: the server's system calls for each operation, counted while warming up")
    out += [r.remark for r in results if r.remark]
    if any(not r.kind.on_kernel and not r.void for r in results):
        out.append("mtcp polls while there is work: its CPU figures are an upper bound, and what polling finds nothing is free for other programs")
    out += [f"{r.kind.title}: of the server's polls while warming up {100 * share:.0f} % found something to do (one that finds nothing is short)"
            for r in results if not r.void and (share := r.samples[0].useful_polls) is not None]
    return out


def text(title, results, base):
    lines = [title]
    rows = [None if r.void else row_of(r) for r in results]
    widths = {c: max([len(c)] + [len(row[c]) for row in rows if row]) for c in COLUMNS}
    lines.append("  " + "  ".join(f"{c:{widths[c]}}" for c in COLUMNS))
    for result, row in zip(results, rows):
        if row is None:
            lines.append(f"  {result.kind.title:{widths['side']}}  void: {result.errors[0] if result.errors else 'not measured'}")
        else:
            lines.append("  " + "  ".join(f"{row[c]:{widths[c]}}" for c in COLUMNS))
    lines += [f"  note: {note}" for note in notes(results, base)]
    return "\n".join(lines)


def as_dict(title, results, settings):
    return {"title": title, "machine": machine(), "settings": settings,
            "sides": {r.side: {"void": r.void, "errors": r.errors, "remark": r.remark, "samples": [asdict(s) for s in r.all_samples],
                               "comparison": asdict(r.comparison) if r.comparison else None} for r in results}}


def write_csv(path, results):
    """A line for each sample."""
    names = [name for name in asdict(next(s for r in results for s in r.all_samples)) if name != "errors"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["side", "round", *names, "errors"])
        for result in results:
            for number, sample in enumerate(result.all_samples, 1):
                values = asdict(sample)
                writer.writerow([result.side, number, *(values[name] for name in names), "; ".join(sample.errors)])


def plot(results):
    """Samples of each side as points with their median, and the ratios with their intervals: a PNG, as base64."""
    import matplotlib  # only who asks for a page needs it
    matplotlib.use("Agg")
    from matplotlib import pyplot
    good = [r for r in results if not r.void]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 0.9 + 0.6 * len(good)), layout="constrained")
    for y, result in enumerate(good):
        values = [s.value for s in result.samples]
        left.plot(values, [y] * len(values), "o", alpha=0.5)
        left.plot([median(values)], [y], "k|", markersize=18)
        if result.comparison:
            c = result.comparison
            right.errorbar([c.ratio], [y], xerr=[[c.ratio - min(c.low, c.ratio)], [max(c.high, c.ratio) - c.ratio]], fmt="o", capsize=4, color="k")
    for axes, label in ((left, good[0].samples[0].unit), (right, "ratio to the baseline (more is better)")):
        axes.set_yticks(range(len(good)), [r.kind.title for r in good] if axes is left else [""] * len(good))
        axes.set_ylim(len(good) - 0.5, -0.5)
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
    left.set_xlim(left=0)
    right.axvline(1, color="grey", linewidth=1)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    pyplot.close(figure)
    return base64.b64encode(out.getvalue()).decode()


STYLE = "body{font-family:sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left}"


def page(title, results, settings, base):
    """One HTML file with everything in it."""
    def cell(content, tag="td"):
        return f"<{tag}>{html.escape(str(content))}</{tag}>"

    rows = []
    for result in results:
        if result.void:
            rows.append(cell(result.kind.title) + f'<td colspan="{len(COLUMNS) - 1}">void: {html.escape("; ".join(result.errors) or "not measured")}</td>')
        else:
            row = row_of(result)
            rows.append("".join(cell(row[c]) for c in COLUMNS))
    parts = [f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>"]
    if any(not r.void for r in results):
        parts.append(f'<img alt="samples and ratios" src="data:image/png;base64,{plot(results)}">')
    parts.append("<table><tr>" + "".join(cell(c, "th") for c in COLUMNS) + "</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table><ul>")
    parts += [f"<li>{html.escape(note)}</li>" for note in notes(results, base)]
    parts.append("</ul><p>A ratio above 1 is in favour of that side. In brackets: its interval with 95 % confidence (bootstrap over rounds).</p>")
    facts = {**machine(), **settings}
    texts = {k: json.dumps(v) if isinstance(v, (dict, list, tuple)) else v for k, v in facts.items()}
    parts.append("<table>" + "".join(f"<tr>{cell(k, 'th')}{cell(text)}</tr>" for k, text in texts.items()) + "</table>")
    return "\n".join(parts) + "\n"
