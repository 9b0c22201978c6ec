"""The ids: lengths as the quantiles say, the same for everybody, and batches of comparable size."""

from __future__ import annotations

import numpy as np
import pytest

from minitx.batch import CLS, EOS, SPECIAL_TOKENS
from minitx.bench.jobs import CLASSIFICATION, TRANSLATION, Ids, Size
from minitx.bench.workloads import CAPTION_LENGTHS, QUANTILES, REVIEW_LENGTHS, budget_for, load_split
from minitx.data import plan_epoch


def test_generated_lengths_follow_the_quantiles() -> None:
    reviews = load_split(CLASSIFICATION, Ids(rows=4000))
    assert np.abs(np.quantile(reviews.src.lengths, QUANTILES[2:-2]) - REVIEW_LENGTHS[2:-2]).max() <= 8
    captions = load_split(TRANSLATION, Ids(rows=4000))
    assert np.abs(np.quantile(captions.src.lengths, QUANTILES[2:-2]) - CAPTION_LENGTHS[2:-2]).max() <= 1
    assert captions.tgt is not None
    assert captions.tgt.lengths.mean() == pytest.approx(captions.src.lengths.mean(), rel=0.1)
    assert np.corrcoef(captions.src.lengths, captions.tgt.lengths)[0, 1] > 0.7, "long texts have long translations"
    assert captions.lengths.max() <= TRANSLATION.max_length


def test_ids_are_the_same_for_everybody_and_in_the_vocabulary() -> None:
    size = Size(vocab=50, max_length=20)
    one, two = (load_split(size, Ids(rows=300)) for _ in range(2))
    assert np.array_equal(one.src.flat, two.src.flat) and np.array_equal(one.labels, two.labels)
    assert not np.array_equal(one.src.flat, load_split(size, Ids(rows=300, seed=1)).src.flat)
    assert {int(one.src[row][0]) for row in range(300)} == {CLS}
    tokens = one.src.flat[one.src.flat != CLS]
    assert tokens.min() == len(SPECIAL_TOKENS) and tokens.max() < 50
    counts = np.bincount(tokens)
    assert counts[len(SPECIAL_TOKENS)] > 5 * counts[30], "few tokens are most of a text"


def test_targets_end_and_full_rows_are_full() -> None:
    size = Size(task="translation", vocab=50, max_length=20)
    split = load_split(size, Ids(source="full", rows=7))
    assert split.tgt is not None
    assert set(split.lengths) == {20} and {int(split.tgt[row][-1]) for row in range(7)} == {EOS}
    assert load_split(size, Ids(rows=7)).batch(np.arange(7)).n_targets > 0


def test_the_budget_holds_as_many_real_tokens_as_the_rows_of_the_others() -> None:
    lengths = load_split(CLASSIFICATION, Ids(rows=6000)).src.lengths
    wanted = 32 * lengths.mean()
    steps = len(plan_epoch(lengths, budget_for(lengths, wanted), seed=0, epoch=0))
    assert lengths.sum() / steps == pytest.approx(wanted, rel=0.02)
    plain = len(plan_epoch(lengths, round(wanted), seed=0, epoch=0))
    assert lengths.sum() / plain < 0.985 * wanted, "the budget itself would give smaller steps"
