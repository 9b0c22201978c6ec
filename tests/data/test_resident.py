"""Batches cut on the device equal those cut on the host; filled up to few shapes they hold the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minitx.batch import IGNORED, PAD, Batch
from minitx.config import TokenizerConfig
from minitx.data import ResidentSplit, Split
from minitx.data.batching import plan_epoch
from minitx.data.pipeline.encode import encode_examples
from minitx.data.pipeline.tokenizer import Tokenizer
from minitx.data.resident import LENGTH_STEP, TARGET_STEP
from minitx.data.sources import Examples

CPU = torch.device("cpu")
BUDGET = 640
N = 431
TEXTS = ["abcdefgh"[: 1 + i % 8] * (1 + i % 5) + (". b" if i % 3 else "") for i in range(N)]
TOKENIZER = Tokenizer.fit(TokenizerConfig(kind="char"), TEXTS)
LABELS = np.arange(N) % 7
SPLITS = {
    "classification": encode_examples(Examples(TEXTS, labels=LABELS), TOKENIZER, None, 41),
    "translation": encode_examples(
        Examples(TEXTS, references=[(text[: 1 + i % 29],) for i, text in enumerate(TEXTS)]), TOKENIZER, TOKENIZER, 41
    ),
}
some_rows = st.lists(st.integers(0, N - 1), min_size=1, max_size=13)


@pytest.mark.parametrize("task", SPLITS)
@pytest.mark.parametrize("sentences", [True, False])
@given(rows=some_rows)
def test_equals_the_batch_of_the_split(task: str, sentences: bool, rows: list[int]) -> None:
    split = SPLITS[task]
    ours = ResidentSplit(split, CPU, sentences=sentences).batch(np.array(rows))
    assert ours.n_targets == split.batch(np.array(rows)).n_targets
    expected = split.batch(np.array(rows), sentences=sentences)
    for field in dataclasses.fields(Batch):
        a, b = getattr(ours, field.name), getattr(expected, field.name)
        if isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b), field.name
        else:
            assert a is None and b is None


@pytest.mark.parametrize("task", SPLITS)
def test_few_shapes_hold_the_same(task: str) -> None:
    split = SPLITS[task]
    resident = ResidentSplit(split, CPU, sentences=True, few_shapes=BUDGET)
    lengths = -(-split.lengths // LENGTH_STEP) * LENGTH_STEP
    filled = 0
    plan = plan_epoch(lengths, BUDGET, seed=0, epoch=0)
    for rows in [*plan, *(rows[1:] for rows in plan if len(rows) > 1)]:
        batch, plain = resident.batch(rows), split.batch(rows)
        b, s = plain.src.shape
        filled += batch.n_rows > b
        assert batch.src.shape[1] % LENGTH_STEP == 0 or batch.src.shape[1] == split.src.lengths.max() == 41
        assert batch.src.numel() <= BUDGET
        assert batch.src_mask is not None or batch.src.shape == plain.src.shape
        assert torch.equal(batch.src[:b, :s], plain.src) and bool((batch.src[b:] == PAD).all())
        if batch.src_mask is not None:
            assert int(batch.src_mask.sum()) == int((plain.src != PAD).sum()) == int(batch.src_mask[:b, :s].sum())
        assert batch.n_targets == plain.n_targets
        assert torch.equal(batch.targets[: batch.n_targets], plain.targets)
        assert bool((batch.targets[batch.n_targets :] == IGNORED).all())
        check_places(split, batch, plain)
    assert filled


def check_places(split: Split, batch: Batch, plain: Batch) -> None:
    """Each target stands where its token is."""
    if split.tgt is None:
        return
    assert batch.tgt_in is not None and plain.tgt_in is not None
    assert batch.target_index is not None and plain.target_index is not None
    t, padded = plain.tgt_in.shape[1], batch.tgt_in.shape[1]
    assert len(batch.targets) % TARGET_STEP == 0
    assert padded % LENGTH_STEP == 0 or padded == split.tgt.lengths.max()
    places = batch.target_index[: batch.n_targets]
    assert torch.equal(places // padded, plain.target_index // t)
    assert torch.equal(places % padded, plain.target_index % t)


def test_shapes_come_back() -> None:
    """Over several epochs there are fewer shapes than batches by far; without `few_shapes` nearly every one is new."""
    split = SPLITS["translation"]
    shapes: dict[int | None, list[object]] = {None: [], BUDGET: []}
    for few, seen in shapes.items():
        resident = ResidentSplit(split, CPU, few_shapes=few)
        lengths = split.lengths if few is None else -(-split.lengths // LENGTH_STEP) * LENGTH_STEP
        for epoch in range(5):
            seen += [resident.batch(rows).shapes for rows in plan_epoch(lengths, BUDGET, 0, epoch)]
    assert len(set(shapes[BUDGET])) < 0.35 * len(shapes[BUDGET])
    assert len(set(shapes[None])) > 0.8 * len(shapes[None])
