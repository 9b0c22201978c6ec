"""Embeddings of n-grams against a loop that hashes whole numbers of any size."""

from __future__ import annotations

import pytest
import torch
from nn_samples import classifier, make_batch, small
from torch import Tensor, nn

from minitx.config import BagConfig
from minitx.nn.baselines.bag import MULTIPLIER, BagEncoder, NgramTable

V, D, BUCKETS = 70_001, 7, 101


def table(ngrams: int) -> NgramTable:
    """In float64, the n-grams' embeddings random, too."""
    torch.manual_seed(0)
    made = NgramTable(BagConfig(d_model=D, ngrams=ngrams, buckets=BUCKETS), V).double()
    if made.grams is not None:
        nn.init.normal_(made.grams.weight)
    return made


def ids(length: int, seed: int = 1) -> list[int]:
    return torch.randint(0, V, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def bucket(gram: list[int], n_buckets: int = BUCKETS) -> int:
    """The row of an n-gram, its last token first, in 64-bit numbers that wrap around."""
    value = 0
    for token in reversed(gram):
        value = value * MULTIPLIER + token
    wrapped = (value * MULTIPLIER + len(gram) + 2**63) % 2**64 - 2**63
    return wrapped % n_buckets


def by_loop(made: NgramTable, text: list[int]) -> Tensor:
    states = []
    for i, token in enumerate(text):
        state = made.tokens.weight[token].clone()
        for n in range(2, made.ngrams + 1):
            if i + 1 >= n:
                assert made.grams is not None
                state = state + made.grams.weight[bucket(text[i + 1 - n : i + 1])]
        states.append(state / made.ngrams)
    return torch.stack(states)


@pytest.mark.parametrize("ngrams", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_every_position_is_what_the_loop_makes_of_it(ngrams: int, length: int) -> None:
    made, texts = table(ngrams), [ids(length, seed) for seed in (1, 2, 3)]
    y = made(torch.tensor(texts))
    assert y.shape == (3, length, D)
    for row, text in zip(y, texts, strict=True):
        torch.testing.assert_close(row, by_loop(made, text), rtol=0, atol=1e-14)


def test_hashes_wrap_around_and_spread() -> None:
    """Five large ids leave 64 bits; pairs of a hundred common tokens meet no oftener than by chance."""
    assert sum(70_000 * MULTIPLIER**i for i in range(5)) > 2**64
    n_buckets, pairs = BagConfig().buckets, [[a, b] for a in range(5, 105) for b in range(5, 105)]
    distinct = len({bucket(pair, n_buckets) for pair in pairs})
    assert distinct >= n_buckets * (1 - (1 - 1 / n_buckets) ** len(pairs)), "what a random hash is expected to give"


def test_ngrams_begin_at_nothing_and_learn() -> None:
    made = NgramTable(BagConfig(d_model=D, ngrams=2, buckets=BUCKETS), 29)
    assert made.grams is not None and not made.grams.weight.any()
    made(torch.tensor([[3, 4, 5]])).sum().backward()
    assert made.grams.weight.grad is not None
    touched = made.grams.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert touched == sorted({bucket([3, 4]), bucket([4, 5])})


def test_padding_changes_no_real_position() -> None:
    made = table(3)
    short = torch.tensor([ids(5)])
    long = torch.cat([short, torch.zeros(1, 4, dtype=torch.int64)], dim=1)
    assert torch.equal(made(long)[:, :5], made(short))


def test_order_matters_to_ngrams_alone() -> None:
    """Within a text; the mean of single tokens is the same whatever their order."""
    text = ids(11)
    for ngrams, same in ((1, True), (2, False)):
        made = table(ngrams)
        one, other = (made(torch.tensor([t])).mean(1) for t in (text, text[::-1]))
        assert torch.allclose(one, other, rtol=0, atol=1e-12) == same


def test_the_head_reads_the_mean() -> None:
    """The whole model: fastText's, with the sum over n-grams divided by tokens and by N."""
    model = classifier(small("bag", ngrams=2))
    assert isinstance(model.src_tokens, NgramTable) and isinstance(model.encoder, BagEncoder)
    assert model.src_tokens.grams is not None
    nn.init.normal_(model.src_tokens.grams.weight)
    texts = [[4, 9, 7, 28], [4, 5]]
    logits = model(make_batch(texts))
    for row, text in zip(logits, texts, strict=True):
        torch.testing.assert_close(row, model.head(by_loop(model.src_tokens, text).mean(0)), rtol=0, atol=1e-12)
