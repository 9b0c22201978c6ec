"""Still pictures: attention maps of one text, a classifier's confusion matrix, and its calibration.

Figures are made without pyplot, so drawing leaves no state in the process and needs no display.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from minitx.analysis.attention_maps import NOTHING, SHADES, TITLES, AttentionView
from minitx.fonts import drawable, in_any_script
from minitx.metrics.calibration import Bin, Calibration
from minitx.metrics.intervals import Interval, Ints

MOST_TOKENS = 48
"""Tokens drawn on each side; more could not be seen in a picture (the inspect page has them all)."""
LABEL_POINTS = 7.0
LABEL_INCHES = 0.14
"""Room that one label takes across its text."""
TITLE_CHARACTERS, TITLE_INCHES = 12, 0.17
"""Of a title: characters to an inch of width, and the height of a line."""
MOST_INCHES, LEAST_INCHES = 18.0, 1.3
"""All heads across (or layers down) share the most; one panel has the least."""

MOST_CLASSES_WITH_COUNTS = 12
FEW_CLASSES = 30
"""Up to here cells and labels are large."""
LONGEST_NAME = 32
MOST_MATRIX_INCHES, LEAST_MATRIX_INCHES = 13.0, 2.4
POINT = 1 / 72
"""Of type, in inches."""
BAR, COUNTS, INK = SHADES[3], SHADES[2], SHADES[5]
DIAGONAL = "#555555"


def attention_figure(view: AttentionView, title: str = "") -> Figure:
    """Draw every layer and head of a view on one scale; `fig.savefig` or TensorBoard's `add_figure` takes it."""
    with in_any_script():
        return _attention_figure(view, title)


def _attention_figure(view: AttentionView, title: str) -> Figure:
    queries, keys = view.query_tokens[:MOST_TOKENS], view.key_tokens[:MOST_TOKENS]
    # Square cells, as large as a label needs or as the whole figure allows.
    cell = min(LABEL_INCHES, MOST_INCHES / (view.n_heads * len(keys)), MOST_INCHES / (view.n_layers * len(queries)))
    width, height = max(cell * len(keys), LEAST_INCHES), max(cell * len(queries), LEAST_INCHES)
    figure = Figure(figsize=(1.7 + view.n_heads * width, 1.5 + view.n_layers * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(view.n_layers, view.n_heads, squeeze=False)
    colours = _colours()
    for (layer, head), panel in np.ndenumerate(axes):
        shown = view.weights[layer, head, : len(queries), : len(keys)]
        panel.imshow(np.ma.masked_equal(shown, 0), cmap=colours.cmap, norm=colours.norm, aspect="auto")
        panel.tick_params(length=0, labelsize=LABEL_POINTS, pad=2)
        panel.spines[:].set_color("#c4ccd6")
        panel.set_yticks(*_labels(queries if head == 0 else (), height), parse_math=False)
        panel.set_xticks(*_labels(keys if layer == view.n_layers - 1 else (), width), rotation=90, parse_math=False)
        if layer == 0 and view.n_layers * view.n_heads > 1:
            panel.set_title(f"head {head + 1}", fontsize=9)
        if head == 0 and view.n_layers * view.n_heads > 1:
            panel.set_ylabel(f"layer {layer + 1}", fontsize=9)
    add_scale(figure, axes, colours)
    cut = len(view.query_tokens) > MOST_TOKENS or len(view.key_tokens) > MOST_TOKENS
    heading = (title or TITLES[view.kind]) + (f" (first {MOST_TOKENS} tokens)" if cut else "")
    lines = textwrap.wrap(drawable(heading), int(TITLE_CHARACTERS * figure.get_figwidth()))
    figure.set_figheight(figure.get_figheight() + TITLE_INCHES * (len(lines) - 1))
    figure.suptitle("\n".join(lines), fontsize=10, parse_math=False)
    return figure


def _labels(tokens: Sequence[str], inches: float) -> tuple[list[int], list[str]]:
    """Ticks and labels: of every token, or of every second, third, ... where they would overlap."""
    step = max(1, math.ceil(LABEL_INCHES * len(tokens) / inches - 0.2))
    return list(range(0, len(tokens), step)), [drawable(token) for token in tokens[::step]]


def add_scale(figure: Figure, axes: Axes | npt.NDArray[np.object_], colours: ScalarMappable) -> Colorbar:
    """What the shades of shares mean, over their square root."""
    bar = figure.colorbar(colours, ax=axes, fraction=0.03, pad=0.01, aspect=40, ticks=(0, 0.01, 0.05, 0.2, 0.5, 1))
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"], fontsize=LABEL_POINTS)
    return bar


def _colours() -> ScalarMappable:
    """The scale shared by all panels: shade over the square root of the weight, exact zeros apart."""
    shades = LinearSegmentedColormap.from_list("attention", SHADES).with_extremes(bad=NOTHING)
    return ScalarMappable(PowerNorm(0.5, vmin=0, vmax=1), shades)


# -------------------------------------------------------------------------------------------------- of a classifier


def confusion_figure(confusion: Ints, names: Sequence[str]) -> Figure:
    """confusion: (C, C) counts, rows = true class, columns = predicted; the counts are written in where they fit.

    Shades go by the square root of the share: among many classes most mistakes are a few per cent of a row, and would
    all look white on a linear scale. Where labels would overlap every second, third, ... class has one.
    """
    with in_any_script():
        return _confusion_figure(confusion, names)


def _confusion_figure(confusion: Ints, names: Sequence[str]) -> Figure:
    n_classes, points = len(names), 9 if len(names) <= FEW_CLASSES else 7
    labels = [drawable(name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…") for name in names]
    side = min(max(LEAST_MATRIX_INCHES, (0.28 if n_classes <= FEW_CLASSES else 0.16) * n_classes), MOST_MATRIX_INCHES)
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


def reliability_figure(calibration: Calibration, ece: Interval) -> Figure:
    """Above, the accuracy of each bin against the diagonal of perfect calibration; below, the examples of each bin.

    Distinguished by lightness and by shape, so no colour vision is needed.
    """
    figure = Figure(figsize=(5.6, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shown = [b for b in calibration.bins if b.n]
    _draw_accuracy(above, shown)
    _draw_counts(below, shown)
    percents = (100 * x for x in (calibration.confidence, calibration.accuracy, ece.value, ece.low, ece.high))
    heading = "says {:.1f} %, right in {:.1f} %: {verdict}\nECE {:.1f} % [{:.1f}, {:.1f}]".format(
        *percents, verdict=calibration.verdict
    )
    figure.suptitle(heading, fontsize=10)
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
