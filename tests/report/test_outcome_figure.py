"""What is drawn: every seed, means and intervals, the right scales, names at the ends of lines, and several panels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from scipy import stats
from synthetic_studies import HOSTILE, SIZES

from minitx.report.drawing import LINES, MARKERS
from minitx.report.figures import Panel, caption, outcome_figure, panels_figure, svg_of
from minitx.report.ledger import Entry
from minitx.studies.evidence import Evidence

STATEMENT = "Self-attention does poorly on small data and needs much, as this title says at some length"


def drawn(entry: Entry, measure: str = "test.accuracy", chance: float | None = None) -> tuple[Figure, Axes, Evidence]:
    assert entry.result is not None
    figure = outcome_figure(entry.result.evidence, measure, entry.contrasts, STATEMENT, chance=chance)
    assert figure is not None
    return figure, figure.axes[0], entry.result.evidence


def labels(axes: Axes) -> dict[str, Annotation]:
    """What is written at the ends of lines."""
    return {text.get_text(): text for text in axes.texts if isinstance(text, Annotation)}


def moved(evidence: Evidence, by: float) -> Evidence:
    """The same study with every accuracy shifted, within 0 and 1."""
    seen = [
        replace(o, measures={"test.accuracy": min(1.0, max(0.0, o.measures["test.accuracy"] + by))})
        for o in evidence.observations
    ]
    return replace(evidence, observations=tuple(seen))


def test_every_seed_is_a_dot_at_its_place_and_every_interval_students(entries: Mapping[str, Entry]) -> None:
    _, axes, evidence = drawn(entries["C7"])
    dots = [
        line
        for line in axes.lines
        if line.get_linestyle() == "None" and len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 5
    ]
    places = [(arm, n) for arm in evidence.tier.arms for n in SIZES]
    expected = [tuple(evidence.per_seed("test.accuracy", arm, n).values()) for arm, n in places]
    assert [tuple(line.get_ydata()) for line in dots] == expected
    assert [line.get_xdata()[0] for line in dots] == [n for _, n in places]
    bars = [c for c in axes.collections if isinstance(c, LineCollection)]
    ends = np.concatenate([[segment[:, 1] for segment in bar.get_segments()] for bar in bars])
    intervals = [stats.ttest_1samp(values, 0).confidence_interval() for values in expected]
    assert ends == pytest.approx(np.array([[i.low, i.high] for i in intervals]))


def test_nothing_lies_beyond_what_the_measure_can_be(entries: Mapping[str, Entry]) -> None:
    _, _, evidence = drawn(entries["C7"])
    for by, end in ((0.15, 1.0), (-0.35, 0.0)):
        there = moved(evidence, by)
        values = [o.measures["test.accuracy"] for o in there.observations]
        assert end in values and min(values) < max(values)
        figure = outcome_figure(there, "test.accuracy", ())
        assert figure is not None
        [axes] = figure.axes
        assert end in axes.get_ylim() and 0 <= axes.get_ylim()[0] < axes.get_ylim()[1] <= 1
        bars = [c for c in axes.collections if isinstance(c, LineCollection)]
        ends = np.concatenate([segment[:, 1] for bar in bars for segment in bar.get_segments()])
        assert np.nanmin(ends) >= 0 and np.nanmax(ends) <= 1


def test_too_few_seeds_have_no_interval_and_too_few_points_no_line(entries: Mapping[str, Entry]) -> None:
    _, axes, _ = drawn(entries["C2"])
    bars = [c for c in axes.collections if isinstance(c, LineCollection)]
    assert bars and not any(np.isfinite(segment).any() for bar in bars for segment in bar.get_segments())
    _, axes, _ = drawn(entries["C8a"])
    joined = {len(line.get_xdata()) for line in axes.lines if line.get_linestyle() not in ("None", "")}
    assert joined == {4}, "the arm of three points has none"


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
        "C8a": ("log", "linear", ["1", "2", "4", "8"]),
        "C5": ("log", "log", ["64", "256", "1,024", "4,096", "16,384"]),
        "C1": ("linear", "linear", ["sentence", "window", "global"]),
    }


def test_axes_and_title_are_in_words(entries: Mapping[str, Entry]) -> None:
    figure, axes, _ = drawn(entries["C7"])
    assert axes.get_ylabel() == "test accuracy (higher is better)"
    assert axes.get_xlabel() == "training texts (log scale)"
    title = figure.get_suptitle()
    assert title.split() == STATEMENT.split() and max(map(len, title.split("\n"))) <= 60


def test_lines_are_labelled_at_their_ends_without_overlap(entries: Mapping[str, Entry]) -> None:
    figure, axes, _ = drawn(entries["C7"], chance=0.31)
    there = labels(axes)
    assert list(there) == ["transformer", "cnn", "bag", "lstm", "chance"] and not figure.legends
    figure.canvas.draw()
    middles = sorted(text.get_position()[1] for text in there.values())
    height = axes.get_window_extent().height
    assert min(np.diff(middles)) * height >= 0.8 * figure.dpi * 8.5 / 72
    assert sum(line.get_linestyle() == "--" and set(line.get_ydata()) == {0.31} for line in axes.lines) == 1


def test_chance_is_drawn_for_accuracies_alone(entries: Mapping[str, Entry]) -> None:
    _, axes, _ = drawn(entries["C5"], "seconds", chance=0.5)
    assert "chance" not in labels(axes)


def test_without_an_axis_arms_stand_side_by_side(entries: Mapping[str, Entry]) -> None:
    _, axes, _ = drawn(entries["C4"])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["transformer", "lstm", "cnn"] and not labels(axes)


def test_arms_differ_in_marker_and_line() -> None:
    styles = {(MARKERS[i % len(MARKERS)], str(LINES[i % len(LINES)])) for i in range(12)}
    assert len(styles) == 12


def test_curves_and_exponents_are_drawn_and_told(entries: Mapping[str, Entry]) -> None:
    _, axes, evidence = drawn(entries["C7"])
    assert sum(len(line.get_xdata()) == 80 for line in axes.lines) == 3
    assert "Curves" in caption(evidence, "test.accuracy", entries["C7"].contrasts)
    _, axes, evidence = drawn(entries["C5"], "seconds")
    power = 2 + entries["C5"].contrasts[0].effect.mean
    written = [" ".join(text.split()) for text in labels(axes)]
    assert written[0] == f"naive, power {power:.2f}"
    assert [text.split(",")[0] for text in written] == ["naive", "window", "lstm"] and "power" not in written[2]
    assert "fitted powers" in caption(evidence, "seconds", entries["C5"].contrasts)
    assert "灰线" in caption(evidence, "seconds", entries["C5"].contrasts, language="zh")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [HOSTILE, "_hidden", "$\\frac{", "映画"])
def test_any_name_can_be_drawn(entries: Mapping[str, Entry], name: str) -> None:
    _, _, evidence = drawn(entries["C1"])
    renamed = evidence.tier.model_copy(update={"arms": {name: evidence.tier.arms["transformer"]}})
    study = evidence.study.model_copy(update={"quick": renamed})
    seen = tuple(replace(o, arm=name) for o in evidence.observations if o.arm == "transformer")
    figure = outcome_figure(replace(evidence, study=study, observations=seen), "test.accuracy", (), name)
    assert figure is not None and len(labels(figure.axes[0])) == 1
    assert "<script" not in svg_of(figure) and "<img" not in svg_of(figure)


def test_the_same_bytes_each_time(entries: Mapping[str, Entry]) -> None:
    assert svg_of(drawn(entries["C4"])[0]) == svg_of(drawn(entries["C4"])[0])
    assert svg_of(drawn(entries["C7"])[0]) == svg_of(drawn(entries["C7"])[0])


def test_no_cells_no_figure(entries: Mapping[str, Entry]) -> None:
    _, _, evidence = drawn(entries["C4"])
    assert outcome_figure(evidence, "test.nothing", ()) is None
    assert panels_figure([Panel(evidence, "test.nothing")]) is None


def test_panels_share_one_y_axis_and_the_style_of_a_name(entries: Mapping[str, Entry]) -> None:
    _, _, evidence = drawn(entries["C7"])
    panels = [
        Panel(moved(evidence, -0.1), "test.accuracy", title="Local order", names={"cnn": "convolution", "bag": "bag"}),
        Panel(evidence, "test.accuracy", title="Bag of words", names={"transformer": "attention", "bag": "bag"}),
        Panel(evidence, "test.nothing", title="Nothing"),
    ]
    wide, narrow = panels_figure(panels, STATEMENT), panels_figure(panels, STATEMENT, narrow=True)
    assert wide is not None and narrow is not None
    for figure in (wide, narrow):
        left, right = figure.axes
        assert [axes.get_title(loc="left") for axes in (left, right)] == ["Local order", "Bag of words"]
        assert left.get_ylim() == right.get_ylim()
        colours = [{name: text.get_color() for name, text in labels(axes).items()} for axes in (left, right)]
        assert colours[0].keys() == {"convolution", "bag"} and colours[1].keys() == {"attention", "bag"}
        assert colours[0]["bag"] == colours[1]["bag"]
        assert len({*colours[0].values(), *colours[1].values()}) == 3
    assert [bool(axes.get_ylabel()) for axes in wide.axes] == [True, False]
    assert wide.get_size_inches()[0] > wide.get_size_inches()[1] and narrow.get_size_inches()[0] == 4.0
