"""Which tokens are hidden and what is read in their place: a naive loop of the same hash, exact numbers, no chance."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.batch import IGNORED, UNK, Batch
from minitx.config import MaskingConfig, TokenizerConfig
from minitx.data import TARGET_STEP, Masker, ResidentSplit, Split, Tokenizer
from minitx.data.masking import n_hidden, ordinary_tokens
from minitx.data.pipeline.encode import encode_examples
from minitx.data.sources import Examples

N = 97
TEXTS = ["abcdefghij"[: 1 + i % 10] * (1 + i % 7) + "?" * (i % 3) for i in range(N)] + ["??", ""]
TOKENIZER = Tokenizer.fit(TokenizerConfig(kind="char"), ["abcdefghij"])  # "?" is unknown to it
VOCAB = TOKENIZER.vocab_size
SPLIT = encode_examples(Examples(TEXTS), TOKENIZER, None, 61)
CONFIG = MaskingConfig(rate=0.3, unknown=0.5, random=0.3)
CPU = torch.device("cpu")


def batch_of(rows: list[int]) -> Batch:
    return SPLIT.batch(np.array(rows))


def masked(rows: list[int], epoch: int | None = None, config: MaskingConfig = CONFIG, seed: int = 0) -> Batch:
    return Masker(SPLIT, config, VOCAB, seed)(batch_of(rows), np.array(rows), epoch)


def naive_mix(x: int) -> int:
    x %= 2**32
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) % 2**32
    x = ((x ^ (x >> 15)) * 0x735A2D97) % 2**32
    return x ^ (x >> 15)


def naive(row: int, epoch: int | None, seed: int = 0) -> tuple[list[int], dict[int, int]]:
    """(what is read, position -> what was there) of one row."""
    salt = 0 if epoch is None else naive_mix(seed ^ naive_mix(epoch + 1)) | 1 << 31
    ids = [int(i) for i in SPLIT.src[row]]
    keys = {p: naive_mix(naive_mix(row ^ salt) ^ naive_mix(p + 1)) for p, i in enumerate(ids) if i >= 5}
    count = max(1, round(CONFIG.rate * len(keys))) if keys else 0
    chosen = sorted(sorted(keys, key=lambda p: keys[p])[:count])
    truth = {p: ids[p] for p in chosen}
    for p in chosen:
        fate = naive_mix(keys[p] ^ 1) / 2**32
        if fate < 0.5:
            ids[p] = UNK
        elif fate < 0.8:
            ids[p] = 5 + naive_mix(keys[p] ^ 2) % (VOCAB - 5)
    return ids, truth


@pytest.mark.parametrize(("epoch", "seed"), [(None, 0), (None, 7), (0, 0), (3, 0), (3, 7)])
def test_equals_the_naive_loop(epoch: int | None, seed: int) -> None:
    rows = list(range(len(TEXTS)))
    found, length = masked(rows, epoch, seed=seed), batch_of(rows).src.shape[1]
    assert found.target_index is not None
    places, targets = [], []
    for place, row in enumerate(rows):
        ids, truth = naive(row, epoch, seed)
        assert found.src[place, : len(ids)].tolist() == ids and not found.src[place, len(ids) :].any()
        places += [place * length + p for p in truth]
        targets += truth.values()
    assert (found.target_index.tolist(), found.targets.tolist()) == (places, targets)
    assert found.n_real is None and found.n_targets == len(targets)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=11, unique=True), epoch=st.integers(0, 99))
def test_what_goes_together_changes_nothing(rows: list[int], epoch: int) -> None:
    together = masked(rows, epoch)
    assert together.target_index is not None
    row_N, position_N = together.target_index // together.src.shape[1], together.target_index % together.src.shape[1]
    for place, row in enumerate(rows):
        alone = masked([row], epoch)
        assert torch.equal(together.src[place, : alone.src.shape[1]], alone.src[0])
        assert torch.equal(together.targets[row_N == place], alone.targets)
        assert alone.target_index is not None and torch.equal(position_N[row_N == place], alone.target_index)


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 5000), min_size=1), rate=st.floats(0.001, 1))
def test_exactly_so_many_of_each_row(counts: list[int], rate: float) -> None:
    wanted = [min(n, max(1, round(rate * n))) for n in counts]
    assert n_hidden(np.array(counts), rate).tolist() == wanted


@pytest.mark.parametrize("rate", [0.01, 0.15, 0.5, 1.0])
def test_special_tokens_stay_and_the_numbers_are_exact(rate: float) -> None:
    rows = list(range(len(TEXTS)))
    before, after = batch_of(rows).src, masked(rows, 0, MaskingConfig(rate=rate))
    assert after.target_index is not None
    assert torch.equal(after.src[before < 5], before[before < 5])
    assert int(after.targets.min()) >= 5
    per_row = torch.bincount(after.target_index // before.shape[1], minlength=len(rows)).tolist()
    assert per_row == n_hidden(ordinary_tokens(SPLIT), rate).tolist()
    assert per_row[-2:] == [0, 0]  # "??" and "" hold nothing that training knows
    changed = after.src != before
    assert not changed.flatten().index_fill(0, after.target_index, False).any()


def test_a_batch_without_anything_to_hide() -> None:
    found = masked([N, N + 1], 0)
    assert found.n_targets == 0 and torch.equal(found.src, batch_of([N, N + 1]).src)


def test_epochs_and_seeds_differ_and_evaluation_does_not() -> None:
    rows = list(range(N))
    seen = [masked(rows, epoch, seed=seed).src for epoch, seed in ((0, 0), (1, 0), (2, 0), (0, 1), (None, 0))]
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    assert torch.equal(masked(rows, None, seed=0).src, masked(rows, None, seed=5).src)


def test_no_random_number_is_drawn() -> None:
    state = torch.get_rng_state()
    masked([3, 5], 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_shares_and_places_are_as_asked() -> None:
    """40,000 hidden tokens: a share is known to 0.0025 (one standard error) at most, and each place is as likely."""
    text = "abcdefghij" * 10
    split = encode_examples(Examples([text] * 4000), TOKENIZER, None, 128)
    rows = np.arange(4000)
    found = Masker(split, MaskingConfig(rate=0.1, unknown=0.8, random=0.1), VOCAB)(split.batch(rows), rows, 0)
    assert found.target_index is not None and found.n_targets == 40_000
    read = found.src.flatten()[found.target_index]
    unknown, same = (read == UNK).double().mean(), (read == found.targets).double().mean()
    random = ((read != UNK) & (read != found.targets)).double().mean()
    assert float(unknown) == pytest.approx(0.8, abs=0.01)
    assert float(same) == pytest.approx(0.1 + 0.1 / 10, abs=0.01)  # a random token may be the one that was there
    assert float(random) == pytest.approx(0.1 * 9 / 10, abs=0.01)
    places = torch.bincount(found.target_index % found.src.shape[1], minlength=101)[1:]
    assert int(places.min()) > 300 and int(places.max()) < 500  # 400 +- 5 standard errors of 19
    assert len(torch.unique(read[read != UNK])) == 10


def same(a: Batch, b: Batch) -> bool:
    pairs = [(getattr(a, f.name), getattr(b, f.name)) for f in fields(Batch)]
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x is y or x == y for x, y in pairs)


def test_batches_of_the_device_are_masked_alike() -> None:
    rows, resident = np.array([3, 50, 20, 98, 7]), ResidentSplit(SPLIT, CPU)
    masker = Masker(SPLIT, CONFIG, VOCAB)
    assert same(masker(resident.batch(rows), rows, 2), masker(SPLIT.batch(rows, sentences=False), rows, 2))


def test_filled_up_targets_are_ignored() -> None:
    resident = ResidentSplit(SPLIT, CPU, few_shapes=640)
    rows = np.flatnonzero(SPLIT.src.lengths > 50)[:10]
    bare = masked(rows.tolist(), 1)
    filled = Masker(SPLIT, CONFIG, VOCAB)(resident.batch(rows), rows, 1, TARGET_STEP)
    assert filled.n_targets == bare.n_targets == filled.n_real
    assert len(filled.targets) % TARGET_STEP == 0 and (filled.targets[bare.n_targets :] == IGNORED).all()
    assert torch.equal(filled.targets[: bare.n_targets], bare.targets)
    length = bare.src.shape[1]
    assert filled.n_rows > len(rows) and torch.equal(filled.src[: len(rows), :length], bare.src)


def test_a_split_of_some_rows() -> None:
    rows = np.array([5, 2, 11])
    part: Split = SPLIT.take(rows)
    assert [part.text(i) for i in range(3)] == [SPLIT.text(int(row)) for row in rows]
    assert torch.equal(part.batch(np.arange(3)).src, SPLIT.batch(rows).src)
    assert torch.equal(part.batch(np.arange(3)).sentence, SPLIT.batch(rows).sentence)
