"""The number of heads, here and in Vaswani et al. (2017): how far each stays behind its best.

Their models differ from ours in size, data and measure, so each curve is drawn in per cent above its own best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from minitx.report.curves import override_of
from minitx.report.drawing import (
    COLOURS,
    FAINT,
    GREY,
    INK,
    LINE_POINTS,
    LINES,
    MARKERS,
    SMALL_POINTS,
    TEXT_POINTS,
    End,
    drawable,
    drawn_language,
    label_ends,
    new_figure,
    style_of,
    wrapped,
)
from minitx.report.labels import axis_label, in_words, is_accuracy, word
from minitx.report.phrases import Language
from minitx.studies.evidence import Evidence

HEADS = "model.n_heads"
DEFAULT_WIDTH = 128
"""model.d_model where nothing else is set."""
NARROW_WIDTH, PANEL_WIDTH, HEIGHT = 4.0, 3.7, 2.9
LABEL_LETTERS = 20
MOST_TICKS = 6
STRAIGHT, TICKS = 10.0, (0, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Per cent up to which the axis is straight; above, it is logarithmic. What differs in a few per cent and what differs
in a hundred are both seen."""
HEADS_CAPTION = (
    "Per cent above the best of each curve, against the number of heads and against the width of each: every seed a "
    "dot, the mean a larger mark. Vaswani et al. (2017), table 3 (A), in perplexity: single runs, 512 wide. The "
    "axis is straight up to 10 %, and logarithmic above."
)


@dataclass(frozen=True)
class HeadCount:
    """What a number of heads gave in Vaswani et al. (2017), table 3, rows (A): English to German, newstest2013."""

    heads: int
    perplexity: float
    bleu: float


VASWANI = (
    HeadCount(1, 5.29, 24.9),
    HeadCount(4, 5.00, 25.5),
    HeadCount(8, 4.92, 25.8),
    HeadCount(16, 4.91, 25.8),
    HeadCount(32, 5.01, 25.4),
)
"""Single runs. All are 512 wide, so that more heads are narrower ones; with 8 heads it is their base model."""
VASWANI_WIDTH = 512


@dataclass(frozen=True)
class _Curve:
    """Per cent above the best mean of the curve, along the number of heads."""

    name: str
    heads: tuple[int, ...]
    widths: tuple[float, ...] | None
    """Of each head; None where all are equal."""
    means: tuple[float, ...]
    seeds: tuple[tuple[float, ...], ...]
    style: int


def head_count_figure(
    evidence: Evidence,
    measure: str,
    title: str = "",
    *,
    names: Mapping[str, str] | None = None,
    narrow: bool = False,
    language: Language = "en",
) -> Figure | None:
    """How far a measure stays behind its best, against the number of heads and against the width of each.

    None where no arm has the measure at two numbers of heads. measure: a loss or an error; of an accuracy, what is
    lacking to 1. names: arm -> its name, of the arms to draw; None = all. narrow: panels below each other.
    """
    language = drawn_language(language)
    curves = _curves(evidence, measure, names)
    if not curves:
        return None
    theirs = _theirs(language)
    with style_of(language):
        size = (NARROW_WIDTH, HEIGHT * 2) if narrow else (PANEL_WIDTH * 2, HEIGHT)
        figure = new_figure(*size, title, language)
        left, right = figure.subplots(*((2, 1) if narrow else (1, 2)), sharey=True)
        narrowing = [curve for curve in (*curves, theirs) if curve.widths is not None]
        for axes, drawn, by_width in ((left, (*curves, theirs), False), (right, narrowing, True)):
            for curve in drawn:
                _draw(axes, curve, curve.widths if by_width and curve.widths else tuple(map(float, curve.heads)))
            _dress(axes, drawn, by_width, language)
            label_ends(axes, _ends_of(drawn, by_width, language), HEIGHT - 0.8)
        for axes in (left, right) if narrow else (left,):
            axes.set_ylabel(_y_label(measure, language), fontsize=TEXT_POINTS, color=INK, parse_math=False)
    return figure


# --------------------------------------------------------------------------------------------------------------- data


