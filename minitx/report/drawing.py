"""What all figures of the report share: colours, fonts, lines of text, labels that keep apart, and SVG.

Text is drawn as shapes, so a picture needs no font where it is read. Chinese needs one where it is drawn.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

import minitx.fonts
from minitx.fonts import LATIN, chinese_font
from minitx.report.phrases import Language

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#B07A00")
"""Okabe and Ito's, yellow left out: it is too pale for lines."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1.6)), (0, (6, 1, 1, 1, 1, 1)))
GREY, FAINT, INK = "#5d6975", "#dde2e7", "#16202c"
TITLE_POINTS, TEXT_POINTS, SMALL_POINTS = 11.0, 9.5, 8.5
LINE_HEIGHT = 1.3 / 72
"""Inches of a line of text for each point of its size."""
LINE_POINTS = 4
"""Fewer points are not joined: two or three show no line."""
NEAR_THE_END = 0.5
"""Of the axes' width: a line that ends before this is labelled at its last point, not beside the axes."""
MISSING_FONT = (
    "no installed font has Chinese letters, so figures are in English; install one, as the package fonts-noto-cjk"
)


# -------------------------------------------------------------------------------------------------------------- fonts


def drawn_language(language: Language) -> Language:
    """`language`, or English with a warning that says why where Chinese cannot be drawn."""
    if language == "zh" and chinese_font() is None:
        warnings.warn(MISSING_FONT, stacklevel=3)
        return "en"
    return language


def fonts(language: Language) -> list[str]:
    """Names of fonts; a letter is taken from the first that has it."""
    chinese = chinese_font() if language == "zh" else None
    return [LATIN] if chinese is None else [LATIN, chinese]


def drawable(text: str, language: Language = "en") -> str:
    """`text` with a box for every character that the fonts lack."""
    return minitx.fonts.drawable(text, fonts(language))


def style_of(language: Language) -> Any:
    """A context in which texts are given fonts that can draw the language."""
    return matplotlib.rc_context({"font.family": fonts(language)})


# --------------------------------------------------------------------------------------------------------------- text

_PIECES = re.compile(
    r"\s+"  # a space
    r"|[(\[][^()\[\]\s]+ [^()\[\]\s]+[)\]]|（[^（）]{1,8}）"  # two words, or a few Chinese characters, in brackets
    r"|[\u2e80-\u9fff][，。；：！？）”、]*|[（“][\u2e80-\u9fff]?"  # a Chinese character with what must stay with it
    r"|[^\s\u2e80-\u9fff（“]+"  # a word
)
"""A line may end after any of these."""


def text_width(text: str) -> int:
    """In Latin letters; a Chinese one is as wide as two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def wrapped(text: str, width: int) -> str:
    """`text` in lines of at most `width` Latin letters, as far as single words allow."""
    lines = [""]
    for piece in _PIECES.findall(text):
        if text_width((lines[-1] + piece).rstrip()) > width and lines[-1].strip():
            lines.append("")
        lines[-1] += piece if lines[-1] else piece.lstrip()
    return "\n".join(line.rstrip() for line in lines if line.strip())


def height_of(text: str, points: float) -> float:
    """Inches that the lines of a text take."""
    return (text.count("\n") + 1) * points * LINE_HEIGHT


def kept_apart(wanted: Sequence[float], heights: Sequence[float], low: float = 0.0, high: float = 1.0) -> list[float]:
    """Middles of labels, each as near to where it is wanted as the others allow, none overlapping, all within the ends
    where they have room; (by pooling neighbours, as in isotonic regression)."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    tall = np.array([heights[i] for i in order])
    below = np.concatenate([[0.0], np.cumsum(tall)[:-1]]) + tall / 2  # middles of a pile that stands on 0
    pools: list[list[float]] = []
    for i, offset in zip(order, below, strict=True):
        pools.append([wanted[i] - offset])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    bases = [float(np.mean(pool)) for pool in pools for _ in pool]
    top = max(low, high - float(tall.sum()))
    middles = [min(max(base, low), top) + offset for base, offset in zip(bases, below, strict=True)]
    return [middle for _, middle in sorted(zip(order, middles, strict=True))]


@dataclass(frozen=True)
class End:
    """Where a line ends, and what is written there."""

    x: float
    y: float
    text: str
    colour: str


def label_ends(axes: Axes, ends: Sequence[End], inches: float) -> None:
    """Names of lines right of the axes, each at the height of its end, none overlapping, with a thin line that leads
    there. A line that ends early is labelled where it does. inches: height of the axes, about."""
    to_axes = axes.transData + axes.transAxes.inverted()
    beside = []
    for end in ends:
        across, up = to_axes.transform((end.x, end.y))
        if across >= NEAR_THE_END:
            beside.append((end, up))
        else:
            axes.annotate(
                end.text, (end.x, end.y), (9, 0), textcoords="offset points", va="center", fontsize=SMALL_POINTS,
                color=end.colour, parse_math=False,
            )  # fmt: skip
    heights = [height_of(end.text, SMALL_POINTS) / inches for end, _ in beside]
    middles = kept_apart([up for _, up in beside], heights)
    for (end, _), middle in zip(beside, middles, strict=True):
        lead = {"arrowstyle": "-", "color": end.colour, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 1, "shrinkB": 4}
        axes.annotate(
            end.text, (end.x, end.y), (1.05, middle), textcoords="axes fraction", va="center", fontsize=SMALL_POINTS,
            color=end.colour, annotation_clip=False, parse_math=False, arrowprops=lead,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- figure


def new_figure(width: float, height: float, title: str, language: Language) -> Figure:
    """An empty figure with its title, wrapped; its lines make the figure higher."""
    text = wrapped(drawable(title, language), round(width * 12.2)) if title else ""
    room = height_of(text, TITLE_POINTS) + 0.05 if text else 0.0
    figure = Figure(figsize=(width, height + room), layout="constrained")
    FigureCanvasSVG(figure)
    if text:
        figure.suptitle(text, x=0.015, ha="left", fontsize=TITLE_POINTS, color=INK, parse_math=False)
    return figure


def svg_of(figure: Figure) -> str:
    """The figure as SVG, letters as shapes: the same bytes wherever and whenever it is drawn."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "minitx", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return file.getvalue()
