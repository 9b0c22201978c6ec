"""memory.png and scaling.png: how memory, time and speed grow, every line named and its ends labelled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

# Okabe and Ito's colours, told apart by every eye; markers tell them apart in print.
STYLES = {
    "sdpa": ("#0072B2", "o"), "naive": ("#D55E00", "s"), "window": ("#009E73", "^"),
    "minitx": ("#0072B2", "o"), "torch": ("#D55E00", "s"),
}  # fmt: skip
WIDTH, HEIGHT = 5.2, 4.0
LABEL_HEIGHT = 0.045
"""Of a label, as a share of the panel."""
Lines = Mapping[str, Mapping[int, float]]
Panel = Callable[[Axes], None]


def write_figures(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """The figures of the parts that have something to show."""
    sums = {name: part.get("summary", {}) for name, part in report["parts"].items()}
    mark = "DRY RUN, never to be quoted" if report["dry_run"] else ""
    written = []
    memory = _points(sums.get("memory", {}))
    if memory:
        panels = [_growth_panel(memory, sums["memory"]["exponents"], 2**-20, "memory of a step (MiB)")]
        written.append(_write(folder / "memory.png", panels, mark))
    panels = _speed_panels(sums)
    if panels:
        written.append(_write(folder / "scaling.png", panels, mark))
    return written


def _points(summary: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    found = {label: {int(n): v for n, v in each.items() if v > 0} for label, each in summary.get("points", {}).items()}
    return {label: each for label, each in found.items() if each}


def _speed_panels(sums: Mapping[str, Any]) -> list[Panel]:
    """The cost against the length, then one panel per factor of the scaling."""
    panels: list[Panel] = []
    cost = _points(sums.get("cost", {}))
    if cost:
        panels.append(_growth_panel(cost, sums["cost"]["exponents"], 1e3, "time of a step (ms)"))
    for factor, lines in sums.get("scaling", {}).get("tokens_per_second", {}).items():
        panels.append(partial(_scaling, factor=factor, lines=lines))
    return panels


def _write(path: Path, panels: list[Panel], mark: str) -> Path:
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, draw in zip(grid, panels, strict=False):
        draw(axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if mark:
        figure.suptitle(mark, fontsize=9, color="#aa0000")
    figure.savefig(path, dpi=150)
    return path


def _growth_panel(lines: Lines, exponents: Mapping[str, Any], scale: float, what: str) -> Panel:
    """Value against length, one line a backend, with its exponent in the legend."""

    def draw(axes: Axes) -> None:
        shown = {label: {n: scale * v for n, v in points.items()} for label, points in lines.items()}
        powers = {label: exponents.get(label) for label in lines}
        legend = {label: label if e is None else f"{label}, grows as length^{e:.2f}" for label, e in powers.items()}
        _frame(axes, shown, "length (tokens, one row)", what, legend)

    return draw


def _scaling(axes: Axes, factor: str, lines: Lines) -> None:
    shown = {label: {int(n): v for n, v in points.items()} for label, points in lines.items()}
    _frame(axes, shown, factor, "training tokens/s", {label: label for label in shown}, log=False)


def _frame(axes: Axes, lines: Lines, x_label: str, y_label: str, legend: Mapping[str, str], log: bool = True) -> None:
    """Draw the lines; x is logarithmic, and y too, or linear from zero."""
    for label, points in lines.items():
        colour, marker = STYLES[label]
        xs = sorted(points)
        ys = [points[x] for x in xs]
        axes.plot(xs, ys, color=colour, marker=marker, markersize=5, linewidth=1.5, label=legend[label])
    ticks = sorted({x for points in lines.values() for x in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2, y=0.12)
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.25 * max(y for points in lines.values() for y in points.values()))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left" if log else "upper right")
    for x, side in {ticks[0]: -1, ticks[-1]: 1}.items():
        _label_end(axes, lines, x, side)


def _label_end(axes: Axes, lines: Lines, x: int, side: int) -> None:
    """The values at one end of the lines, beside their points, moved apart where they would overlap."""
    ends = sorted((points[x], label) for label, points in lines.items() if x in points)
    heights = [axes.transAxes.inverted().transform(axes.transData.transform((x, value)))[1] for value, _ in ends]
    for lower in range(len(heights) - 1):
        heights[lower + 1] = max(heights[lower + 1], heights[lower] + LABEL_HEIGHT)
    for (value, label), height in zip(ends, heights, strict=True):
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        axes.annotate(
            text, (x, height), (7 * side, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right" if side < 0 else "left", va="center", fontsize=7.5, color=STYLES[label][0],
        )  # fmt: skip
