"""The matrix product by oneDNN is F.linear to rounding, and is used exactly where it was asked for and fits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.nn import layers as linear
from minitx.nn.layers import FEWEST_ROWS, product, use_onednn, xavier_linear

N_IN, N_OUT = 53, 37


@pytest.fixture
def onednn() -> Iterator[None]:
    if not use_onednn(True):
        pytest.skip("this torch has no oneDNN")
    yield
    use_onednn(False)


@pytest.fixture
def calls(onednn: None, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what oneDNN was given."""
    seen: list[tuple[int, ...]] = []
    real = linear._onednn

    def spy(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(tuple(x.shape))
        return real(x, weight, bias)

    monkeypatch.setattr(linear, "_onednn", spy)
    return seen


def outcome(x: Tensor, weight: Tensor, bias: Tensor | None, by: object) -> list[Tensor]:
    """Output and gradients of a product whose output is weighted unevenly."""
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias) if t is not None]
    y = by(*leaves)  # type: ignore[operator]
    (y * torch.linspace(-1, 2, y.numel()).view(y.shape)).sum().backward()
    return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("shape", [(FEWEST_ROWS, N_IN), (17, 19, N_IN), (2, 3, 47, N_IN)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_equals_f_linear(calls: list[object], shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(N_OUT, N_IN)
    bias = torch.randn(N_OUT) if with_bias else None
    ours, torchs = outcome(x, weight, bias, product), outcome(x, weight, bias, F.linear)
    assert len(ours) == 3 + with_bias and len(calls) == 2  # forward, and the gradient of x
    for a, b in zip(ours, torchs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_a_slice_of_a_weight_and_a_transposed_input(calls: list[object]) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(3 * N_OUT, N_IN)[N_OUT : 2 * N_OUT], torch.randn(11, N_IN, 29).transpose(1, 2)
    for a, b in zip(outcome(x, weight, None, product), outcome(x, weight, None, F.linear), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    assert calls


def test_an_input_without_gradient_costs_no_product(calls: list[object]) -> None:
    layer = xavier_linear(N_IN, N_OUT)
    layer(torch.randn(FEWEST_ROWS, N_IN)).sum().backward()
    assert len(calls) == 1 and layer.weight.grad is not None


@pytest.mark.parametrize("case", ["float64", "few rows", "autocast", "off"])
def test_falls_back(calls: list[object], case: str) -> None:
    x, weight = torch.randn(FEWEST_ROWS, N_IN), torch.randn(N_OUT, N_IN)
    if case == "float64":
        assert product(x.double(), weight.double()).dtype == torch.float64
    elif case == "few rows":
        product(x[1:], weight)
    elif case == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert product(x, weight).dtype == torch.bfloat16
    else:
        use_onednn(False)
        product(x, weight)
    assert calls == []
