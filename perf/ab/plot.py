"""Draws the ratios to the kernel as an SVG: one row of bars per measurement, on a logarithmic scale."""

import math
from xml.sax.saxutils import escape

from report import UNITS
from sides import KERNEL_SIDES, TITLES

COLOURS = {"memif": "#1f6fb4", "veth": "#8fb9dd", "xdp": "#5fa88f", "share": "#8f7fb9", "share-xdp": "#b98fb0", "kernel": "#a0a0a0",
           "loopback": "#c0a060", "sockmap": "#d09a7a", "busy": "#b08080"}
WIDTH, LABELS, RIGHT, BAR, GAP, TOP = 860, 250, 190, 15, 14, 62


def text(x, y, content, anchor="start", size=12, weight="normal", fill="#222"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
            f'fill="{fill}">{escape(content)}</text>')


class Scale:
    """Ratio to x. The left edge is 0.25 (or less, if a bar needs it)."""

    def __init__(self, ratios):
        self.low = min([0.25] + [2 ** math.floor(math.log2(ratio)) for ratio in ratios])
        self.high = max([4.0] + [2 ** math.ceil(math.log2(ratio)) for ratio in ratios])

    def x(self, ratio):
        share = math.log(ratio / self.low) / math.log(self.high / self.low)
        return LABELS + share * (WIDTH - LABELS - RIGHT)

    def ticks(self):
        tick = self.low
        while tick <= self.high:
            yield tick
            tick *= 2


def amount(row, result):
    if row["kind"] in UNITS:
        return f"{result['rate']:,.1f}{UNITS[row['kind']]}"
    if row["kind"] == "http" and row["size"] > 100000:
        return f"{result['bytes_per_second'] / 1e9:.2f} GB/s"
    return f"{result['rate'] / 1000:,.1f} k/s"


def legend(sides, colours, titles):
    parts, x = [], LABELS
    for side in sides:
        parts.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{colours[side]}"/>')
        parts.append(text(x + 18, 42, titles[side]))
        x += 40 + 7 * len(titles[side])
    return parts


def bars(row, sides, scale, y, colours):
    """One bar per side, its figures to the right of it."""
    parts = []
    for side in (side for side in sides if side in row["sides"]):
        result = row["sides"][side]
        if side == row["baseline"]:
            parts.append(text(scale.x(1) + 6, y + BAR - 4, "1 (baseline)", size=11, fill="#777"))
        elif "ratio" in result:
            end, base = scale.x(result["ratio"]), scale.x(1)
            left, width = min(end, base), max(abs(end - base), 1)
            parts.append(f'<rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{colours[side]}"/>')
            parts.append(text(max(end, base) + 6, y + BAR - 4, f"{result['ratio']:.2f}x  {amount(row, result)}", size=11))
        else:
            parts.append(text(scale.x(1) + 6, y + BAR - 4, "void", size=11, fill="#a00"))
        y += BAR
    return parts


def draw(table, path, colours=None, titles=None,
         headline="Throughput against the kernel (1 = the best of its sides on the same two cores; higher is better)"):
    """Writes nothing if there is nothing to compare. `colours`: of the sides that have bars, in their order."""
    colours, titles = colours or COLOURS, titles or TITLES
    sides = [side for side in colours if any(side in row["sides"] for row in table)]
    if sum(side in KERNEL_SIDES for side in sides) == 1:
        sides = [side for side in sides if side not in KERNEL_SIDES]  # its bar would be 1 in each row
    rows = [row for row in table if row["baseline"]]
    if not sides or not rows:
        return False
    scale = Scale([row["sides"][side]["ratio"] for row in rows for side in sides if "ratio" in row["sides"].get(side, {})])
    step = BAR * len(sides) + GAP
    height = TOP + step * len(rows) + 26
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">',
             f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
             text(12, 20, headline, size=14, weight="bold")]
    parts += legend(sides, colours, titles)
    for tick in scale.ticks():
        x = scale.x(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 22}" '
                     f'stroke="{"#444" if tick == 1 else "#ddd"}"/>')
        parts.append(text(x, height - 8, f"{tick:g}x", "middle", 11))
    for index, row in enumerate(rows):
        y = TOP + index * step
        parts.append(text(LABELS - 10, y + step / 2 - 7, row["title"], "end"))
        parts.append(text(LABELS - 10, y + step / 2 + 6, f"{titles[row['baseline']]}: {amount(row, row['sides'][row['baseline']])}", "end", 10, fill="#777"))
        parts += bars(row, sides, scale, y, colours)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")
    return True
