"""All contrasts of a claim on one scale, each in multiples of its own delta."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes

from minitx.fonts import chinese_font
from minitx.report.drawing import svg_of
from minitx.report.effects import MOST, effects_figure
from minitx.report.ledger import Entry
from minitx.studies.claims import ContrastResult


def axes_of(results: list[ContrastResult], **more: object) -> Axes:
    figure = effects_figure(results, "A claim", **more)  # type: ignore[arg-type]
    assert figure is not None
    [axes] = figure.axes
    return axes


def drawn(axes: Axes, marker: str) -> list[tuple[float, float]]:
    """Points with this marker."""
    return [
        (x, y)
        for line in axes.lines
        if line.get_marker() == marker
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]


def test_each_contrast_is_scaled_by_its_own_delta(entries: Mapping[str, Entry]) -> None:
    results = list(entries["C7"].contrasts)
    results[1] = replace(results[1], contrast=results[1].contrast.model_copy(update={"delta": 0.1}))
    axes = axes_of(results)
    assert [x for x, _ in drawn(axes, "D")] == pytest.approx([r.effect.mean / r.contrast.delta for r in results])
    assert [x for x, _ in drawn(axes, "o")] == pytest.approx([v / r.contrast.delta for r in results for v in r.values])
    ends = [r.effect.low / r.contrast.delta for r in results] + [r.effect.high / r.contrast.delta for r in results]
    assert sorted(x for x, _ in drawn(axes, "|")) == pytest.approx(sorted(ends))
    bands = [np.ptp(c.get_paths()[0].vertices[:, 0]) for c in axes.collections if hasattr(c, "get_facecolor") and
             len(c.get_paths()[0].vertices) > 4]  # fmt: skip
    assert bands == pytest.approx([2.0, 2.0]), "from -delta to delta"


def test_what_has_no_end_or_lies_far_out_is_an_arrow(entries: Mapping[str, Entry]) -> None:
    one = entries["C7"].contrasts[0]
    without_end = replace(one, effect=replace(one.effect, low=-math.inf, high=math.inf))
    axes = axes_of([without_end])
    assert len(drawn(axes, "<")) == len(drawn(axes, ">")) == 1 and not drawn(axes, "|")
    delta = one.contrast.delta
    far = replace(
        one, values=(99 * delta, math.nan), effect=replace(one.effect, mean=99 * delta, low=delta, high=200 * delta)
    )
    axes = axes_of([far])
    assert axes.get_xlim()[1] == pytest.approx(1.06 * MOST) and not drawn(axes, "D") and not drawn(axes, "o")
    assert len(drawn(axes, ">")) == 2, "of the interval, and of the seed"


def test_names_and_predictions_are_in_words(entries: Mapping[str, Entry]) -> None:
    results = [replace(one, name="gap_grows") for one in entries["C8a"].contrasts]
    texts = [text.get_text() for text in axes_of(results).texts]
    assert texts[0] == texts[2] == "gap grows"
    assert texts[1].startswith("predicted: right of the band; found: ")
    assert texts[3].startswith("predicted: within the band; found: ")
    assert axes_of(results, names={"gap_grows": "The gap grows"}).texts[0].get_text() == "The gap grows"
    if chinese_font() is not None:
        assert axes_of(results, language="zh").texts[1].get_text().startswith("预测：在阴影带右侧")


def test_without_contrasts_no_figure_and_else_the_same_bytes(entries: Mapping[str, Entry]) -> None:
    assert effects_figure([]) is None
    one, other = (effects_figure(entries["C7"].contrasts) for _ in range(2))
    assert one is not None and other is not None and svg_of(one) == svg_of(other)
