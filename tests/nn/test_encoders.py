"""Every kind of encoder behind the one door: what must not change a classifier's result does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nn_samples import N_CLASSES, SRC_VOCAB, classifier, make_batch, small, texts
from torch import Tensor

from minitx.config import NetConfig
from minitx.nn.encoders import make_encoder

SOURCES = texts([11, 3, 37, 1], SRC_VOCAB)
MODELS: list[Any] = [
    *((kind, {"pooling": p}) for kind in ("cnn", "lstm", "bag") for p in ("mean", "max", "attention", "additive")),
    *(("transformer", {"pooling": pooling}) for pooling in ("max", "additive")),
    ("lstm", {"pooling": "last"}),
    *((kind, {"chunk": 7}) for kind in ("transformer", "cnn", "lstm", "bag")),
]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("kind", "changes"), MODELS)
def test_padding_batching_and_order_change_nothing(kind: str, changes: dict[str, Any]) -> None:
    model = classifier(small(kind, **changes))
    together = model(make_batch(SOURCES))
    assert together.shape == (4, N_CLASSES) and together.std() > 0
    close(model(make_batch(SOURCES, extra=5)), together)
    close(model(make_batch(SOURCES[::-1])), together.flip(0))
    close(torch.cat([model(make_batch([source])) for source in SOURCES]), together)


@pytest.mark.parametrize(("kind", "changes"), MODELS)
def test_gradients_of_a_batch_are_the_sum_of_its_rows(kind: str, changes: dict[str, Any]) -> None:
    model = classifier(small(kind, **changes))
    if kind == "bag":
        torch.nn.init.normal_(model.src_tokens.grams.weight)  # type: ignore[union-attr, arg-type]

    def gradient(sources: list[list[int]], extra: int = 0) -> list[Tensor]:
        targets = torch.tensor([SOURCES.index(source) for source in sources])
        loss = torch.nn.functional.cross_entropy(model(make_batch(sources, extra=extra)), targets, reduction="sum")
        return list(torch.autograd.grad(loss, list(model.parameters())))

    rows = [gradient([source]) for source in SOURCES]
    for whole, *parts in zip(gradient(SOURCES, extra=5), *rows, strict=True):
        torch.testing.assert_close(whole, torch.stack(parts).sum(0), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("kind", "changes"), MODELS)
def test_a_row_without_a_real_token_stays_finite(kind: str, changes: dict[str, Any]) -> None:
    model = classifier(small(kind, **changes))
    logits = model(make_batch([SOURCES[0], []]))
    close(logits[0], model(make_batch(SOURCES[:1]))[0])
    logits.square().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("kind", ["transformer", "cnn", "lstm", "bag"])
def test_noise_reaches_every_kind_in_training_alone(kind: str) -> None:
    model = classifier(small(kind, token_dropout=0.5))
    batch = make_batch(SOURCES)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    close(model(batch), classifier(small(kind))(batch))


def test_what_has_no_encoder_is_refused() -> None:
    with pytest.raises(TypeError, match="no encoder for NetConfig"):
        make_encoder(NetConfig(), 7)
