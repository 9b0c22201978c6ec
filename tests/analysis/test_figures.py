from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minitx import fonts
from minitx.analysis.attention_maps import AttentionView, Kind
from minitx.analysis.figures import MOST_TOKENS, attention_figure, confusion_figure, reliability_figure
from minitx.metrics.calibration import calibrate, ece


def made_up(layers: int, heads: int, queries: int, keys: int, kind: Kind = "cross") -> AttentionView:
    weights = np.random.default_rng(0).dirichlet(np.ones(keys), (layers, heads, queries)).astype(np.float32)
    return AttentionView(kind, weights, tuple(f"q{i}" for i in range(queries)), tuple(f"k{i}" for i in range(keys)))


def drawn(figure: Figure) -> bytes:
    """The PNG; any warning on the way is an error here."""
    file = io.BytesIO()
    figure.savefig(file, dpi=40)
    return file.getvalue()


def test_every_layer_and_head_has_its_panel() -> None:
    view = made_up(layers=2, heads=3, queries=5, keys=7)
    figure = attention_figure(view)
    panels = figure.axes[:6]
    assert [panel.get_title() for panel in panels] == ["head 1", "head 2", "head 3", "", "", ""]
    assert [panel.get_ylabel() for panel in panels] == ["layer 1", "", "", "layer 2", "", ""]
    for panel, expected in zip(panels, view.weights.reshape(6, 5, 7), strict=True):
        np.testing.assert_array_equal(panel.images[0].get_array(), expected)
        assert panel.images[0].get_clim() == (0, 1)  # one scale, so that heads can be compared
    assert [label.get_text() for label in panels[3].get_yticklabels()] == list(view.query_tokens)
    assert [label.get_text() for label in panels[3].get_xticklabels()] == list(view.key_tokens)
    assert len(drawn(figure)) > 1000


def test_a_single_map_needs_no_number() -> None:
    panel = attention_figure(made_up(1, 1, 1, 7, kind="pooling")).axes[0]
    assert (panel.get_title(), panel.get_ylabel()) == ("", "")


def test_exact_zeros_are_set_apart() -> None:
    weights = np.tril(np.ones((1, 1, 3, 3), np.float32)) / np.array([1, 2, 3], np.float32)[:, None]
    figure = attention_figure(AttentionView("decoder", weights, ("a", "b", "c"), ("[BOS]", "a", "b")))
    shown: Any = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(shown), np.triu(np.ones((3, 3), bool), 1))


