"""A still picture of one attention view: layers down, heads across, tokens along the outer edges.

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
from matplotlib.font_manager import FontProperties, findfont, get_font

from minitx.analysis.attention_maps import NOTHING, SHADES, TITLES, AttentionView

MOST_TOKENS = 48
"""Tokens drawn on each side; more could not be told apart in a picture (the inspect page has them all)."""
LABEL_POINTS = 7.0
LABEL_INCHES = 0.14
"""Room that one label takes across its text."""
TITLE_CHARACTERS, TITLE_INCHES = 12, 0.17
"""Of a title: characters to an inch of width, and the height of a line."""
MOST_INCHES, LEAST_INCHES = 18.0, 1.3
"""All heads across (or layers down) share the most; one panel has the least."""


def attention_figure(view: AttentionView, title: str = "") -> Figure:
    """Draw every layer and head of a view on one scale; `fig.savefig` or TensorBoard's `add_figure` takes it."""
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


def drawable(text: str) -> str:
    """`text` with a box for every character that the font lacks; matplotlib would warn at each."""
    glyphs = get_font(findfont(FontProperties()))
    return "".join(char if glyphs.get_char_index(ord(char)) else "\u25a1" for char in text)
