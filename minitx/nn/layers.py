"""Linear layers, token tables and dropout: the small parts that every net is made of, with their fast CPU paths."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEWEST_ROWS = 256
"""Rows from which oneDNN's product pays; below them its fixed cost per call is the larger part."""


class Linear(nn.Linear):
    """nn.Linear by `product`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D_in) -> (..., D_out)."""
        return product(x, self.weight, self.bias)


def linear(weight: Tensor, bias: Tensor | None) -> Linear:
    """A linear layer with this weight (out, in) and bias (out,), and no random numbers drawn besides."""
    layer = Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


def xavier(n_out: int, n_in: int) -> Tensor:
    """(n_out, n_in), uniform with variance 2 / (n_in + n_out) (Glorot and Bengio 2010)."""
    bound = math.sqrt(6 / (n_in + n_out))
    return torch.empty(n_out, n_in).uniform_(-bound, bound)


def xavier_linear(n_in: int, n_out: int, bias: bool = True) -> Linear:
    """A linear layer with Xavier weights and zero biases."""
    return linear(xavier(n_out, n_in), torch.zeros(n_out) if bias else None)


def token_table(vocab: int, d_model: int) -> nn.Embedding:
    """Token embeddings (V, D), normal with deviation D^-1/2: read times sqrt(D), and fit to be an output projection."""
    table = nn.Embedding(vocab, d_model, device="meta")
    table.weight = nn.Parameter(_token_vectors(vocab, d_model))
    return table


def output_projection(vocab: int, d_model: int) -> Linear:
    """States (..., D) to logits (..., V), where no token table serves for it; initialised as one."""
    return linear(_token_vectors(vocab, d_model), None)


def _token_vectors(vocab: int, d_model: int) -> Tensor:
    vectors: Tensor = torch.randn(vocab, d_model) * d_model**-0.5
    return vectors


# ------------------------------------------------------------------------------------------------- matrix product


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, (..., D_in) -> (..., D_out): F.linear, or oneDNN where `use_onednn` said so and it fits."""
    fits = (
        _ProductSwitch.on
        and not torch.compiler.is_compiling()  # first, for a number of rows asked for would become the program's
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() >= FEWEST_ROWS * x.shape[-1]
    )
    if not fits or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    y: Tensor = _OneDNNProduct.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


class _ProductSwitch:
    on = False


def use_onednn(wanted: bool) -> bool:
    """From now on multiply float32 matrices on the CPU by oneDNN rather than the BLAS; returns whether it does."""
    there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    _ProductSwitch.on = wanted and there and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return _ProductSwitch.on


class _OneDNNProduct(torch.autograd.Function):
    """The output and the gradient of x by oneDNN; the gradient of a weight, whose inner axis is long, by the BLAS."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _onednn(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, _ = ctx.needs_input_grad
        dy_ND = dy.flatten(0, -2)
        return (
            _onednn(dy, weight.t(), None) if needs_x else None,
            dy_ND.t() @ x.flatten(0, -2) if needs_weight else None,
            dy_ND.sum(0) if ctx.has_bias else None,
        )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


LEVELS = 1 << 16


class _DropoutSwitch:
    fast = True


def use_fast_dropout(wanted: bool) -> None:
    """Whether the CPU draws as described above, or as torch does."""
    _DropoutSwitch.fast = wanted


class Dropout(nn.Module):
    """Dropout, alone or with the residual sum that follows it."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.rate):
            return x
        return x * keep_scale(x, self.rate) if _on_plain_cpu(x) else F.dropout(x, self.rate)

    def add(self, residual: Tensor, x: Tensor) -> Tensor:
        """residual + dropout(x)."""
        if not (self.training and self.rate):
            return residual + x
        if _on_plain_cpu(x):
            return torch.addcmul(residual, x, keep_scale(x, self.rate))
        return residual + F.dropout(x, self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def keep_scale(x: Tensor, rate: float) -> Tensor:
    """A tensor like x: 0 with probability `rate` (to 1/65536), else 1 / (1 - rate)."""
    cut = min(round(rate * LEVELS), LEVELS - 1)
    n = x.numel()
    draws = torch.empty(-(-n // 4), dtype=torch.int64, device=x.device).random_(-(1 << 63), None)
    keep = draws.view(torch.int16)[:n].view(x.shape) >= cut - LEVELS // 2
    return keep.to(x.dtype).mul_(LEVELS / (LEVELS - cut))


def _on_plain_cpu(x: Tensor) -> bool:
    return _DropoutSwitch.fast and x.device.type == "cpu" and not torch.compiler.is_compiling()
