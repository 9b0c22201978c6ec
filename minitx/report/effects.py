"""All contrasts of a claim in one figure, each in multiples of the smallest effect worth naming (its own delta)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minitx.report.drawing import (
    COLOURS,
    GREY,
    INK,
    SMALL_POINTS,
    TEXT_POINTS,
    drawable,
    drawn_language,
    height_of,
    new_figure,
    style_of,
    wrapped,
)
from minitx.report.labels import in_words, word
from minitx.report.phrases import Language
from minitx.report.wording import effect_text
from minitx.studies.claims import ContrastResult

WIDTH, INTERVAL, FOOT = 4.6, 0.4, 0.6
"""Inches: of the figure, of the height of an interval with its seeds, and of what stands below all of them."""
PADDING = 0.13
"""Above the name of a contrast."""
LEAST, MOST = 2.0, 12.0
"""Deltas on each side: at least, and at most; what lies beyond is an arrow at the edge."""
LETTERS = 63
BAND = "#dfe5eb"
EFFECTS_CAPTION = (
    "Each contrast in multiples of its own delta: every seed a dot, the mean a diamond on its interval. Shaded: too "
    "small to name. An arrow: it goes on."
)


def effects_figure(
    results: Sequence[ContrastResult],
    title: str = "",
    *,
    names: Mapping[str, str] | None = None,
    language: Language = "en",
) -> Figure | None:
    """Every contrast: a dot for each seed, the mean a diamond on its interval, and the band of what is too small to
    name shaded. None without any contrast. names: name of a contrast -> what it is called in the figure."""
    if not results:
        return None
    language = drawn_language(language)
    limit = _limit(results)
    rows = [_Row(found, *_texts(found, names or {}, language)) for found in results]
    with style_of(language):
        total = sum(row.height for row in rows)
        figure = new_figure(WIDTH, total + FOOT, title, language)
        axes = figure.subplots()
        axes.set_xlim(-limit * 1.06, limit * 1.06)
        axes.set_ylim(total, 0)
        top = 0.0
        for row in rows:
            _draw_row(axes, row, top, limit)
            top += row.height
        _dress(axes, language)
    return figure


@dataclass(frozen=True)
class _Row:
    """A contrast, and what is written above its interval."""

    found: ContrastResult
    name: str
    outcome: str

    @property
    def text_height(self) -> float:
        return PADDING + height_of(self.name, TEXT_POINTS) + height_of(self.outcome, SMALL_POINTS)

    @property
    def height(self) -> float:
        """Inches, which the y axis counts in."""
        return self.text_height + INTERVAL


def _texts(found: ContrastResult, names: Mapping[str, str], language: Language) -> tuple[str, str]:
    """The name of the contrast, and what was predicted and found."""
    predicted = word("predicted", language).format(word(found.contrast.expect, language))
    seen = word("found", language).format(effect_text(found))
    name, outcome = names.get(found.name, in_words(found.name)), f"{predicted}; {seen}"
    return wrapped(drawable(name, language), LETTERS - 10), wrapped(drawable(outcome, language), LETTERS)


def _limit(results: Sequence[ContrastResult]) -> float:
    """Deltas on each side of zero: room for all means and intervals, and for all seeds, as far as MOST allows."""
    sizes = [
        abs(number) / found.contrast.delta
        for found in results
        for number in (found.effect.mean, found.effect.low, found.effect.high, *found.values)
        if math.isfinite(number)
    ]
    return min(MOST, max(LEAST, *sizes))


def _draw_row(axes: Axes, row: _Row, top: float, limit: float) -> None:
    """Texts, and below them the band with interval, mean and seeds."""
    low, high = top + row.text_height, top + row.height
    axes.fill_between([-1, 1], low, high, color=BAND, linewidth=0, zorder=0)
    axes.vlines([-1, 1], low, high, color=GREY, linestyle=(0, (3, 2)), linewidth=0.9, zorder=1)
    axes.vlines([0], low, high, color=INK, linewidth=0.9, zorder=1)
    _draw(axes, row.found, low + 0.14, low + 0.29, limit)
    name_end = top + PADDING + height_of(row.name, TEXT_POINTS)
    lines = [(top + PADDING, row.name, INK, TEXT_POINTS), (name_end, row.outcome, GREY, SMALL_POINTS)]
    for y, text, colour, points in lines:
        axes.text(-limit, y, text, ha="left", va="top", fontsize=points, color=colour, parse_math=False)


def _draw(axes: Axes, found: ContrastResult, y: float, y_seeds: float, limit: float) -> None:
    """Interval and mean, and every seed a dot below them; an arrow where something lies beyond the limit."""
    colour, delta = COLOURS[0], found.contrast.delta
    low, mean, high = (number / delta for number in (found.effect.low, found.effect.mean, found.effect.high))
    left, right = (min(max(bound, -limit), limit) for bound in (low, high))
    axes.plot([left, right], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=3)
    for bound, cut, marker in ((low, left, "<"), (high, right, ">")):
        axes.plot([cut], [y], color=colour, marker="|" if bound == cut else marker, markersize=8, zorder=3)
    if abs(mean) <= limit:
        axes.plot([mean], [y], color=colour, marker="D", markersize=7, markeredgecolor="white", zorder=4)
    seeds = [value / delta for value in found.values if math.isfinite(value)]
    within = [value for value in seeds if abs(value) <= limit]
    axes.plot(
        within, [y_seeds] * len(within), color=INK, linestyle="none", marker="o", markersize=4, alpha=0.5,
        markeredgewidth=0, zorder=3,
    )  # fmt: skip
    for end, marker in ((-limit, "<"), (limit, ">")):
        if any(value * end > 0 and abs(value) > limit for value in seeds):
            axes.plot([end], [y_seeds], color=INK, marker=marker, markersize=4, alpha=0.6, zorder=3)


def _dress(axes: Axes, language: Language) -> None:
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(labelsize=SMALL_POINTS, color=GREY)
    label = wrapped(drawable(word("effects axis", language), language), LETTERS)
    axes.set_xlabel(label, fontsize=TEXT_POINTS, color=INK)
