"""One measure of all arms of a study: mean and interval over seeds, every seed a dot, along the axis or arm by arm.

Arms differ in colour (Okabe and Ito's), marker and line, so that any one of the three tells them apart.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator

from minitx.analysis.figures import drawable
from minitx.report.curves import exponent_line, learning_curves, numbers_of
from minitx.report.wording import axis_name, measure_name, plain, value_text
from minitx.studies.evidence import ContrastResult, Evidence
from minitx.studies.statistics import LearningCurve, paired_interval
from minitx.sweeps.cells import Value

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#B07A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1.6)), (0, (6, 1, 1, 1, 1, 1)))
WIDTH, HEIGHT, LEGEND_ROW = 4.2, 3.0, 0.21
LONGEST_LABEL = 30
DECADE = 10.0
"""Numbers that span this much are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Series:
    """An arm's points: where they stand, and the numbers of the seeds at each."""

    arm: str
    places: tuple[float, ...]
    numbers: tuple[tuple[float, ...], ...]
    style: int
    """Its place among the study's arms, the same in all figures."""

    @property
    def looks(self) -> dict[str, Any]:
        return {"color": COLOURS[self.style % len(COLOURS)], "marker": MARKERS[self.style % len(MARKERS)]}

    @property
    def line(self) -> Any:
        return LINES[self.style % len(LINES)]


@dataclass(frozen=True)
class Axis:
    """What stands along x."""

    name: str
    places: Mapping[Value, float]
    """Value, or arm where arms stand along it, -> where."""
    labels: tuple[str, ...]
    """In the order of `places`."""
    log: bool
    of_arms: bool


def outcome_figure(evidence: Evidence, measure: str, parts: Sequence[ContrastResult]) -> Figure | None:
    """`measure` of every arm that has it; parts: contrasts, whose fitted exponents are drawn. None without any cell."""
    axis = _axis(evidence, measure)
    series = _series(evidence, measure, axis)
    if not series:
        return None
    lines = [part for part in parts if part.part.contrast == "exponent" and part.part.measure == measure]
    curves = learning_curves(evidence, measure)
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    if axis.log:
        axes.set_xscale("log")
    if lines:
        axes.set_yscale("log")
    for one in series:
        _draw(axes, one, axis, curves.get(one.arm), n_arms=len(series))
    fits = [_draw_exponent(axes, evidence, part) for part in lines]
    _dress(axes, axis, measure)
    if not axis.of_arms:
        _legend(figure, series, [fit for fit in fits if fit is not None])
    return figure


def caption(evidence: Evidence, measure: str, parts: Sequence[ContrastResult]) -> str:
    """What the figure shows."""
    told = f"{measure_name(measure).capitalize()}: mean and 95 % interval over seeds, every seed a dot."
    if learning_curves(evidence, measure):
        told += " Curves: a + b n⁻ᶜ, with the band of their 95 % interval; an arm without one is joined by lines."
    if any(part.part.contrast == "exponent" and part.part.measure == measure for part in parts):
        told += " Both scales are logarithmic; grey lines are the fitted powers of the last tenfold."
    return told


