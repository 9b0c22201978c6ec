"""The reliability picture: bars where the bins are, as high as their accuracy, each with its count."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from minitx.analysis.class_figures import reliability_figure
from minitx.metrics.calibration import calibrate, ece

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
