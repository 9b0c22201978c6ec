"""Two figures of a claim: one measure of all arms along the axis, and the interval of one contrast beside delta.

Arms differ in colour (Okabe and Ito's), marker and line, any one of which suffices.
"""

from __future__ import annotations

import io
import math
import textwrap
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
from minitx.report.labels import axis_label, measure_label
from minitx.report.wording import axis_name, delta_text, effect_text, measure_name, plain, value_text
from minitx.studies.claims import ContrastResult
from minitx.studies.evidence import Evidence
from minitx.studies.statistics import LearningCurve, paired_interval
from minitx.studies.verdicts import MIN_SEEDS
from minitx.sweeps.cells import Value

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#B07A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1.6)), (0, (6, 1, 1, 1, 1, 1)))
WIDTH, HEIGHT, LEGEND_ROW = 4.2, 3.0, 0.21
LONGEST_LABEL = 30
TITLE_WIDTH, TITLE_ROW, LABEL_WIDTH = 52, 0.18, 38
"""Letters in a line of the title, inches of one, and letters in a line beside the y axis."""
LINE_POINTS = 4
"""Fewer points are not joined: two show no line."""
DECADE = 10.0
"""Numbers that span this much are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Series:
    """An arm's points: their positions, and the numbers of all seeds at each."""

    arm: str
    places: tuple[float, ...]
    numbers: tuple[tuple[float, ...], ...]
    style: int
    """Number of the arm in its study, the same in all figures."""

    @property
    def point_style(self) -> dict[str, Any]:
        return {"color": COLOURS[self.style % len(COLOURS)], "marker": MARKERS[self.style % len(MARKERS)]}

    @property
    def line(self) -> Any:
        return LINES[self.style % len(LINES)]


@dataclass(frozen=True)
class Axis:
    """The x axis."""

    name: str
    places: Mapping[Value, float]
    """Value, or arm on an axis of arms -> position."""
    labels: tuple[str, ...]
    """In the order of `places`."""
    log: bool
    of_arms: bool


def outcome_figure(
    evidence: Evidence, measure: str, contrasts: Sequence[ContrastResult], title: str = ""
) -> Figure | None:
    """`measure` of every arm that has it; contrasts: those whose fitted exponents are drawn. None without any cell.

    title: what the figure is about, as the claim in words.
    """
    axis = _axis(evidence, measure)
    series = _series(evidence, measure, axis)
    if not series:
        return None
    lines = [one for one in contrasts if one.contrast.kind == "exponent" and one.contrast.measure == measure]
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
    fits = [_draw_exponent(axes, evidence, one) for one in lines]
    _dress(axes, axis, measure, evidence.tier.axis)
    if title:
        lines_of_title = textwrap.wrap(drawable(title), TITLE_WIDTH)
        axes.set_title("\n".join(lines_of_title), fontsize=10, loc="left", parse_math=False)
        figure.set_figheight(figure.get_figheight() + TITLE_ROW * (len(lines_of_title) - 1))
    if not axis.of_arms:
        _legend(figure, series, [fit for fit in fits if fit is not None])
    return figure


def caption(evidence: Evidence, measure: str, contrasts: Sequence[ContrastResult]) -> str:
    """What the figure shows."""
    text = f"{measure_name(measure).capitalize()}: mean and 95 % interval over seeds, every seed a dot."
    if learning_curves(evidence, measure):
        text += " Curves: a + b n⁻ᶜ, with the band of their 95 % interval; an arm without one is joined by lines."
    if any(one.contrast.kind == "exponent" and one.contrast.measure == measure for one in contrasts):
        text += " Both scales are logarithmic; grey lines are the fitted powers of the last tenfold."
    return text


