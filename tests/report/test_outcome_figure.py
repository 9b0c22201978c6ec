"""What is drawn: every seed, means and intervals, the right scales, and arms that differ without colour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from scipy import stats
from synthetic_studies import HOSTILE, SIZES

from minitx.report.figures import LINES, MARKERS, caption, outcome_figure, svg_of
from minitx.report.ledger import Entry
from minitx.studies.evidence import Evidence


def drawn(entry: Entry, measure: str = "test.accuracy") -> tuple[Figure, Axes, Evidence]:
    assert entry.result is not None
    figure = outcome_figure(entry.result.evidence, measure, entry.contrasts)
    assert figure is not None
    return figure, figure.axes[0], entry.result.evidence


def test_every_seed_is_a_dot_and_every_interval_students(entries: Mapping[str, Entry]) -> None:
    _, axes, evidence = drawn(entries["C7"])
    dots = [
        line
        for line in axes.lines
        if line.get_linestyle() == "None" and len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 5
    ]
    expected = [tuple(evidence.per_seed("test.accuracy", arm, n).values()) for arm in evidence.tier.arms for n in SIZES]
    assert [tuple(line.get_ydata()) for line in dots] == expected
    bars = [c for c in axes.collections if isinstance(c, LineCollection)]
    ends = np.concatenate([[segment[:, 1] for segment in bar.get_segments()] for bar in bars])
    intervals = [stats.ttest_1samp(values, 0).confidence_interval() for values in expected]
    assert ends == pytest.approx(np.array([[i.low, i.high] for i in intervals]))


def test_scales_follow_the_numbers(entries: Mapping[str, Entry]) -> None:
    scales = {}
    for claim, measure in (
        ("C7", "test.accuracy"),
        ("C8a", "test.accuracy"),
        ("C5", "seconds"),
        ("C1", "test.accuracy"),
    ):
        _, axes, _ = drawn(entries[claim], measure)
        scales[claim] = axes.get_xscale(), axes.get_yscale(), [t.get_text() for t in axes.get_xticklabels()]
    assert scales == {
        "C7": ("log", "linear", ["250", "500", "1,000", "2,000", "4,000", "8,000"]),
        "C8a": ("linear", "linear", ["1", "2", "4", "8"]),
        "C5": ("log", "log", ["64", "256", "1,024", "4,096", "16,384"]),
        "C1": ("linear", "linear", ["sentence", "window", "global"]),
    }


def test_without_an_axis_arms_stand_side_by_side(entries: Mapping[str, Entry]) -> None:
    figure, axes, _ = drawn(entries["C4"])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["transformer", "lstm", "cnn"] and not figure.legends


def test_arms_differ_in_marker_and_line() -> None:
    styles = {(MARKERS[i % len(MARKERS)], str(LINES[i % len(LINES)])) for i in range(12)}
    assert len(styles) == 12


def test_curves_and_exponents_are_drawn_and_told(entries: Mapping[str, Entry]) -> None:
    _, axes, evidence = drawn(entries["C7"])
    assert sum(len(line.get_xdata()) == 80 for line in axes.lines) == 3
    assert "Curves" in caption(evidence, "test.accuracy", entries["C7"].contrasts)
    figure, _, evidence = drawn(entries["C5"], "seconds")
    [legend] = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[:3] == ["naive", "window", "lstm"] and [label.split(":")[0] for label in labels[3:]] == [
        "naive",
        "window",
    ]
    power = 2 + entries["C5"].contrasts[0].effect.mean
    assert labels[3] == f"naive: power {power:.2f}"
    assert "fitted powers" in caption(evidence, "seconds", entries["C5"].contrasts)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [HOSTILE, "_hidden", "$\\frac{", "映画"])
def test_any_name_can_be_drawn(entries: Mapping[str, Entry], name: str) -> None:
    _, _, evidence = drawn(entries["C1"])
    renamed = evidence.tier.model_copy(update={"arms": {name: evidence.tier.arms["transformer"]}})
    study = evidence.study.model_copy(update={"quick": renamed})
    seen = tuple(replace(o, arm=name) for o in evidence.observations if o.arm == "transformer")
    figure = outcome_figure(replace(evidence, study=study, observations=seen), "test.accuracy", ())
    assert figure is not None and len(figure.legends[0].get_texts()) == 1
    assert "<script" not in svg_of(figure) and "<img" not in svg_of(figure)


def test_the_same_bytes_each_time(entries: Mapping[str, Entry]) -> None:
    assert svg_of(drawn(entries["C4"])[0]) == svg_of(drawn(entries["C4"])[0])


def test_no_cells_no_figure(entries: Mapping[str, Entry]) -> None:
    _, _, evidence = drawn(entries["C4"])
    assert outcome_figure(evidence, "test.nothing", ()) is None
