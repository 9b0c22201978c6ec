"""Text in lines, labels that keep apart, and letters that fonts have or lack."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.fonts import chinese_font
from minitx.report import drawing
from minitx.report.drawing import (
    MISSING_FONT,
    drawable,
    drawn_language,
    kept_apart,
    text_width,
    wrapped,
)
from minitx.report.labels import in_words

numbers = st.floats(-0.5, 1.5, allow_subnormal=False)


def test_lines_are_short_and_lose_no_word() -> None:
    text = "Any two positions are one step apart, so far dependencies are learnt better"
    assert wrapped(text, 30).split() == text.split()
    assert max(map(text_width, wrapped(text, 30).split("\n"))) <= 30
    assert wrapped("supercalifragilistic", 5) == "supercalifragilistic" and wrapped("", 5) == ""


def test_what_is_in_brackets_stays_together() -> None:
    assert wrapped("distance in tokens (log scale)", 24) == "distance in tokens\n(log scale)"
    assert wrapped("found: +0.02 [+0.01, +0.03]", 22) == "found: +0.02\n[+0.01, +0.03]"
    assert wrapped("音素错误率（越低越好）", 14) == "音素错误率\n（越低越好）"


def test_chinese_is_twice_as_wide_and_no_line_begins_with_a_comma() -> None:
    text = "自注意力在小数据上表现较差，需要大量数据"
    for width in range(6, 40):
        lines = wrapped(text, width).split("\n")
        assert "".join(lines) == text and not any(line.startswith("，") for line in lines)
        assert max(map(text_width, lines)) <= max(width, 4)


@given(st.lists(st.tuples(numbers, st.floats(0.01, 0.15, allow_subnormal=False)), max_size=6))
def test_labels_keep_apart_within_the_axes(labels: list[tuple[float, float]]) -> None:
    wanted, heights = [one for one, _ in labels], [height for _, height in labels]
    found = kept_apart(wanted, heights)
    assert len(found) == len(labels)
    ends = sorted((middle - height / 2, middle + height / 2) for middle, height in zip(found, heights, strict=True))
    assert all(below[1] <= above[0] + 1e-9 for below, above in itertools.pairwise(ends))
    assert not ends or (ends[0][0] >= -1e-9 and ends[-1][1] <= 1 + 1e-9)
    order = np.argsort(wanted, kind="stable")
    assert [*np.argsort(found, kind="stable")] == [*order]


def test_labels_with_room_stay_where_they_are_wanted() -> None:
    assert kept_apart([0.8, 0.2, 0.5], [0.1, 0.1, 0.1]) == pytest.approx([0.8, 0.2, 0.5])
    assert kept_apart([0.5, 0.5], [0.1, 0.1]) == pytest.approx([0.45, 0.55])


def test_names_become_words() -> None:
    assert in_words("fixed_width") == "fixed width" and in_words("_") == "_"


def test_english_has_one_font_so_that_bytes_are_the_same_everywhere() -> None:
    assert drawing.fonts("en") == ["DejaVu Sans"] and drawable("映 a") == "□ a"


def test_without_a_chinese_font_figures_are_in_english_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "chinese_font", lambda: None)
    with pytest.warns(UserWarning, match=MISSING_FONT):
        assert drawn_language("zh") == "en"
    assert drawn_language("en") == "en"


def test_chinese_is_drawn_where_a_font_has_it() -> None:
    if chinese_font() is None:
        pytest.skip(MISSING_FONT)
    assert drawn_language("zh") == "zh" and "□" not in drawable("头数（对数刻度）越低越好 % −∞", "zh")
