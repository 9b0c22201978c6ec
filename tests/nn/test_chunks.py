"""Texts read in chunks: equal to each chunk by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nn_samples import SRC_VOCAB, classifier, make_batch, small, texts
from torch import Tensor

from minitx.batch import PAD
from minitx.nn.classifier import Classifier, folded, unfolded

K = 5
SOURCES = texts([17, 3, 5, 11, 1], SRC_VOCAB)
MODELS: list[Any] = [
    pytest.param("transformer", {}, id="sinusoidal"),
    pytest.param("transformer", {"position": "learned", "norm": "post", "pooling": "max"}, id="learned"),
    pytest.param("transformer", {"position": "rotary", "pooling": "attention"}, id="rotary"),
    pytest.param("transformer", {"attention": {"span": "sentence"}}, id="sentence"),
    pytest.param("transformer", {"attention": {"span": "window", "window": 2}}, id="window"),
    pytest.param("cnn", {"pooling": "additive"}, id="cnn"),
    pytest.param("lstm", {}, id="lstm"),
    pytest.param("bag", {}, id="bag"),
]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("length", "n_chunks"), [(1, 1), (4, 1), (5, 1), (6, 2), (13, 3), (15, 3)])
def test_there_and_back(length: int, n_chunks: int) -> None:
    ids_BS = torch.arange(3 * length).view(3, length) + 1
    chunks = folded(ids_BS, K)
    assert chunks.shape == (3 * n_chunks, K)
    for b, row in enumerate(ids_BS.tolist()):
        for c in range(n_chunks):
            part = row[c * K : (c + 1) * K]
            assert chunks[b * n_chunks + c].tolist() == part + [PAD] * (K - len(part))
    states = torch.randn(3, length, 7)
    chunked = torch.stack([folded(states[:, :, d], K) for d in range(7)], dim=-1)
    assert torch.equal(unfolded(chunked, 3, length), states)


def by_loop(model: Classifier, source: list[int], sentence: Tensor) -> Tensor:
    """(S, D): the encoder's states of every chunk as a text of its own."""
    states = []
    for start in range(0, len(source), K):
        part = slice(start, start + K)
        embedded = model.src_tokens(torch.tensor([source[part]]))
        states.append(model.encoder(embedded, None, sentence[None, part])[0])
    return torch.cat(states)


@pytest.mark.parametrize(("kind", "changes"), MODELS)
def test_every_chunk_is_read_by_itself(kind: str, changes: dict[str, Any]) -> None:
    model = classifier(small(kind, chunk=K, **changes))
    for extra in (0, 8):
        batch = make_batch(SOURCES, extra=extra)
        assert batch.sentence is not None
        states = model.states(batch)
        logits = model(batch)
        for b, source in enumerate(SOURCES):
            expected = by_loop(model, source, batch.sentence[b, : len(source)])
            close(states[b, : len(source)], expected)
            close(logits[b], model.head(model.pooling(expected[None]))[0])


@pytest.mark.parametrize(("kind", "changes"), MODELS)
def test_gradients_are_those_of_the_chunks(kind: str, changes: dict[str, Any]) -> None:
    model = classifier(small(kind, chunk=K, **changes))
    batch = make_batch(SOURCES, extra=3)
    assert batch.sentence is not None
    parameters = [p for p in model.parameters() if p.requires_grad]
    weight = torch.linspace(-1, 2, model.head.out_features, dtype=torch.float64)
    alone = [model.pooling(by_loop(model, s, batch.sentence[b, : len(s)])[None]) for b, s in enumerate(SOURCES)]
    expected = torch.autograd.grad((model.head(torch.cat(alone)) @ weight).square().sum(), parameters)
    found = torch.autograd.grad((model(batch) @ weight).square().sum(), parameters)
    assert any(bool(g.any()) for g in found)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_a_chunk_knows_nothing_of_the_others() -> None:
    model = classifier(small("transformer", chunk=K))
    before = model.states(make_batch(SOURCES))
    changed = [row.copy() for row in SOURCES]
    changed[0][7] = 5 + (changed[0][7] == 5)
    after = model.states(make_batch(changed))
    differs = (after != before).any(-1)
    assert differs[0].nonzero().flatten().tolist() == [5, 6, 7, 8, 9] and not differs[1:].any()


def test_texts_that_fit_are_read_whole() -> None:
    """The same as without chunks, wherever the text is no longer than one."""
    whole, chunked = (classifier(small("transformer", chunk=chunk)) for chunk in (None, 17))
    close(chunked(make_batch(SOURCES)), whole(make_batch(SOURCES)))
    close(chunked(make_batch(SOURCES, extra=4)), whole(make_batch(SOURCES)))
