"""R-Drop's loss equals its definition: value and gradients, from logits, from hidden states, and of whole models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from nn_samples import SRC_VOCAB, TGT_VOCAB, classifier, make_batch, texts, tiny, translator
from r_drop_reference import r_drop_reference
from torch import Tensor

from minitx.batch import IGNORED, Batch
from minitx.nn import losses as cross_entropy
from minitx.nn import losses as r_drop
from minitx.nn.classifier import Classifier
from minitx.nn.layers import use_fast_dropout
from minitx.nn.losses import projected_r_drop_loss, r_drop_loss, summed_cross_entropy
from minitx.nn.translator import Translator

N, D, V, ALPHA = 53, 7, 31, 5.3
ROWS = 11
SOURCES, TARGETS = texts([11, 3, 37], SRC_VOCAB), texts([5, 2, 7], TGT_VOCAB, seed=2)


@pytest.fixture(params=[False, True], ids=["at-once", "in-chunks"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All logits at once, or those of eleven targets: the last chunk is a part."""
    if request.param:
        chunks(monkeypatch)


def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", 2 * ROWS * V + 5)


def sample(dtype: torch.dtype = torch.float64, apart: float = 0.7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states of both passes, weight, targets."""
    torch.manual_seed(0)
    first, weight = torch.randn(N, D, dtype=dtype), torch.randn(V, D, dtype=dtype)
    second = first + apart * torch.randn(N, D, dtype=dtype)
    targets = torch.randint(0, V, (N,))
    return first.requires_grad_(), second.requires_grad_(), weight.requires_grad_(), targets


def close(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def with_gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return (loss.detach(), *torch.autograd.grad(loss * 0.37, leaves))


@pytest.mark.parametrize("smoothing", [0.0, 0.13])
def test_from_logits(smoothing: float) -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(N, V, dtype=torch.float64, requires_grad=True) for _ in range(2))
    targets = torch.randint(0, V, (N,))
    found, expected = (
        with_gradients(f(a, b, targets, ALPHA, smoothing), a, b) for f in (r_drop_loss, r_drop_reference)
    )
    close(found, expected)
    assert torch.autograd.gradcheck(lambda a, b: r_drop_loss(a, b, targets[:5], ALPHA, smoothing), (a[:5], b[:5]))


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("smoothing", [0.0, 0.13])
def test_from_hidden_states(smoothing: float) -> None:
    first, second, weight, targets = sample()
    leaves = first, second, weight
    found = with_gradients(projected_r_drop_loss(*leaves, targets, ALPHA, smoothing), *leaves)
    logits = F.linear(first, weight), F.linear(second, weight)
    close(found, with_gradients(r_drop_reference(*logits, targets, ALPHA, smoothing), *leaves))


def test_gradients_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK", 2 * 3 * V)
    first, second, weight, targets = sample()

    def loss(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
        return projected_r_drop_loss(first, second, weight, targets[:5], ALPHA, 0.1)

    assert torch.autograd.gradcheck(loss, (first[:5], second[:5], weight))


def test_no_more_logits_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    real = cross_entropy.product

    def spy(x: Tensor, weight: Tensor) -> Tensor:
        shapes.append((x.shape[0], weight.shape[0]))
        return real(x, weight)

    chunks(monkeypatch)
    monkeypatch.setattr(cross_entropy, "product", spy)
    monkeypatch.setattr(r_drop, "product", spy)
    first, second, weight, targets = sample()
    projected_r_drop_loss(first, second, weight, targets, ALPHA).backward()
    assert {rows for rows, _ in shapes} == {ROWS, N % ROWS}
    assert sum(rows for rows, n_out in shapes if n_out == V) == 2 * N
    with torch.no_grad():
        assert not projected_r_drop_loss(first, second, weight, targets, ALPHA).requires_grad


@pytest.mark.usefixtures("size")
def test_alpha_0_is_the_mean_of_both_cross_entropies() -> None:
    first, second, weight, targets = sample()
    leaves = first, second, weight
    logits = F.linear(first, weight), F.linear(second, weight)
    mean = (summed_cross_entropy(logits[0], targets, 0.1) + summed_cross_entropy(logits[1], targets, 0.1)) / 2
    expected = with_gradients(mean, *leaves)
    close(with_gradients(projected_r_drop_loss(*leaves, targets, 0.0, 0.1), *leaves), expected)


@pytest.mark.usefixtures("size")
def test_passes_that_agree_have_no_divergence() -> None:
    first, _, weight, targets = sample()
    plain = with_gradients(summed_cross_entropy(F.linear(first, weight), targets, 0.1), first, weight)
    close(with_gradients(projected_r_drop_loss(first, first, weight, targets, 1e3, 0.1), first, weight), plain)


def test_filling_counts_nothing() -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(N, V, dtype=torch.float64, requires_grad=True) for _ in range(2))
    targets = torch.randint(0, V, (N,))
    targets[-3:] = IGNORED
    found = with_gradients(r_drop_loss(a, b, targets, ALPHA, 0.1), a, b)
    close(found, with_gradients(r_drop_loss(a[:-3], b[:-3], targets[:-3], ALPHA, 0.1), a, b))
    assert not found[1][-3:].any() and found[1][:-3].any()


@pytest.mark.usefixtures("size")
def test_extreme_logits_stay_finite() -> None:
    """Certain of one class in one pass and of another one in the other, in float32."""
    targets = torch.arange(N) % V
    first, weight = torch.zeros(N, V), torch.eye(V)
    first[torch.arange(N), targets] = 1e4
    first[torch.arange(N), (targets + 1) % V] = -1e4
    second = first.roll(1, dims=1)
    leaves = first.requires_grad_(), second.requires_grad_(), weight.requires_grad_()
    loss, *gradients = with_gradients(projected_r_drop_loss(*leaves, targets, ALPHA), *leaves)
    # P is certain of y and Q of y + 1: -log P(y) = 0, -log Q(y) = KL(P||Q) = 1e4 and KL(Q||P) = 2e4.
    torch.testing.assert_close(loss, torch.tensor(N * (0 + 1e4 + ALPHA / 2 * 3e4) / 2))
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_bf16_is_no_worse_than_plain_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks, of passes as close as dropout leaves them, where the divergence is a small difference."""
    first, second, weight, targets = sample(torch.float32, apart=0.3)
    leaves = first, second, weight
    results = []
    for bf16, chunked in ((False, False), (True, False), (True, True)):
        if chunked:
            chunks(monkeypatch)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = projected_r_drop_loss(*leaves, targets, ALPHA, 0.1)
        assert loss.dtype == torch.float32
        results.append((loss, torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)])))
    (exact_loss, exact), (_, at_once), (loss, in_chunks) = results
    assert float((in_chunks - exact).norm()) <= 1.2 * float((at_once - exact).norm()) < 0.02 * float(exact.norm())
    torch.testing.assert_close(loss, exact_loss, rtol=2e-3, atol=0)


