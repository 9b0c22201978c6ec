"""Letters of any script are drawn where a font has them; else a box, and a warning that says what to install."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from minitx import fonts
from minitx.analysis.attention_maps import AttentionView
from minitx.analysis.figures import attention_figure, confusion_figure
from minitx.fonts import chinese_font, drawable, families, package_for

TOKENS = ("注", "意", "a")


def view(tokens: tuple[str, ...]) -> AttentionView:
    weights = np.full((1, 2, len(tokens), len(tokens)), 1 / len(tokens), np.float32)
    return AttentionView(kind="encoder", query_tokens=tokens, key_tokens=tokens, weights=weights)


def drawn_without_warning(figure: Figure) -> None:
    """matplotlib warns of every letter that it cannot draw."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()


@pytest.mark.skipif(chinese_font() is None, reason="no font with Chinese letters is installed")
def test_chinese_tokens_and_classes_are_drawn() -> None:
    assert drawable("注意力 a") == "注意力 a"
    maps, matrix = (
        attention_figure(view(TOKENS), "注意力"),
        confusion_figure(np.eye(2, dtype=np.int64), ["正面", "负面"]),
    )
    for figure, text in ((maps, "注"), (matrix, "正面")):
        labels = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
        assert text in labels
        drawn_without_warning(figure)


def test_without_a_font_there_is_a_box_and_one_warning_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts._warn.cache_clear()
    monkeypatch.setattr(fonts, "families", lambda: (fonts.LATIN,))
    with pytest.warns(UserWarning, match=r"boxes; install fonts-noto-cjk, fonts-symbola$"):
        assert drawable("映 a 🜁") == "□ a □"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawable("意🜂") == "□□"  # told once


def test_packages() -> None:
    names = {char: package_for(char) for char in "映かカ한ا😀"}
    assert names == {**dict.fromkeys("映かカ한", "fonts-noto-cjk"), "ا": "fonts-noto-core", "😀": "fonts-symbola"}
    assert families()[0] == "DejaVu Sans"
