"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), written out and as torch's fused kernels.

All compute softmax(q k^T / sqrt(K)) v. Those of padded texts give zeros with finite gradients to a query that may read
nothing; in packed texts there is none, for no text is empty.

Letters in shapes: B rows, H heads, T queries, S keys, K head width; N queries and M keys of packed texts.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn

from minitx.nn.packing import PackedReach

Backend = Literal["auto", "naive", "sdpa", "varlen"]
LONGEST_NAIVE = 512
"""Keys up to which bf16 on the CPU is computed plainly."""


def attend(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, is_causal: bool, dropout: float, backend: Backend
) -> Tensor:
    """(B, H, T, K) from queries (B, H, T, K) and keys and values (B, H, S, K).

    allowed: bool, broadcast to (B, H, T, S), True = may attend; None = all. is_causal: the lower triangle, T == S,
    `allowed` None. dropout: on the weights, 0 outside training. auto: see `_naive_is_faster`. varlen: as auto, for
    what comes here is padded.
    """
    if backend == "naive" or (backend != "sdpa" and _naive_is_faster(q, k, dropout)):
        return naive_attention(q, k, v, allowed, is_causal, dropout)[0]
    if allowed is not None and q.is_cuda:
        # cuDNN's backward has given NaN with a mask (pytorch issue 196678), and promises nothing for empty rows.
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout, is_causal=is_causal)


def _naive_is_faster(q: Tensor, k: Tensor, dropout: float) -> bool:
    """On the CPU only: for dropout, which torch's fused kernel does not have there and falls back slowly; and in bf16,
    whose fused kernel took 2 to 8 times as long at 8 to 256 keys (in float32 it took 0.3 to 0.8 times). Long rows keep
    the fused kernel, for its memory grows with the length and not with its square."""
    if q.device.type != "cpu":
        return False
    return dropout > 0 or (q.dtype == torch.bfloat16 and k.shape[2] <= LONGEST_NAIVE)


def attend_packed(q_1HNK: Tensor, k_1HMK: Tensor, v_1HMK: Tensor, reach: PackedReach) -> Tensor:
    """(1, H, N, K) from packed texts: each query reads within its own text. CUDA, 16 bits, no dropout."""
    q_NHK, k_MHK, v_MHK = (x[0].transpose(0, 1) for x in (q_1HNK, k_1HMK, v_1HMK))
    queries, keys = reach.queries, reach.keys
    y_NHK = varlen_attn(
        q_NHK, k_MHK, v_MHK, queries.offsets, keys.offsets, queries.longest, keys.longest, window_size=reach.window
    )
    assert isinstance(y_NHK, Tensor), "the log-sum-exp was not asked for"
    return y_NHK.transpose(0, 1)[None]


def naive_attention(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, is_causal: bool, dropout: float
) -> tuple[Tensor, Tensor]:
    """The same from plain matrix products: (output (B, H, T, K), weights (B, H, T, S) before dropout)."""
    if is_causal:
        allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if allowed is None:
        weights = scores.softmax(-1)
    else:
        # Two fills: the first keeps an empty row finite (uniform, where -inf would give NaN), the second empties it.
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).masked_fill(~allowed, 0.0)
    return F.dropout(weights, dropout).to(v.dtype) @ v, weights