def svg_of(figure: Figure) -> str:
    """The figure as SVG, letters as shapes: the same bytes wherever and whenever it is drawn."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "minitx", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return file.getvalue()


# -------------------------------------------------------------------------------------------------------------- data


def _axis(evidence: Evidence, measure: str) -> Axis:
    """Numbers to scale; names in order; arms where there is no axis or one value."""
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
    """`64k` for 64,000, to save room."""
    if number >= 10_000 and number % 1000 == 0:
        return f"{number / 1000:,.0f}k"
    return f"{number:,g}"


# ------------------------------------------------------------------------------------------------------------ drawing


def _draw(axes: Axes, one: Series, axis: Axis, curve: LearningCurve | None, n_arms: int) -> None:
    """Dots of all seeds, then mean and interval over them, then what joins the means."""
    at = _dodged(one, axis, n_arms)
    for place, numbers in zip(one.places, one.numbers, strict=True):
        axes.plot(
            [place] * len(numbers), numbers, linestyle="none", marker="o", markersize=3.2, alpha=0.55,
            color=one.point_style["color"], markeredgewidth=0, zorder=2,
        )  # fmt: skip
    means, lows, highs = np.array([paired_interval(numbers) for numbers in one.numbers]).T
    bars = np.where(np.isfinite([means - lows, highs - means]), [means - lows, highs - means], 0.0)
    bars[:, [len(numbers) < MIN_SEEDS for numbers in one.numbers]] = np.nan  # an interval of fewer says nothing
    joined = "none" if curve is not None or axis.of_arms or len(at) < LINE_POINTS else one.line
    axes.errorbar(
        at, means, yerr=bars, **one.point_style, linestyle=joined, linewidth=1.3, markersize=5.5,
        markeredgecolor="white", markeredgewidth=0.6, capsize=3, elinewidth=1.2, zorder=3,
    )  # fmt: skip
    if curve is not None:
        x = np.geomspace(min(one.places), max(one.places), 80)
        y, low, high = curve.at(x)
        axes.plot(x, y, color=one.point_style["color"], linestyle=one.line, linewidth=1.4, zorder=2)
        axes.fill_between(x, low, high, color=one.point_style["color"], alpha=0.12, linewidth=0)


def _dodged(one: Series, axis: Axis, n_arms: int) -> list[float]:
    """Positions of an arm, shifted a little so that intervals of arms do not overlap."""
    if axis.of_arms or len(axis.places) < 2:
        return list(one.places)
    places = np.array(list(axis.places.values()))
    scaled = np.log(places) if axis.log else places
    room = min(0.35 * float(np.diff(scaled).min()), 0.04 * float(np.ptp(scaled)))
    shift = room * ((one.style % n_arms) / max(1, n_arms - 1) - 0.5)
    return [x * math.exp(shift) if axis.log else x + shift for x in one.places]


def _draw_exponent(axes: Axes, evidence: Evidence, found: ContrastResult) -> Line2D | None:
    line = exponent_line(evidence, found)
    if line is None:
        return None
    label = _label(f"{found.contrast.arm}: power {plain(line.exponent, 2)}")
    [drawn] = axes.plot(line.x, line.y, color="#8a949e", linewidth=3.2, alpha=0.7, zorder=1, label=label)
    return drawn


def _dress(axes: Axes, axis: Axis, measure: str, key: str | None) -> None:
    axes.set_ylabel(
        "\n".join(textwrap.wrap(drawable(measure_label(measure)), LABEL_WIDTH)), fontsize=9.5, parse_math=False
    )
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
        axes.set_xlabel(drawable(axis_label(key, axis.log)), fontsize=9.5, parse_math=False)
    axes.xaxis.set_minor_locator(NullLocator())
    if axes.get_yscale() == "log":
        axes.yaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, series: Sequence[Series], fits: Sequence[Line2D]) -> None:
    """Below the axes, where it hides nothing."""
    handles: list[Artist] = [
        Line2D([], [], **one.point_style, linestyle=one.line, linewidth=1.4, markersize=5.5) for one in series
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


# --------------------------------------------------------------------------------------------- interval of a contrast


FOREST_WIDTH, FOREST_HEIGHT, EDGE = 360, 66, 12
MIDDLE, BAND_TOP, BAND_END, LABELS = 24, 6, 42, 57
"""Heights: of the interval, of the band of delta, of the numbers below it."""
LABEL_ROOM = 34
"""Least distance between two numbers."""


def forest_svg(found: ContrastResult) -> str:
    """Shaded: within delta. Bar: the interval; diamond: the mean; dots: every seed. An arrow: the interval goes on."""
    low, high = _limits(found)

    def x(number: float) -> float:
        return EDGE + (min(max(number, low), high) - low) / (high - low) * (FOREST_WIDTH - 2 * EDGE)

    delta, effect = found.contrast.delta, found.effect
    beyond = [(bound, way) for bound, way in ((effect.low, -1), (effect.high, 1)) if not low <= bound <= high]
    drawn = [
        _band(x(-delta), x(delta)),
        _upright(x(-delta), "#6b7783", "3 2"),
        _upright(x(delta), "#6b7783", "3 2"),
        _upright(x(0), "#16202c", ""),
        *(_dot(x(number)) for number in found.values if math.isfinite(number)),
        _bar(x(effect.low), x(effect.high)),
        *(_arrow(x(bound), way) for bound, way in beyond),
        _diamond(x(effect.mean)),
        *_numbers(x(-delta), x(0), x(delta), delta_text(found)),
    ]
    label = f"{effect_text(found)}, delta {delta_text(found)}"
    box = f"0 0 {FOREST_WIDTH} {FOREST_HEIGHT}"
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img" aria-label="{label}">'
    return f"{start}{''.join(drawn)}</svg>"


def _limits(found: ContrastResult) -> tuple[float, float]:
    """All of delta and of the seeds, and of the interval as far as that leaves something to see."""
    delta, effect = found.contrast.delta, found.effect
    inner = [-1.3 * delta, 1.3 * delta, *filter(math.isfinite, found.values)]
    limit = 4 * max(map(abs, inner))
    bounds = [min(max(bound, -limit), limit) for bound in (effect.low, effect.high) if math.isfinite(bound)]
    low, high = min(inner + bounds), max(inner + bounds)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _band(left: float, right: float) -> str:
    return f'<path d="M{left:.1f} {BAND_TOP}H{right:.1f}V{BAND_END}H{left:.1f}z" fill="#dfe5eb"/>'


def _dot(x: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{MIDDLE + 11}" r="2.6" fill="#16202c" fill-opacity=".5"/>'


def _upright(x: float, colour: str, dashes: str) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="M{x:.1f} {BAND_TOP}V{BAND_END}" stroke="{colour}" stroke-width="1"{dashed}/>'


def _bar(left: float, right: float) -> str:
    ends = "".join(f"M{x:.1f} {MIDDLE - 5}v10" for x in (left, right))
    return f'<path d="M{left:.1f} {MIDDLE}H{right:.1f}{ends}" stroke="#0b4f8a" stroke-width="2.4" fill="none"/>'


def _arrow(x: float, way: int) -> str:
    back = -7 * way
    return f'<path d="M{x:.1f} {MIDDLE}l{back} -6v12z" fill="#0b4f8a" transform="translate({4 * way} 0)"/>'


def _diamond(x: float) -> str:
    return f'<path d="M{x:.1f} {MIDDLE - 6}l6 6l-6 6l-6 -6z" fill="#0b4f8a" stroke="#fff" stroke-width="1"/>'


def _numbers(left: float, zero: float, right: float, delta: str) -> list[str]:
    """-delta, 0 and delta, as far as they have room."""
    style = 'font-family="system-ui,sans-serif" font-size="11" fill="#3f4b57"'
    if zero - left >= LABEL_ROOM:
        places = [(left, f"{plain(-1, 0)[0]}{delta}", "middle"), (zero, "0", "middle"), (right, f"+{delta}", "middle")]
    else:
        places = [(zero, "0", "middle"), (max(zero, right) + 8, f"shaded: ±{delta}", "start")]
        if zero > 0.7 * FOREST_WIDTH:
            places[1] = (min(zero, left) - 8, f"shaded: ±{delta}", "end")
    return [
        f'<text x="{_within(x):.1f}" y="{LABELS}" text-anchor="{anchor}" {style}>{text}</text>'
        for x, text, anchor in places
    ]


def _within(x: float) -> float:
    return min(max(x, EDGE), FOREST_WIDTH - EDGE)
