"""Ragged rows and texts against plain lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.data import splits
from minitx.data.splits import Ragged, Texts

rows_of_ids = st.lists(st.lists(st.integers(0, 65535), min_size=1, max_size=7), min_size=1, max_size=11)


@given(rows_of_ids, st.data())
def test_gather_equals_padding_by_hand(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5))
    values, real = Ragged.of(rows, np.uint16).gather(np.array(chosen))
    longest = max(len(rows[row]) for row in chosen)
    assert values.dtype == np.int64
    assert values.tolist() == [rows[row] + [rows[row][-1]] * (longest - len(rows[row])) for row in chosen]
    assert real.tolist() == [[i < len(rows[row]) for i in range(longest)] for row in chosen]


@given(st.lists(rows_of_ids, min_size=1, max_size=3))
def test_joined_is_concatenation(parts: list[list[list[int]]]) -> None:
    joined = Ragged.joined([Ragged.of(part, np.uint32) for part in parts])
    assert [joined[i].tolist() for i in range(len(joined))] == [row for part in parts for row in part]
    assert joined.flat.dtype == np.uint32


@given(st.lists(st.text()))
def test_texts_come_back(texts: list[str]) -> None:
    stored = Texts.of(texts)
    assert [stored[i] for i in range(len(stored))] == texts


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_no_rows(dtype: type) -> None:
    empty = Ragged.of([], dtype)
    assert len(empty) == 0
    assert empty.flat.dtype == dtype


@given(rows_of_ids, st.integers(0, 65535))
def test_count(rows: list[list[int]], least: int) -> None:
    ragged = Ragged.of([*rows, []], np.uint16)
    with pytest.MonkeyPatch.context() as patched:
        for block in (1, 5, 1000):
            patched.setattr(splits, "BLOCK", block)
            counts = ragged.count(lambda value: value >= least)
            assert counts.tolist() == [sum(value >= least for value in row) for row in [*rows, []]]
