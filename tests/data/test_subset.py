"""Subsets: nested, in the classes' shares, reproducible."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minitx.data.pipeline.subset import subset_order, subset_rows
from minitx.data.splits import IntArray

some_labels = st.lists(st.integers(0, 4), min_size=1, max_size=101).map(lambda values: np.array(values, np.int64))


@given(some_labels, st.integers(0, 9), st.data())
def test_subsets_are_nested(labels: IntArray, seed: int, data: st.DataObject) -> None:
    large = data.draw(st.integers(1, len(labels)))
    small = data.draw(st.integers(1, large))
    few, many = (subset_rows(len(labels), labels, count, seed) for count in (small, large))
    assert len(few) == small
    assert set(few) <= set(many)
    assert np.array_equal(many, np.sort(many))


@given(some_labels, st.integers(0, 9))
def test_every_prefix_has_each_class_in_its_share(labels: IntArray, seed: int) -> None:
    order = subset_order(len(labels), labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    counts = np.bincount(labels, minlength=5)
    for size in range(1, len(labels) + 1):
        taken = np.bincount(labels[order[:size]], minlength=5)
        # a class is off by its own rounding (1/2) and its share of the others' (five classes, 1/2 each)
        assert np.all(np.abs(taken - size * counts / len(labels)) <= 0.5 + 2.5 * counts / len(labels) + 1e-9)


def test_seeds_differ_and_repeat() -> None:
    one, same, other = (subset_order(997, None, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    labels = np.arange(997) % 3
    assert not np.array_equal(subset_order(997, labels, 0), subset_order(997, labels, 1))


def test_each_row_is_as_likely_as_another() -> None:
    labels = np.array([0] * 8 + [1] * 16)
    drawn = np.zeros(24)
    for seed in range(600):
        drawn[subset_rows(24, labels, 6, seed)] += 1
    # two of 8 and four of 16, each row with chance 1/4: 150 +- 5 standard deviations of 10.6
    assert np.all(np.abs(drawn - 150) < 53)