def _curves(evidence: Evidence, measure: str, names: Mapping[str, str] | None) -> list[_Curve]:
    found = []
    for style, arm in enumerate(evidence.tier.arms):
        if names is not None and arm not in names:
            continue
        seen = {
            value: tuple(evidence.per_seed(measure, arm, value).values())
            for value in sorted(v for v in evidence.tier.values_of(arm) if isinstance(v, int))
        }
        seen = {heads: numbers for heads, numbers in seen.items() if numbers}
        if is_accuracy(measure):
            seen = {heads: tuple(1 - number for number in numbers) for heads, numbers in seen.items()}
        best = min((float(np.mean(numbers)) for numbers in seen.values()), default=0.0)
        if len(seen) < 2 or best <= 0:
            continue
        seeds = tuple(tuple(100 * (number / best - 1) for number in numbers) for numbers in seen.values())
        means = tuple(float(np.mean(numbers)) for numbers in seeds)
        fixed = override_of(evidence, arm, "model.head_dim", "null") != "null"
        width = int(override_of(evidence, arm, "model.d_model", str(DEFAULT_WIDTH)))
        widths = None if fixed else tuple(width / heads for heads in seen)
        name = in_words(arm) if names is None else names[arm]
        found.append(_Curve(name, tuple(seen), widths, means, seeds, style))
    return found


def _theirs(language: Language) -> _Curve:
    best = min(one.perplexity for one in VASWANI)
    above = tuple(100 * (one.perplexity / best - 1) for one in VASWANI)
    heads = tuple(one.heads for one in VASWANI)
    widths = tuple(VASWANI_WIDTH / one.heads for one in VASWANI)
    name = word("Vaswani", language)
    return _Curve(name, heads, widths, above, tuple((number,) for number in above), 4)


def _y_label(measure: str, language: Language) -> str:
    what = "error" if is_accuracy(measure) else measure.replace("loss.test", "loss").rpartition(".")[2]
    name = word(what, language) if what in ("error", "loss", "per") else what
    text = word("percent above the best", language).format(name)
    return wrapped(drawable(word("smaller is better", language).format(text), language), 34)


# ------------------------------------------------------------------------------------------------------------ drawing


def _draw(axes: Axes, curve: _Curve, places: tuple[float, ...]) -> None:
    colour = COLOURS[curve.style % len(COLOURS)]
    for place, numbers in zip(places, curve.seeds, strict=True):
        if len(numbers) > 1:
            axes.plot(
                [place] * len(numbers), numbers, linestyle="none", marker="o", markersize=3.2, alpha=0.5,
                color=colour, markeredgewidth=0,
            )  # fmt: skip
    line = LINES[curve.style % len(LINES)] if len(places) >= LINE_POINTS else "none"
    axes.plot(
        places, curve.means, color=colour, marker=MARKERS[curve.style % len(MARKERS)], markersize=6.5, linestyle=line,
        linewidth=1.4, markeredgecolor="white", markeredgewidth=0.7,
    )  # fmt: skip


def _dress(axes: Axes, curves: Sequence[_Curve], by_width: bool, language: Language) -> None:
    places = [place for curve in curves for place in ((curve.widths or ()) if by_width else curve.heads)]
    powers = [2**n for n in range(12) if min(places) <= 2**n <= max(places)]
    axes.set_xscale("log", base=2)
    shown = powers if len(powers) <= MOST_TICKS else powers[::2]
    axes.set_xticks(shown, [f"{power}" for power in shown])
    if not by_width:  # the other panel has the same axis, and fewer curves
        _scale(axes, max(max(numbers) for curve in curves for numbers in curve.seeds))
    axes.xaxis.set_minor_locator(NullLocator())
    title = word("by width" if by_width else "by heads", language)
    label = word("width per head", language) if by_width else axis_label(HEADS, True, language)
    axes.set_title(drawable(title, language), loc="left", fontsize=TEXT_POINTS, color=INK, parse_math=False)
    axes.set_xlabel(drawable(label, language), fontsize=TEXT_POINTS, color=INK, parse_math=False)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=SMALL_POINTS, color=GREY, labelleft=True)


def _scale(axes: Axes, top: float) -> None:
    """The y axis up to `top` per cent."""
    axes.set_yscale("symlog", linthresh=STRAIGHT, linscale=1.2)
    ticks = [tick for tick in TICKS if tick <= max(top, STRAIGHT)]
    axes.set_yticks(ticks, [f"{tick}" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.06 * STRAIGHT, 1.15 * max(top, STRAIGHT))


def _ends_of(curves: Sequence[_Curve], by_width: bool, language: Language) -> list[End]:
    """Of each curve the point at the right."""
    ends = []
    for curve in curves:
        x, y = float(curve.heads[-1]), curve.means[-1]
        if by_width and curve.widths is not None:
            x, y = curve.widths[0], curve.means[0]
        text = wrapped(drawable(curve.name, language), LABEL_LETTERS)
        ends.append(End(x, y, text, COLOURS[curve.style % len(COLOURS)]))
    return ends
