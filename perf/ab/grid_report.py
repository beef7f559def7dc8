"""What the grid of bad wires says: medians, ratios to the kernel, a table for the README and a plot."""

from statistics import median

from plot import draw

WAYS = {"kernel": "kernel at both ends", "server": "mtcp sends, kernel receives", "client": "kernel sends, mtcp receives"}
UNITS = {"goodput": "Mbit/s", "short": "ms", "share": "%"}


def judge(cells, samples):
    """One dict for each cell. `samples`: {(key, way): [Sample]}; those with errors are counted, and no more."""
    table = []
    for cell in cells:
        ways = {}
        for way in WAYS:
            found = samples.get((cell.key, way), [])
            good = [sample.rate for sample in found if not sample.errors]
            if found:
                ways[way] = {"median": median(good) if good else None, "samples": good,
                             "errors": [error for sample in found for error in sample.errors]}
        base = ways.get("kernel", {}).get("median")
        for way, result in ways.items():
            if way != "kernel" and base and result["median"]:
                result["ratio"] = result["median"] / base
        table.append({"key": cell.key, "title": cell.title, "kind": cell.kind, "in_grid": cell.in_grid, "flows": cell.flows,
                      "control": cell.control, "ways": ways})
    return table


def ratios_of(table, kind, way):
    """Those of the grid itself, in order."""
    return sorted(entry["ways"][way]["ratio"] for entry in table
                  if entry["kind"] == kind and entry["in_grid"] and "ratio" in entry["ways"].get(way, {}))


def shown(entry, way):
    result = entry["ways"].get(way)
    if result is None:
        return ""
    if result["median"] is None:
        return "void"
    number = f"{result['median']:,.1f}" if result["median"] < 100 else f"{result['median']:,.0f}"
    return number + (f" ({result['ratio']:.2f}x)" if "ratio" in result else "")


def print_grid(table):
    """As Markdown."""
    for kind, heading in (("goodput", "goodput, Mbit/s"), ("short", "64 KB, 99th percentile, ms"), ("share", "part of the bottleneck, %")):
        entries = [entry for entry in table if entry["kind"] == kind]
        if not entries:
            continue
        print(f"\n| {heading} | {' | '.join(WAYS.values())} |\n|{'---|' * (len(WAYS) + 1)}")
        for entry in entries:
            print(f"| {entry['title']} | {' | '.join(shown(entry, way) for way in WAYS)} |")
    print()
    for kind, what in (("goodput", "goodput"), ("short", "99th percentile")):
        for way in ("server", "client"):
            if ratios := ratios_of(table, kind, way):
                print(f"{what}, {WAYS[way]}: median of {len(ratios)} cells {median(ratios):.2f}x, from {ratios[0]:.2f}x to {ratios[-1]:.2f}x")
    errors = [(entry["key"], way, error) for entry in table for way, result in entry["ways"].items() for error in result["errors"]]
    for key, way, error in errors:
        print(f"void: {key}, {way}: {error}")
    return len(errors)


def draw_grid(table, path):
    """The goodput of each cell as a ratio to the kernel's."""
    rows = []
    for entry in (entry for entry in table if entry["kind"] == "goodput"):
        sides = {}
        for way, result in entry["ways"].items():
            sides[way] = {"void": result["median"] is None, "rate": result["median"] or 0} | ({"ratio": result["ratio"]} if "ratio" in result else {})
        baseline = "kernel" if not sides.get("kernel", {"void": True})["void"] else None
        rows.append({"title": entry["title"], "kind": "wire", "baseline": baseline, "sides": sides})
    return draw(rows, path, {"server": "#1f6fb4", "client": "#8fb9dd"}, WAYS, "Goodput over bad wires against the kernel at both ends (1 = kernel; higher is better)")
