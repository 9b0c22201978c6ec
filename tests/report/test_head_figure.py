"""The number of heads, in per cent above the best, beside the published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes

from minitx.report.drawing import svg_of
from minitx.report.head_figure import VASWANI, VASWANI_WIDTH, head_count_figure
from minitx.report.ledger import Entry
from minitx.studies.evidence import Evidence


def evidence_of(entries: Mapping[str, Entry]) -> Evidence:
    """One arm 64 wide; the other has heads of one width."""
    result = entries["C8a"].result
    assert result is not None
    tier = result.evidence.tier
    overrides = {"fixed width": ["model.d_model=64"], "fixed head_dim": ["model.head_dim=8"]}
    arms = {name: arm.model_copy(update={"overrides": overrides[name]}) for name, arm in tier.arms.items()}
    study = result.evidence.study.model_copy(update={"quick": tier.model_copy(update={"arms": arms})})
    return replace(result.evidence, study=study)


def curves(axes: Axes) -> list[tuple[list[float], list[float]]]:
    """Means alone, not the dots of seeds, each of which stand at one place."""
    return [
        (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines if len({*line.get_xdata()}) > 1
    ]  # fmt: skip


def test_both_panels_are_relative_to_the_best(entries: Mapping[str, Entry]) -> None:
    evidence = evidence_of(entries)
    figure = head_count_figure(evidence, "test.accuracy", "More heads raise quality")
    assert figure is not None
    left, right = figure.axes
    by_heads, by_width = curves(left), curves(right)
    assert [x for x, _ in by_heads] == [[1, 2, 4, 8], [1, 4, 8], [1, 4, 8, 16, 32]]
    joined = [line.get_linestyle() != "None" for line in left.lines if len({*line.get_xdata()}) > 1]
    assert joined == [True, False, True], "three points are not joined"
    assert [x for x, _ in by_width] == [[64, 32, 16, 8], [512, 128, 64, 32, 16]], "heads of one width are left out"
    errors = [
        1 - np.mean([*evidence.per_seed("test.accuracy", "fixed width", n).values()]) for n in (1, 2, 4, 8)
    ]  # fmt: skip
    assert by_heads[0][1] == pytest.approx([100 * (error / min(errors) - 1) for error in errors])
    assert all(min(y) == pytest.approx(0) for _, y in by_heads + by_width)
    assert "wrong answers, % above the best" in left.get_ylabel().replace("\n", " ")


def test_the_published_numbers_are_told_as_theirs(entries: Mapping[str, Entry]) -> None:
    figure = head_count_figure(evidence_of(entries), "test.accuracy", narrow=True, names={"fixed width": "ours"})
    assert figure is not None
    for axes in figure.axes:
        written = [" ".join(text.get_text().split()) for text in axes.texts]
        assert written == ["ours", "Vaswani et al. 2017, single runs (perplexity)"]
    assert {VASWANI_WIDTH / one.heads for one in VASWANI} == {512, 128, 64, 32, 16}
    assert [one.heads for one in sorted(VASWANI, key=lambda one: -one.bleu)][-1] == 1


def test_without_the_measure_no_figure_and_else_the_same_bytes(entries: Mapping[str, Entry]) -> None:
    assert head_count_figure(evidence_of(entries), "test.nothing") is None
    one, other = (head_count_figure(evidence_of(entries), "test.accuracy") for _ in range(2))
    assert one is not None and other is not None and svg_of(one) == svg_of(other)
