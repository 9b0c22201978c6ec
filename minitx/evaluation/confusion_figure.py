"""A still picture of a confusion matrix, each true class's row as shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from minitx.evaluation.figures import drawable
from minitx.evaluation.metrics import Ints
from minitx.evaluation.views import SHADES

MOST_CLASSES_WITH_COUNTS = 12


def confusion_figure(confusion: Ints, names: Sequence[str]) -> Figure:
    """confusion: (C, C) counts, rows = true class, columns = predicted; the counts are written in where they fit."""
    n_classes = len(names)
    inches = min(max(4.0, 0.28 * n_classes + 2.5), 16.0)
    figure = Figure(figsize=(inches, inches), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, cmap=LinearSegmentedColormap.from_list("share", SHADES), vmin=0, vmax=1)
    size = 9 if n_classes <= 30 else 5
    labels = [drawable(name) for name in names]
    axes.set_xticks(range(n_classes), labels, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(range(n_classes), labels, fontsize=size, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if n_classes <= MOST_CLASSES_WITH_COUNTS:
        for (true, predicted), count in np.ndenumerate(confusion):
            colour = "white" if shares[true, predicted] > 0.5 else "#333333"
            axes.text(predicted, true, str(count), ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the true class")
    return figure