def test_any_token_can_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mathematics, scripts that the font lacks, nothing at all, and markup: as they are, or as boxes."""
    monkeypatch.setattr(fonts, "families", lambda: (fonts.LATIN,))
    tokens = ("$x^", "$", "映画", "", "<b>", "\\frac", "é", "ˈaɪ", "\U0001f9ff")
    view = AttentionView("encoder", made_up(1, 1, 9, 9).weights, tokens, tokens)
    figure = attention_figure(view, title="$\\broken of 映")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["$x^", "$", "\u25a1\u25a1", "", "<b>", "\\frac", "é", "ˈaɪ", "\u25a1"]
    assert drawn(figure)


@pytest.mark.parametrize("heads", [1, 8])
def test_long_texts_are_cut_and_say_so(heads: int) -> None:
    figure = attention_figure(made_up(layers=1, heads=heads, queries=5, keys=MOST_TOKENS + 1))
    assert f"first {MOST_TOKENS} tokens" in figure.get_suptitle()
    shown: Any = figure.axes[0].images[0].get_array()
    assert shown.shape == (5, MOST_TOKENS)
    assert max(figure.get_size_inches()) < 22
    drawn(figure)
    figure_fits = attention_figure(made_up(layers=1, heads=1, queries=5, keys=MOST_TOKENS))
    assert "first" not in figure_fits.get_suptitle()


def test_labels_do_not_overlap() -> None:
    figure = attention_figure(made_up(layers=1, heads=8, queries=5, keys=47))
    drawn(figure)
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 <= right.x0 + 1 for left, right in pairwise(boxes))
    assert len(boxes) > 10


def test_leaves_no_state_in_pyplot() -> None:
    attention_figure(made_up(1, 1, 3, 3))
    assert plt.get_fignums() == []


def test_a_long_title_is_broken_into_lines_that_fit() -> None:
    """A translated sentence and its source are wider than four small heads."""
    title = "  →  ".join(" ".join(f"word{i}" for i in range(start, start + 20)) for start in (0, 20))
    figure = attention_figure(made_up(layers=1, heads=2, queries=5, keys=7), title)
    drawn(figure)
    shown = figure.get_suptitle()
    assert shown.count("\n") > 2 and shown.split() == title.split()
    text = next(child for child in figure.get_children() if getattr(child, "get_text", str)() == shown)
    box = text.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width


# ---------------------------------------------------------------------------------------------- confusion, calibration


def test_rows_are_shares_and_counts_are_written_in() -> None:
    confusion = np.array([[3, 1, 0], [0, 0, 0], [2, 5, 7]])
    axes = confusion_figure(confusion, ["a", "b", "$c$"]).axes[0]
    shares = np.array([[0.75, 0.25, 0], [0, 0, 0], [2 / 14, 5 / 14, 0.5]])
    np.testing.assert_allclose(axes.images[0].get_array(), shares)
    assert [text.get_text() for text in axes.texts] == [str(count) for count in confusion.ravel()]


@pytest.mark.parametrize("n_classes", [2, 77])
def test_any_script_and_many_classes_can_be_drawn(n_classes: int) -> None:
    figure = confusion_figure(np.eye(n_classes, dtype=np.int64), [f"类别 {i}" for i in range(n_classes)])
    figure.canvas.draw()
    assert bool(figure.axes[0].texts) == (n_classes == 2)


@pytest.mark.parametrize("n_classes", [2, 20, 77, 211])
def test_labels_neither_overlap_nor_leave_the_picture(n_classes: int) -> None:
    """77: as many as banking77 has, and as long."""
    names = [f"balance_not_updated_after_cheque_or_cash_deposit_{i}" for i in range(n_classes)]
    figure = confusion_figure(np.eye(n_classes, dtype=np.int64), names)
    figure.canvas.draw()
    axes = figure.axes[0]
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(below.y1 < above.y0 for above, below in pairwise(boxes))  # the first is at the top
    assert len(boxes) >= min(n_classes, 77)
    edges = [*boxes, axes.yaxis.label.get_window_extent(), axes.xaxis.label.get_window_extent()]
    assert min(min(box.x0, box.y0) for box in edges) >= 0
    assert max(box.y1 for box in boxes) <= figure.bbox.y1


CHANCES = np.array([[0.8, 0.2], [0.2, 0.8], [0.4, 0.6], [0.99, 0.01]])
LABELS = np.array([0, 0, 1, 0])


def bars(axes: object) -> list[tuple[float, float, float]]:
    patches = [p for p in axes.patches if isinstance(p, Rectangle)]  # type: ignore[attr-defined]
    return [(p.get_x(), p.get_width(), p.get_height()) for p in patches]


def test_bars_are_the_bins_that_hold_examples() -> None:
    figure = reliability_figure(calibrate(np.log(CHANCES), LABELS), ece(np.log(CHANCES), LABELS))
    figure.canvas.draw()
    above, below = figure.axes
    np.testing.assert_allclose(bars(above), [(8 / 15, 1 / 15, 1), (11 / 15, 1 / 15, 0.5), (14 / 15, 1 / 15, 1)])
    assert [height for *_, height in bars(below)] == [1, 2, 1]
    assert [text.get_text() for text in below.texts] == ["1", "2", "1"]
    diagonal, marks = above.lines
    np.testing.assert_allclose(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(marks.get_xydata(), [[0.6, 1], [0.8, 0.5], [0.99, 1]])
    assert figure.get_suptitle().startswith("says 79.8 %, right in 75.0 %: a gap within chance\nECE ")


@pytest.mark.parametrize("right", [0, 1])
def test_one_example(right: int) -> None:
    log_probs = np.log([[0.25, 0.75]])
    reliability_figure(calibrate(log_probs, [right]), ece(log_probs, [right])).canvas.draw()