def svg_of(figure: Figure) -> str:
    """The figure as SVG, letters as shapes: the same bytes wherever and whenever it is drawn."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "minitx", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return file.getvalue()


# -------------------------------------------------------------------------------------------------------------- data


def _axis(evidence: Evidence, measure: str) -> Axis:
    """Numbers on a true scale; names in order; arms where the axis has nothing to tell."""
    tier = evidence.tier
    having = [arm for arm in tier.arms if any(evidence.per_seed(measure, arm, v) for v in tier.values_of(arm))]
    values = list(dict.fromkeys(v for arm in having for v in tier.values_of(arm) if v is not None))
    name = axis_name(tier.axis)
    if len(values) < 2:
        return Axis("", _in_order(having), tuple(map(_label, having)), log=False, of_arms=True)
    if all(numbers_of(evidence, arm) is not None for arm in having):
        places = {value: float(value) for value in sorted(values, key=float)}
        numbers = list(places.values())
        log = numbers[0] > 0 and numbers[-1] >= DECADE * numbers[0]
        return Axis(name, places, tuple(map(_short, numbers)), log, of_arms=False)
    order = sorted(values, key=lambda v: tier.values.index(v) if v in tier.values else len(tier.values))
    return Axis(name, _in_order(order), tuple(_label(value_text(v)) for v in order), log=False, of_arms=False)


def _in_order(values: Sequence[Value]) -> dict[Value, float]:
    return {value: float(place) for place, value in enumerate(values)}


def _series(evidence: Evidence, measure: str, axis: Axis) -> list[Series]:
    found, tier = [], evidence.tier
    for style, arm in enumerate(tier.arms):
        seen = {v: evidence.per_seed(measure, arm, v) for v in tier.values_of(arm)}
        points = {v: tuple(seeds.values()) for v, seeds in seen.items() if seeds}
        if points:
            places = tuple(axis.places[arm if axis.of_arms or v is None else v] for v in points)
            found.append(Series(arm, places, tuple(points.values()), style))
    return found


def _label(text: str) -> str:
    """Short enough to draw; what begins with an underscore would be left out of a legend."""
    cut = drawable(text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…")
    return " " + cut if cut.startswith("_") else cut


def _short(number: float) -> str:
    """`64k` for 64,000, as many sizes must stand side by side."""
    if number >= 10_000 and number % 1000 == 0:
        return f"{number / 1000:,.0f}k"
    return f"{number:,g}"


# ------------------------------------------------------------------------------------------------------------ drawing


def _draw(axes: Axes, one: Series, axis: Axis, curve: LearningCurve | None, n_arms: int) -> None:
    """Dots of all seeds, then mean and interval over them, then what joins the means."""
    at = _dodged(one, axis, n_arms)
    for place, numbers in zip(at, one.numbers, strict=True):
        axes.plot(
            [place] * len(numbers), numbers, linestyle="none", marker="o", markersize=3.2, alpha=0.55,
            color=one.looks["color"], markeredgewidth=0, zorder=2,
        )  # fmt: skip
    means, lows, highs = np.array([paired_interval(numbers) for numbers in one.numbers]).T
    bars = np.where(np.isfinite([means - lows, highs - means]), [means - lows, highs - means], 0.0)
    joined = "none" if curve is not None or axis.of_arms else one.line
    axes.errorbar(
        at, means, yerr=bars, **one.looks, linestyle=joined, linewidth=1.3, markersize=5.5, markeredgecolor="white",
        markeredgewidth=0.6, capsize=3, elinewidth=1.2, zorder=3,
    )  # fmt: skip
    if curve is not None:
        x = np.geomspace(min(one.places), max(one.places), 80)
        y, low, high = curve.at(x)
        axes.plot(x, y, color=one.looks["color"], linestyle=one.line, linewidth=1.4, zorder=2)
        axes.fill_between(x, low, high, color=one.looks["color"], alpha=0.12, linewidth=0)


def _dodged(one: Series, axis: Axis, n_arms: int) -> list[float]:
    """Arms stand a little beside each other, that their intervals stay apart."""
    if axis.of_arms or len(axis.places) < 2:
        return list(one.places)
    places = np.array(list(axis.places.values()))
    scaled = np.log(places) if axis.log else places
    room = min(0.35 * float(np.diff(scaled).min()), 0.04 * float(np.ptp(scaled)))
    shift = room * ((one.style % n_arms) / max(1, n_arms - 1) - 0.5)
    return [x * math.exp(shift) if axis.log else x + shift for x in one.places]


def _draw_exponent(axes: Axes, evidence: Evidence, part: ContrastResult) -> Line2D | None:
    line = exponent_line(evidence, part)
    if line is None:
        return None
    label = _label(f"{part.part.arm}: power {plain(line.exponent, 2)}")
    [drawn] = axes.plot(line.x, line.y, color="#8a949e", linewidth=3.2, alpha=0.7, zorder=1, label=label)
    return drawn


def _dress(axes: Axes, axis: Axis, measure: str) -> None:
    axes.set_ylabel(drawable(measure_name(measure)), fontsize=9.5, parse_math=False)
    axes.grid(axis="y", color="#dde2e7", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
    crowded = sum(map(len, axis.labels)) > 38
    turned: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if crowded else {}
    axes.set_xticks(list(axis.places.values()), axis.labels, parse_math=False, **turned)
    if axis.of_arms:
        axes.set_xlim(-0.6, len(axis.places) - 0.4)
    else:
        told = f"{axis.name} (logarithmic)" if axis.log else axis.name
        axes.set_xlabel(drawable(told), fontsize=9.5, parse_math=False)
    axes.xaxis.set_minor_locator(NullLocator())
    if axes.get_yscale() == "log":
        axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, series: Sequence[Series], fits: Sequence[Line2D]) -> None:
    """Below the axes, where it hides nothing."""
    handles: list[Artist] = [
        Line2D([], [], **one.looks, linestyle=one.line, linewidth=1.4, markersize=5.5) for one in series
    ]  # fmt: skip
    labels = [_label(one.arm) for one in series] + [str(fit.get_label()) for fit in fits]
    columns = max(1, min(4, len(labels), int(54 / (8 + max(map(len, labels))))))
    rows = math.ceil(len(labels) / columns)
    figure.set_figheight(HEIGHT + LEGEND_ROW * rows)
    legend = figure.legend(
        [*handles, *fits], labels, loc="outside lower center", ncols=columns, fontsize=8.5, frameon=False,
        handlelength=3.2,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
