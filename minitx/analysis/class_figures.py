"""Pictures of a classifier on a split: its confusion matrix, and its calibration bin by bin."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from minitx.analysis.attention_maps import SHADES
from minitx.analysis.figures import add_scale, drawable
from minitx.metrics.calibration import Bin, Calibration
from minitx.metrics.intervals import Interval, Ints

MOST_CLASSES_WITH_COUNTS = 12
FEW_CLASSES = 30
"""Up to here cells and labels are large."""
LONGEST_NAME = 32
MOST_INCHES, LEAST_INCHES = 13.0, 2.4
"""Of the matrix alone."""
POINT = 1 / 72
"""Of type, in inches."""


def confusion_figure(confusion: Ints, names: Sequence[str]) -> Figure:
    """confusion: (C, C) counts, rows = true class, columns = predicted; the counts are written in where they fit.

    Shades go by the square root of the share: among many classes most mistakes are a few per cent of a row, and would
    all look white on a linear scale. Where labels would overlap every second, third, ... class has one.
    """
    n_classes, points = len(names), 9 if len(names) <= FEW_CLASSES else 7
    labels = [drawable(name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…") for name in names]
    side = min(max(LEAST_INCHES, (0.28 if n_classes <= FEW_CLASSES else 0.16) * n_classes), MOST_INCHES)
    beside = max(map(len, labels)) * 0.6 * points * POINT + 0.6  # labels are about 0.6 of their size wide
    figure = Figure(figsize=(1.05 * side + beside + 1.0, side + beside), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares, norm = confusion / np.maximum(confusion.sum(1, keepdims=True), 1), PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("share", SHADES), norm=norm)
    step = math.ceil(1.2 * points * POINT * n_classes / side)
    ticks = range(0, n_classes, step)
    axes.set_xticks(ticks, labels[::step], rotation=90, fontsize=points, parse_math=False)
    axes.set_yticks(ticks, labels[::step], fontsize=points, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    if n_classes <= MOST_CLASSES_WITH_COUNTS:
        for (true, predicted), count in np.ndenumerate(confusion):
            colour = "white" if norm(shares[true, predicted]) > 0.5 else "#333333"
            axes.text(predicted, true, str(count), ha="center", va="center", fontsize=8, color=colour)
    add_scale(figure, axes, image).set_label("share of the true class", fontsize=9)
    return figure


BAR, COUNTS, INK = SHADES[3], SHADES[2], SHADES[5]
DIAGONAL = "#555555"


def reliability_figure(calibration: Calibration, ece: Interval) -> Figure:
    """Above, the accuracy of each bin against the diagonal of perfect calibration; below, the examples of each bin.

    Told apart by lightness and by shape, so no colour vision is needed.
    """
    figure = Figure(figsize=(5.6, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shown = [b for b in calibration.bins if b.n]
    _draw_accuracy(above, shown)
    _draw_counts(below, shown)
    percents = (100 * x for x in (calibration.confidence, calibration.accuracy, ece.value, ece.low, ece.high))
    says = "says {:.1f} %, right in {:.1f} %: {verdict}\nECE {:.1f} % [{:.1f}, {:.1f}]".format(
        *percents, verdict=calibration.verdict
    )
    figure.suptitle(says, fontsize=10)
    return figure


def _draw_accuracy(axes: Axes, shown: list[Bin]) -> None:
    heights, places = [b.accuracy or 0.0 for b in shown], [b.confidence or 0.0 for b in shown]
    axes.bar(
        [b.low for b in shown], heights, [b.high - b.low for b in shown],
        align="edge", color=BAR, edgecolor="white", linewidth=1, label="accuracy of the bin",
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color=DIAGONAL, linestyle="--", linewidth=1.2, label="perfectly calibrated")
    axes.plot(
        places, heights, linestyle="none", marker="D", markersize=4.5,
        color=INK, markeredgecolor="white", clip_on=False, zorder=3, label="at the bin's mean confidence",
    )  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(loc="upper left", fontsize=8, edgecolor="none")
    _plain(axes)


def _draw_counts(axes: Axes, shown: list[Bin]) -> None:
    """Bars of counts, each with its number."""
    axes.bar(
        [b.low for b in shown], [b.n for b in shown], [b.high - b.low for b in shown],
        align="edge", color=COUNTS, edgecolor="white", linewidth=1,
    )  # fmt: skip
    for b in shown:
        axes.annotate(
            f"{b.n:,}", ((b.low + b.high) / 2, b.n), (0, 2), textcoords="offset points",
            ha="center", va="bottom", fontsize=7, color=INK,
        )  # fmt: skip
    axes.set(ylabel="examples", xlabel="confidence: the largest probability", ylim=(0, 1.2 * max(b.n for b in shown)))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
