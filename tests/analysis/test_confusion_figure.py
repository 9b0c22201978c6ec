"""The confusion picture: shares by row, counts where they fit, and labels in any script without a warning."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from minitx.analysis.class_figures import confusion_figure


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
