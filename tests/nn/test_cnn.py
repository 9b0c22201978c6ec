"""The convolutional encoder against torch's own convolution, and what one position can see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.config import CnnConfig
from minitx.nn.baselines.cnn import ConvEncoder, ConvLayer

D, C, LENGTHS = 7, 11, (13, 3, 1)
VARIANTS: list[Any] = [
    pytest.param({}, id="default"),
    pytest.param({"dilation": 2, "kernel": 5, "activation": "gelu"}, id="dilated-gelu"),
    pytest.param({"kernel": 1, "n_layers": 1}, id="kernel-1"),
]


def encoder(**changes: Any) -> ConvEncoder:
    """In float64, every weight random, biases and norms too."""
    torch.manual_seed(0)
    config = CnnConfig(**{"d_model": D, "channels": C, "dropout": 0.0, **changes})
    made = ConvEncoder(config).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def rows() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(length, D, dtype=torch.float64) for length in LENGTHS]


def by_torch(made: ConvEncoder, x_SD: Tensor) -> Tensor:
    """One text by itself, through torch's layers with the same weights."""
    x_1DS = x_SD.T[None] * D**0.5
    for layer in made.layers:
        assert isinstance(layer, ConvLayer)
        conv = nn.Conv1d(D, C, layer.kernel, padding="same", dilation=layer.dilation, dtype=torch.float64)
        back = nn.Conv1d(C, D, 1, dtype=torch.float64)
        with torch.no_grad():
            conv.weight.copy_(layer.weight.permute(0, 2, 1))
            conv.bias.copy_(layer.bias)  # type: ignore[union-attr]
            back.weight.copy_(layer.out.weight[:, :, None])
            back.bias.copy_(layer.out.bias)  # type: ignore[union-attr]
        h = F.layer_norm(x_1DS.transpose(1, 2), (D,), layer.norm.weight, layer.norm.bias).transpose(1, 2)
        x_1DS = x_1DS + back(layer.activation(conv(h)))
    return F.layer_norm(x_1DS[0].T, (D,), made.norm.weight, made.norm.bias)


def padded(texts: list[Tensor], extra: int = 0) -> tuple[Tensor, Tensor]:
    """(states, mask): on the right, with something that is not zero."""
    width = max(map(len, texts)) + extra
    x = torch.full((len(texts), width, D), 3.7, dtype=torch.float64)
    for row, text in zip(x, texts, strict=True):
        row[: len(text)] = text
    return x, torch.tensor([[i < len(text) for i in range(width)] for text in texts])


@pytest.mark.parametrize("changes", VARIANTS)
def test_each_row_is_what_torch_makes_of_it_alone(changes: dict[str, Any]) -> None:
    made = encoder(**changes)
    texts = rows()
    for extra in (0, 5):
        y = made(*padded(texts, extra))
        for row, text in zip(y, texts, strict=True):
            torch.testing.assert_close(row[: len(text)], by_torch(made, text), rtol=0, atol=1e-11)
    torch.testing.assert_close(made(texts[0][None])[0], by_torch(made, texts[0]), rtol=0, atol=1e-11)


def test_the_order_of_a_batch_changes_nothing() -> None:
    made = encoder(dilation=2)
    x, mask = padded(rows())
    torch.testing.assert_close(made(x.flip(0), mask.flip(0)).flip(0), made(x, mask), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_the_receptive_field_is_the_one_that_is_told(dilation: int, kernel: int, n_layers: int) -> None:
    """Positions whose gradient is not zero: as many, and the position itself in the middle."""
    changes = {"dilation": dilation, "kernel": kernel, "n_layers": n_layers, "activation": "gelu"}
    field = CnnConfig(**changes).receptive_field
    middle = field // 2 + 2
    x = torch.randn(1, field + 4, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    (gradient,) = torch.autograd.grad(encoder(**changes)(x)[0, middle, 0], x)
    seen = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
    assert seen == list(range(2, field + 2)) and len(seen) == field


def test_training_drops_and_evaluation_does_not() -> None:
    made = encoder(dropout=0.3)
    x, mask = padded(rows())
    assert not torch.equal(made(x, mask), made(x, mask))
    made.eval()
    assert torch.equal(made(x, mask), made(x, mask))
