"""Cross-entropy from hidden states, a chunk at a time, equals torch's from all logits: value and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from nn_samples import SRC_VOCAB, TGT_VOCAB, make_batch, texts, tiny, translator
from torch import Tensor

from minitx.nn import losses as cross_entropy
from minitx.nn.losses import projected_cross_entropy

N, D, V = 53, 7, 31


@pytest.fixture
def chunk(monkeypatch: pytest.MonkeyPatch) -> int:
    """Eleven targets at a time: the last chunk is a part."""
    monkeypatch.setattr(cross_entropy, "CHUNK", 11 * V + 5)
    return 11


def sample(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden, weight = torch.randn(N, D, dtype=dtype, requires_grad=True), torch.randn(V, D, dtype=dtype)
    return hidden, weight.requires_grad_(), torch.randint(0, V, (N,))


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="sum", label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.13])
def test_equals_torch(chunk: int, smoothing: float) -> None:
    hidden, weight, targets = sample()
    found = []
    for function in (projected_cross_entropy, F.cross_entropy):
        hidden.grad = weight.grad = None
        if function is F.cross_entropy:
            loss = function(F.linear(hidden, weight), targets, reduction="sum", label_smoothing=smoothing)
        else:
            loss = function(hidden, weight, targets, smoothing)
        (loss * 0.37).backward()
        found.append((loss.detach(), hidden.grad, weight.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_no_more_logits_than_a_chunk(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    real = cross_entropy.product

    def spy(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        shapes.append((x.shape[0], weight.shape[0]))
        return real(x, weight, bias)

    monkeypatch.setattr(cross_entropy, "product", spy)
    hidden, weight, targets = sample()
    projected_cross_entropy(hidden, weight, targets).backward()
    assert {rows for rows, _ in shapes} == {chunk, N % chunk} and {n for _, n in shapes} == {V, D}
    shapes.clear()
    with torch.no_grad():
        assert not projected_cross_entropy(hidden, weight, targets).requires_grad
    assert {n for _, n in shapes} == {V}  # no gradient, no second product


@pytest.mark.parametrize("wanted", ["hidden", "weight"])
def test_one_gradient_alone(chunk: int, wanted: str) -> None:
    hidden, weight, targets = sample()
    (weight if wanted == "hidden" else hidden).requires_grad_(False)
    leaf = hidden if wanted == "hidden" else weight
    torch.autograd.backward(projected_cross_entropy(hidden, weight, targets))
    assert leaf.grad is not None
    ours, leaf.grad = leaf.grad, None
    F.cross_entropy(F.linear(hidden, weight), targets, reduction="sum").backward()
    torch.testing.assert_close(ours, leaf.grad)


@pytest.mark.parametrize("confident", [False, True])
def test_bf16_is_no_worse_than_plain_autocast(chunk: int, confident: bool) -> None:
    """Also where the target has nearly all of the probability, and its gradient is a small difference."""
    hidden, weight, targets = sample(torch.float32)
    if confident:
        with torch.no_grad():
            hidden.copy_(4 * weight[targets])
    gradients = []
    for function, bf16 in ((plain, False), (plain, True), (projected_cross_entropy, True)):
        hidden.grad = weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = function(hidden, weight, targets, 0.1)
        loss.backward()
        assert loss.dtype == torch.float32 and hidden.grad is not None and weight.grad is not None
        gradients.append(torch.cat([hidden.grad.flatten(), weight.grad.flatten()]))
    exact, theirs, ours = gradients
    assert float((ours - exact).norm()) <= 1.5 * float((theirs - exact).norm()) < 0.02 * float(exact.norm())


def test_a_translators_loss_is_that_of_its_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = translator(tiny())
    batch = make_batch(texts([11, 3, 37], SRC_VOCAB), texts([5, 2, 7], TGT_VOCAB, seed=2))
    expected = F.cross_entropy(model(batch), batch.targets, reduction="sum", label_smoothing=0.1)
    for size in (1 << 23, 3 * TGT_VOCAB):
        monkeypatch.setattr(cross_entropy, "CHUNK", size)
        torch.testing.assert_close(model.loss(batch, 0.1), expected, rtol=1e-12, atol=0)
