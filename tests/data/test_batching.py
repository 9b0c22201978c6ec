"""Batch plans: every row once, within the budget, shuffled, reproducible, and little padding."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.data.batching import plan_epoch, plan_eval
from minitx.data.splits import IntArray

some_lengths = st.lists(st.integers(1, 53), max_size=211).map(lambda values: np.array(values, np.int64))


def check(plan: list[IntArray], lengths: IntArray, batch_tokens: int) -> None:
    rows = np.concatenate(plan) if plan else np.zeros(0, np.int64)
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    for batch in plan:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= batch_tokens


@given(some_lengths, st.integers(1, 997), st.integers(0, 5), st.integers(0, 5))
def test_every_row_once_within_the_budget(lengths: IntArray, batch_tokens: int, seed: int, epoch: int) -> None:
    check(plan_epoch(lengths, batch_tokens, seed, epoch), lengths, batch_tokens)
    check(plan_eval(lengths, batch_tokens), lengths, batch_tokens)


@given(some_lengths, st.integers(1, 997))
def test_eval_batches_are_as_long_as_they_can_be(lengths: IntArray, batch_tokens: int) -> None:
    plan = plan_eval(lengths, batch_tokens)
    for batch, following in itertools.pairwise(plan):
        assert lengths[following[0]] * (len(batch) + 1) > batch_tokens


@given(some_lengths, st.integers(1, 997), st.integers(1, 13))
def test_a_batch_has_no_more_rows_than_asked(lengths: IntArray, batch_tokens: int, batch_rows: int) -> None:
    plan = plan_epoch(lengths, batch_tokens, seed=3, epoch=2, batch_rows=batch_rows)
    check(plan, lengths, batch_tokens)
    assert max(map(len, plan), default=0) <= batch_rows


def test_batches_of_a_number_of_rows_are_full() -> None:
    """With room for any row, the number of steps goes by the rows alone, whatever their lengths."""
    for scale in (1, 10):
        plan = plan_epoch(scale * zipf_lengths(), 100_000, seed=0, epoch=0, batch_rows=61)
        assert sorted(map(len, plan))[1:] == [61] * (20011 // 61)


def zipf_lengths(n_rows: int = 20011) -> IntArray:
    return np.random.default_rng(7).integers(4, 23, n_rows)


def test_a_plan_depends_on_its_arguments_alone() -> None:
    lengths = zipf_lengths()
    np.random.seed(11)  # noqa: NPY002  (the global generator must stay untouched)
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(11)  # noqa: NPY002
    first, again = (plan_epoch(lengths, 1009, seed=3, epoch=2) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.random.random() == expected  # noqa: NPY002


@pytest.mark.parametrize(("seed", "epoch"), [(4, 2), (3, 1)])
def test_another_seed_or_epoch_is_another_composition(seed: int, epoch: int) -> None:
    lengths = zipf_lengths()
    batches = {tuple(sorted(b)) for b in plan_epoch(lengths, 1009, seed=3, epoch=2)}
    others = {tuple(sorted(b)) for b in plan_epoch(lengths, 1009, seed=seed, epoch=epoch)}
    assert len(batches & others) < 0.01 * len(batches)


def test_batches_are_in_random_order() -> None:
    lengths = zipf_lengths()
    longest = [lengths[batch].max() for batch in plan_epoch(lengths, 1009, seed=0, epoch=0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2


def test_little_padding_and_mostly_one_length() -> None:
    lengths = zipf_lengths(100_003)
    plan = plan_epoch(lengths, 4096, seed=0, epoch=0)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in plan)
    assert lengths.sum() / padded > 0.98
    assert len(plan) < 1.05 * lengths.sum() / 4096
    assert np.mean([len(np.unique(lengths[batch])) == 1 for batch in plan]) > 0.7
