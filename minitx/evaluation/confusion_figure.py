"""A still picture of a confusion matrix, each true class's row as shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

from minitx.evaluation.figures import add_scale, drawable
from minitx.evaluation.metrics import Ints
from minitx.evaluation.views import SHADES

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
