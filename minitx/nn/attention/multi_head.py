"""Multi-head attention (Vaswani et al. 2017, section 3.2), the part this project is about.

    x -> q, k, v of every head -> softmax(q k^T / sqrt(K)) v -> heads side by side -> output projection

The one decision worth knowing: heads (split, grouped, or with weights left out), span (global, window, sentence) and
kernel (naive, sdpa) are independent choices that meet only in `forward`; split and grouped heads give the same
result, and so do all kernels.

Letters in shapes: B rows, T queries, S keys, D model width, H heads, K head width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from minitx.nn.attention.cache import KeyValueCache
from minitx.nn.attention.kernels import Backend, attend, naive_attention
from minitx.nn.attention.masks import AttentionSpan, Mask, Span
from minitx.nn.attention.positions import Rotation, rotate
from minitx.nn.attention.projections import (
    GroupedProjection,
    Projection,
    ReducedProjection,
    Reduction,
    SplitProjection,
    spread,
)
from minitx.nn.attention.record import AttentionRecord, Recorder
from minitx.nn.layers import xavier_linear


class MultiHeadAttention(nn.Module):
    """Self-attention, or cross-attention when it is called with a memory.

    d_model: D. head_dim: K, any width; None = D / H, a ValueError if that is not whole. heads, span, window, causal,
    backend: see `AttentionConfig`. dropout: on the attention weights, in training only. bias: in all projections.
    reduction: what the projections leave out; None = nothing. A ValueError with grouped heads.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        head_dim: int | None = None,
        *,
        heads: Literal["split", "grouped"] = "split",
        span: Span = "global",
        window: int = 8,
        causal: bool = False,
        dropout: float = 0.0,
        backend: Backend = "auto",
        bias: bool = True,
        reduction: Reduction | None = None,
    ) -> None:
        super().__init__()
        if head_dim is None and d_model % n_heads:
            raise ValueError(f"d_model ({d_model}) must be divisible by n_heads ({n_heads}) or head_dim be given")
        self.d_model, self.n_heads, self.head_dim = d_model, n_heads, head_dim or d_model // n_heads
        self.heads, self.attention_span, self.dropout, self.backend = (
            heads,
            AttentionSpan(span, window, causal),
            dropout,
            backend,
        )
        self.reduction, self.project = reduction, self._projection(reduction, bias)
        self.output = xavier_linear(n_heads * self.head_dim, d_model, bias)
        self.gate_H: Tensor | None
        self.register_buffer("gate_H", None, persistent=False)
        self.recorder: Recorder | None = None

    def _projection(self, reduction: Reduction | None, bias: bool) -> Projection:
        if reduction is None:
            kind = SplitProjection if self.heads == "split" else GroupedProjection
            return kind(self.d_model, self.n_heads, self.head_dim, bias)
        if self.heads == "grouped":
            raise ValueError(f"grouped heads have all their weights; {reduction} needs heads (grouped) to be split")
        return ReducedProjection(self.d_model, self.n_heads, self.head_dim, reduction, bias)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BSD: Tensor | None = None,
        key_mask: Tensor | None = None,
        sentence: Tensor | None = None,
        cache: KeyValueCache | None = None,
        *,
        mask: Mask | None = None,
        rotation: Rotation | None = None,
        n_queries: int | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D), or (B, n_queries, D).

        memory_BSD: cross-attention reads it; None = self-attention. A memory of fewer rows than x serves as many rows
        of x, one after another, with each of its own: the beams of one source text. key_mask: (B, S) bool, True = real
        key, None = none is padded. sentence: (B, S) sentence numbers, needed for span "sentence". cache: keys and
        values so far; x then holds the new positions only (self-attention), or the memory's are computed once
        (cross-attention). mask: from `self.mask`, by a caller who shares it between layers; then key_mask and sentence
        are not read. rotation: turns the queries and keys of self-attention. n_queries: only the first so many ask
        (self-attention of a global span, no cache). A query that may read nothing gets zeros from every head.
        """
        shape = x_BTD.shape
        if memory_BSD is not None and memory_BSD.shape[0] != shape[0]:
            x_BTD = x_BTD.reshape(memory_BSD.shape[0], -1, shape[2])  # positions mean nothing to cross-attention
        q, k, v = self._heads(x_BTD, memory_BSD, cache, rotation, n_queries)
        if mask is None:
            mask = self.mask(q.shape[0], q.shape[2], k.shape[2], q, key_mask, sentence)
        y_BHTK = self._attend(q, k, v, mask)
        if self.gate_H is not None:
            y_BHTK = y_BHTK * self.gate_H[..., None, None]
        y: Tensor = self.output(y_BHTK.transpose(1, 2).flatten(2))
        return y if y.shape[0] == shape[0] else y.reshape(shape)

    def mask(
        self,
        n_rows: int,
        n_queries: int,
        n_keys: int,
        like: Tensor,
        key_mask: Tensor | None = None,
        sentence: Tensor | None = None,
    ) -> Mask:
        """What this attention's span allows in one forward pass, on the device of `like`; see `AttentionSpan.mask`."""
        # A recorded map is dense, and an exported model's blocks would be those of one length.
        blocked = self.recorder is None and not torch.compiler.is_exporting()
        return self.attention_span.mask(
            n_rows, n_queries, n_keys, key_mask=key_mask, sentence=sentence, device=like.device, blocked=blocked
        )

    def set_gates(self, gate_H: Tensor | None) -> None:
        """Multiply each head's output by its gate before the output projection; None = no gates (all ones).

        gate_H: (H,), or (B, H) with gates of each row's own. A gate that requires a gradient receives one: the
        sensitivity of the loss to that head (arXiv 1905.10650).
        """
        if gate_H is not None and (gate_H.ndim not in (1, 2) or gate_H.shape[-1] != self.n_heads):
            n = self.n_heads
            raise ValueError(f"gates of shape {tuple(gate_H.shape)} must be ({n},), one per head, or (rows, {n})")
        self._buffers["gate_H"] = gate_H  # not setattr, which would turn an nn.Parameter into a weight of the model

    def _heads(
        self,
        x: Tensor,
        memory: Tensor | None,
        cache: KeyValueCache | None,
        rotation: Rotation | None,
        n_queries: int | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q of x, and k and v of everything that may be read: x or the memory, and what the cache holds."""
        if memory is not None:
            if self.attention_span.causal or self.attention_span.span != "global":
                raise ValueError(f"cross-attention reads the whole memory; its span cannot be {self.attention_span}")
            q = self.project.queries(x)
            if cache is None:
                return q, *self.project.keys_values(memory)
            return q, *(cache.read() if cache.length else cache.append(*self.project.keys_values(memory)))
        if n_queries is None:
            q, k, v = self.project.own(x)
        else:
            q, (k, v) = self.project.queries(x[:, :n_queries]), self.project.keys_values(x)
        if rotation is not None:
            q, k = rotate(q, rotation.first(n_queries)), rotate(k, rotation)
        return (q, k, v) if cache is None else (q, *cache.append(k, v))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        """(B, H, T, K) of every head's result, by the kernel that suits; records the weights while captured."""
        dropout = self.dropout if self.training else 0.0
        k, v = spread(k, self.n_heads), spread(v, self.n_heads)
        if mask.n_keys < k.shape[2]:
            k, v = k[:, :, -mask.n_keys :], v[:, :, -mask.n_keys :]
        if self.recorder is not None:
            y, weights = naive_attention(q, k, v, mask.allowed, mask.is_causal, dropout)
            self.recorder(AttentionRecord(weights, y, mask.n_readable(q.shape[2], q.device), v))
            return y
        if mask.blocks is None:
            return attend(q, k, v, mask.allowed, mask.is_causal, dropout, self.backend)
        cut = mask.blocks
        q, k, v = cut.cut_queries(q), cut.cut_keys(k), cut.cut_keys(v)
        return cut.join(attend(q, k, v, cut.allowed, False, dropout, self.backend))

    def extra_repr(self) -> str:
        sizes = f"n_heads={self.n_heads}, head_dim={self.head_dim}"
        return f"{sizes}, heads={self.heads}, {self.attention_span}, {self.backend}"
