"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), written out and as torch's fused kernels.

All compute softmax(q k^T / sqrt(K)) v, and give zeros with finite gradients to a query that may read nothing.

Letters in shapes: B rows, H heads, T queries, S keys, K head width.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

Backend = Literal["auto", "naive", "sdpa"]
LONGEST_PLAIN = {torch.float32: 64, torch.bfloat16: 160}
"""Keys up to which plain products are faster on a CPU than torch's fused kernel, by type."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, is_causal: bool, dropout: float, backend: Backend
) -> Tensor:
    """(B, H, T, K) from queries (B, H, T, K) and keys and values (B, H, S, K).

    allowed: bool, broadcast to (B, H, T, S), True = may attend; None = all. is_causal: the lower triangle, T == S,
    `allowed` None. dropout: on the weights, 0 outside training. auto: `_fastest` on a CPU, sdpa on a GPU.
    """
    kernel = backend if backend in ("naive", "sdpa") or q.device.type != "cpu" else _fastest(q, k, dropout)
    if kernel == "naive":
        return naive_attention(q, k, v, allowed, is_causal, dropout)[0]
    if kernel == "plain":
        with torch.autocast("cpu", enabled=False):
            y: Tensor = _PlainAttention.apply(q, k, v, allowed, is_causal)  # type: ignore[no-untyped-call]
        return y
    if allowed is not None and q.is_cuda:
        # cuDNN's backward has given NaN with a mask (pytorch issue 196678), and promises nothing for empty rows.
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout, is_causal=is_causal)


def _fastest(q: Tensor, k: Tensor, dropout: float) -> Literal["naive", "plain", "sdpa"]:
    """On a CPU. torch's fused kernel has no dropout there and falls back slowly. For short rows, forwards and
    backwards, it took 1.1 to 1.5 times as long as `_PlainAttention` in float32 (8 to 64 keys), and 2 to 10 times in
    bf16 (128 to 16). For long ones it is better, for its memory grows with the length and not with its square."""
    if dropout > 0:
        return "naive"
    if torch.compiler.is_exporting():  # for any length
        return "sdpa"
    if k.shape[2] > LONGEST_PLAIN.get(q.dtype, 0):
        return "sdpa"
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return "plain"
    return "naive" if q.dtype == torch.bfloat16 else "sdpa"


def naive_attention(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, is_causal: bool, dropout: float
) -> tuple[Tensor, Tensor]:
    """The same from plain matrix products: (output (B, H, T, K), weights (B, H, T, S) before dropout)."""
    if is_causal:
        allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    with nullcontext() if q.is_meta else torch.autocast(q.device.type, enabled=False):  # there is none for meta
        wide = _score_type(q)
        scores = (q.to(wide) * q.shape[-1] ** -0.5) @ k.to(wide).transpose(-1, -2)
    if allowed is None:
        weights = scores.softmax(-1)
    else:
        # Two fills: the first keeps an empty row finite (uniform, where -inf would give NaN), the second empties it.
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).masked_fill(~allowed, 0.0)
    return F.dropout(weights, dropout).to(v.dtype) @ v, weights


def _score_type(q: Tensor) -> torch.dtype:
    """Float32 at least. Scores of about 100, rounded to bf16, are off by 1/4, and so are the logarithms of the weights;
    fused kernels keep them in float32 too."""
    return torch.promote_types(q.dtype, torch.float32)


class _PlainAttention(torch.autograd.Function):
    """`naive_attention` without dropout, its gradient written out: in fewer passes than autograd would make."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, is_causal: bool) -> Tensor:
        shape_BHTS = (*q.shape[:3], k.shape[2])
        q, k, v = (x.flatten(0, 1).contiguous() for x in (q, k, v))
        wide = _score_type(q)
        lowest = torch.finfo(wide).min
        start, beta = q.new_empty(1, 1, 1, dtype=wide), 0
        if is_causal:
            start, beta = q.new_full(shape_BHTS[2:], lowest, dtype=wide).triu_(1), 1
        scores = torch.baddbmm(start, q.to(wide), k.to(wide).transpose(1, 2), beta=beta, alpha=q.shape[2] ** -0.5)
        if allowed is None:
            weights = scores.softmax(-1)
        else:  # two fills, as in `naive_attention`
            blocked = ~allowed
            scores.view(shape_BHTS).masked_fill_(blocked, lowest)
            weights = scores.softmax(-1)
            weights.view(shape_BHTS).masked_fill_(blocked, 0.0)
        weights = weights.to(v.dtype)
        ctx.save_for_backward(q, k, v, weights)
        ctx.n_heads = shape_BHTS[1]
        return torch.unflatten(weights @ v, 0, (-1, ctx.n_heads))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        dy = dy.flatten(0, 1)
        wide = _score_type(q)
        d_weights, of = (dy @ v.transpose(1, 2)).to(wide), weights.to(wide)
        d_scores = torch._softmax_backward_data(d_weights, of, -1, wide).to(q.dtype)
        unused, scale = q.new_empty(1, 1, 1), q.shape[2] ** -0.5
        dq = torch.baddbmm(unused, d_scores, k, beta=0, alpha=scale)
        dk = torch.baddbmm(unused, d_scores.transpose(1, 2), q, beta=0, alpha=scale)
        dv = weights.transpose(1, 2) @ dy
        return (*(torch.unflatten(x, 0, (-1, ctx.n_heads)) for x in (dq, dk, dv)), None, None)
