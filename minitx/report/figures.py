"""Figures of outcomes: one measure of all arms along the axis, alone or in panels; and the interval of one contrast.

A figure can be read without the text beside it: its title is the claim, its axes are in words that say which way is
better, and its lines are labelled at their ends. Arms differ in colour, marker and line, any one of which suffices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from minitx.report.curves import exponent_line, learning_curves
from minitx.report.drawing import (
    FAINT,
    GREY,
    INK,
    LINE_POINTS,
    SMALL_POINTS,
    TEXT_POINTS,
    End,
    drawable,
    drawn_language,
    label_ends,
    new_figure,
    style_of,
    svg_of,
    wrapped,
)
from minitx.report.labels import (
    axis_label,
    is_accuracy,
    measure_label,
    measure_name,
    possible_range,
    word,
)
from minitx.report.phrases import Language
from minitx.report.series import (
    Axis,
    Panel,
    Series,
    axis_of,
    dodged,
    interval_of,
    is_log,
    limits_of,
    series_of,
    styles_of,
)
from minitx.report.wording import delta_text, effect_text, plain
from minitx.studies.claims import ContrastResult
from minitx.studies.evidence import Evidence
from minitx.studies.verdicts import MIN_SEEDS

__all__ = ["Panel", "caption", "forest_svg", "outcome_figure", "panels_figure", "svg_of"]

WIDTH, HEIGHT = 4.6, 3.0
"""Inches, of a panel that stands alone."""
NARROW_WIDTH, PANEL_WIDTH, PANEL_HEIGHT = 4.0, 3.3, 2.7
"""Of panels below each other, and of one of several beside each other."""
LABEL_LETTERS = 18
"""In a line of what is written at the end of an arm."""
FIT = "#8a949e"
MOST_PLAIN = 1e4
"""Larger numbers on a logarithmic axis are written as powers of ten."""


def outcome_figure(
    evidence: Evidence,
    measure: str,
    contrasts: Sequence[ContrastResult],
    title: str = "",
    *,
    chance: float | None = None,
    names: Mapping[str, str] | None = None,
    language: Language = "en",
) -> Figure | None:
    """`measure` of every arm that has it; None without any cell.

    contrasts: those whose fitted exponents are drawn. title: what the figure is about, as the claim in words. chance:
    the accuracy of guessing. names: arm -> its name in the figure, of the arms to draw; None = all.
    """
    panel = Panel(evidence, measure, contrasts, chance=chance, names=names)
    return panels_figure([panel], title, language=language)


def panels_figure(
    panels: Sequence[Panel], title: str = "", *, narrow: bool = False, language: Language = "en"
) -> Figure | None:
    """Several outcomes beside each other on one y axis, or below each other where the page is narrow.

    None where no panel has any cell; a panel without any is left out.
    """
    language, styles = drawn_language(language), styles_of(panels)
    drawn = [(panel, axis, series_of(panel, axis, styles)) for panel in panels for axis in [axis_of(panel)]]
    drawn = [one for one in drawn if one[2]]
    if not drawn:
        return None
    rows, columns = (len(drawn), 1) if narrow else (1, len(drawn))
    width, height = (WIDTH, HEIGHT) if len(drawn) == 1 else (PANEL_WIDTH * columns, PANEL_HEIGHT)
    if narrow:
        width = NARROW_WIDTH
    with style_of(language):
        figure = new_figure(width, height * rows, title, language)
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
        log = any(is_log(panel, axis) for panel, axis, _ in drawn)
        limits = limits_of([(panel, series) for panel, _, series in drawn], log)
        for place, (axes, (panel, axis, series)) in enumerate(zip(grid.flat, drawn, strict=True)):
            axes.set_yscale("log" if log else "linear")
            axes.set_ylim(*limits)
            _draw_panel(axes, panel, axis, series, language)
            _dress(axes, panel, axis, language, first=narrow or place == 0, letters=round(10 * width / columns))
            label_ends(axes, _ends_of(panel, axis, series, language), height - 0.75)
    return figure


def caption(evidence: Evidence, measure: str, contrasts: Sequence[ContrastResult], *, language: Language = "en") -> str:
    """What the figure shows."""
    fits = any(one.contrast.kind == "exponent" and one.contrast.measure == measure for one in contrasts)
    curves = bool(learning_curves(evidence, measure))
    if language == "zh":
        text = f"{measure_label(measure, language)}：每个小点是一个种子，大标记是均值，"
        text += f"种子不少于 {MIN_SEEDS} 个时附 95% 区间。"
        text += "曲线：a + b n⁻ᶜ 及其 95% 区间带。" if curves else ""
        return text + ("两轴均为对数刻度；灰线是在最后十倍范围内拟合的幂。" if fits else "")
    text = f"{measure_name(measure).capitalize()}: every seed a dot, the mean a larger mark, "
    text += f"with its 95 % interval where there are {MIN_SEEDS} seeds or more."
    if curves:
        text += " Curves: a + b n⁻ᶜ, with the band of their 95 % interval; an arm without one is joined by lines."
    if fits:
        text += " Both scales are logarithmic; grey lines are the fitted powers of the last tenfold."
    return text


# ------------------------------------------------------------------------------------------------------------ drawing


def _draw_panel(axes: Axes, panel: Panel, axis: Axis, series: Sequence[Series], language: Language) -> None:
    if axis.log:
        axes.set_xscale("log")
    curves = learning_curves(panel.evidence, panel.measure)
    for one in series:
        _draw(axes, panel, axis, one, joined=one.arm not in curves, n_arms=len(series))
        if one.arm in curves:
            x = np.geomspace(min(one.places), max(one.places), 80)
            least, most = possible_range(panel.measure)
            y, low, high = (np.clip(line, least, most) for line in curves[one.arm].at(x))
            axes.plot(x, y, color=one.colour, linestyle=one.line, linewidth=1.4, zorder=2)
            axes.fill_between(x, low, high, color=one.colour, alpha=0.12, linewidth=0)
    for found in _fits_of(panel, series):
        line = exponent_line(panel.evidence, found)
        if line is not None:
            axes.plot(line.x, line.y, color=FIT, linewidth=3.4, alpha=0.6, zorder=1)
    if panel.chance is not None and is_accuracy(panel.measure):
        axes.axhline(panel.chance, color=GREY, linestyle=(0, (4, 3)), linewidth=1.0, zorder=1)


def _draw(axes: Axes, panel: Panel, axis: Axis, one: Series, *, joined: bool, n_arms: int) -> None:
    """Dots of all seeds at their places, then mean and interval, then what joins the means."""
    for place, numbers in zip(one.places, one.numbers, strict=True):
        axes.plot(
            [place] * len(numbers), numbers, linestyle="none", marker="o", markersize=3.2, alpha=0.55,
            color=one.colour, markeredgewidth=0, zorder=2, clip_on=False,
        )  # fmt: skip
    means, lows, highs = np.array([interval_of(numbers, panel.measure) for numbers in one.numbers]).T
    bars = np.array([means - lows, highs - means])
    bars[:, [len(numbers) < MIN_SEEDS for numbers in one.numbers]] = np.nan  # an interval of fewer says nothing
    line = one.line if joined and not axis.of_arms and len(one.places) >= LINE_POINTS else "none"
    axes.errorbar(
        dodged(one, axis, n_arms), means, yerr=bars, color=one.colour, marker=one.marker, linestyle=line,
        linewidth=1.4, markersize=6.5, markeredgecolor="white", markeredgewidth=0.7, capsize=3, elinewidth=1.2,
        zorder=3, clip_on=False,
    )  # fmt: skip


def _dress(axes: Axes, panel: Panel, axis: Axis, language: Language, *, first: bool, letters: int) -> None:
    """Names of axes, and what is written at their ticks. first: whether the name of the y axis is written. letters:
    how many there is room for below the axes."""
    if first:
        axes.set_ylabel(
            wrapped(drawable(measure_label(panel.measure, language), language), 36),
            fontsize=TEXT_POINTS, color=INK, parse_math=False,
        )  # fmt: skip
    if panel.title:
        text = wrapped(drawable(panel.title, language), letters)
        axes.set_title(text, loc="left", fontsize=TEXT_POINTS, color=INK, parse_math=False)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=SMALL_POINTS, color=GREY)
    _ticks(axes, axis, language, letters)
    if not axis.of_arms:
        label = wrapped(drawable(axis_label(axis.key, axis.log, language), language), letters)
        axes.set_xlabel(label, fontsize=TEXT_POINTS, color=INK, parse_math=False)
    axes.xaxis.set_minor_locator(NullLocator())
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
        if max(axes.get_ylim()) <= MOST_PLAIN:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,.7g}"))


def _ticks(axes: Axes, axis: Axis, language: Language, letters: int) -> None:
    """Names in as many lines as their room asks for; of crowded numbers every second one, counted from the last."""
    labels = [drawable(label, language) for label in axis.labels]
    turned: dict[str, Any] = {}
    if not _are_numbers(axis):
        room = max(6, letters // len(labels))
        if max((len(word) for label in labels for word in label.split()), default=0) > room:
            turned = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"}
        else:
            labels = [wrapped(label, room) for label in labels]
        axes.set_xlim(-0.6, len(axis.places) - 0.4)
    elif sum(map(len, labels)) + 1.5 * len(labels) > 0.8 * letters:
        labels = [label if (len(labels) - 1 - i) % 2 == 0 else "" for i, label in enumerate(labels)]
    axes.set_xticks(list(axis.places.values()), labels, parse_math=False, **turned)


def _are_numbers(axis: Axis) -> bool:
    return not axis.of_arms and all(not isinstance(value, str) for value in axis.places)


def _ends_of(panel: Panel, axis: Axis, series: Sequence[Series], language: Language) -> list[End]:
    """Of every arm where there is an axis, and of chance."""
    ends, powers = [], {found.contrast.arm: found for found in _fits_of(panel, series)}
    for one in series if not axis.of_arms else ():
        text, line = one.name, exponent_line(panel.evidence, powers[one.arm]) if one.arm in powers else None
        if line is not None:
            text = word("power", language).format(text, plain(line.exponent, 2))
        ends.append(End(one.places[-1], float(np.mean(one.numbers[-1])), text, one.colour))
    if panel.chance is not None and is_accuracy(panel.measure):
        ends.append(End(max(axis.places.values()), panel.chance, word("chance", language), GREY))
    return [replace(end, text=wrapped(drawable(end.text, language), LABEL_LETTERS)) for end in ends]


def _fits_of(panel: Panel, series: Sequence[Series]) -> list[ContrastResult]:
    """Contrasts whose fitted power is drawn."""
    arms = {one.arm for one in series}
    return [
        one for one in panel.contrasts
        if one.contrast.kind == "exponent" and one.contrast.measure == panel.measure and one.contrast.arm in arms
    ]  # fmt: skip


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