# ---------------------------------------------------------------------------------------------------------- models


def sample_models() -> list[tuple[Classifier | Translator, Batch]]:
    config = tiny(dropout=0.3)
    return [(classifier(config), make_batch(SOURCES)), (translator(config), make_batch(SOURCES, TARGETS))]


def seeded(compute: Callable[[], Tensor]) -> Tensor:
    torch.manual_seed(11)
    return compute()


def test_a_models_loss_is_that_of_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    for model, batch in sample_models():
        passes = seeded(lambda model=model, batch=batch: torch.stack([model(batch), model(batch)]))
        assert not torch.allclose(*passes)
        expected = r_drop_reference(*passes, batch.targets, ALPHA, 0.1)
        for chunk in (1 << 23, 2 * 3 * TGT_VOCAB):
            monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
            found = seeded(partial(model.loss, batch, 0.1, ALPHA))
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_translators_filling_counts_nothing() -> None:
    _, (model, batch) = sample_models()
    assert batch.target_index is not None
    filled = replace(
        batch,
        targets=F.pad(batch.targets, (0, 3), value=IGNORED),
        target_index=F.pad(batch.target_index, (0, 3)),
        n_real=batch.n_targets,
    )
    found, expected = (seeded(partial(model.loss, b, 0.1, ALPHA)) for b in (filled, batch))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_without_r_drop_the_loss_is_one_pass() -> None:
    for model, batch in sample_models():
        found, expected = (seeded(f) for f in (partial(model.loss, batch, 0.1, 0.0), partial(model.loss, batch, 0.1)))
        assert torch.equal(found, expected)
        logits = seeded(partial(model, batch))
        assert torch.equal(found, F.cross_entropy(logits, batch.targets, reduction="sum", label_smoothing=0.1))


def test_compiles_into_one_graph() -> None:
    model, batch = translator(tiny(n_layers=1, dropout=0.3)), make_batch(SOURCES, TARGETS)
    compiled = torch.compile(model.loss, backend="eager", fullgraph=True, dynamic=True)
    found = seeded(partial(compiled, batch, 0.1, ALPHA))
    use_fast_dropout(False)  # as a compiler does
    try:
        expected = seeded(partial(model.loss, batch, 0.1, ALPHA))
    finally:
        use_fast_dropout(True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_nothing_waits_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # As in test_models: tensors on "meta" have no values.
    meta = torch.device("meta")
    for model, batch in sample_models():
        model.to(meta).loss(batch.to(meta), 0.1, ALPHA).backward()
    chunks(monkeypatch)
    hidden, weight, targets = torch.empty(2, N, D).to(meta), torch.empty(V, D).to(meta), torch.arange(N).to(meta)
    gradients = torch.empty(2, N, D).to(meta), torch.zeros(V, D).to(meta)
    cross_entropy._sum(hidden, weight, targets, 0.1, partial(r_drop._between, ALPHA), gradients)
