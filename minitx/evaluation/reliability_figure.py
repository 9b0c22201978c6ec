"""A still picture of a classifier's calibration: how often it is right against how sure it is, bin by bin."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from minitx.evaluation.calibration import Bin, Calibration
from minitx.evaluation.metrics import Interval
from minitx.evaluation.views import SHADES

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
