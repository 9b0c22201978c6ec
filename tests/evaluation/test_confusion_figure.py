"""The confusion picture: shares by row, counts where they fit, and labels in any script without a warning."""

from __future__ import annotations

import numpy as np
import pytest

from minitx.evaluation.confusion_figure import confusion_figure


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
