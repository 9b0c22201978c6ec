"""The layers of encoder and decoder: attention and feed-forward, each inside a residual connection with layer norm.

| weights                                  | start                                                                |
|------------------------------------------|----------------------------------------------------------------------|
| q, k, v, attention output, feed-forward  | Xavier uniform, each of q, k, v (and kv_rank) as a matrix of its own |
| last matrix of each sub-layer, pre-norm  | the same, times n^-1/2 for the n sub-layers of the stack             |
| biases; norms                            | 0; weight 1, bias 0                                                  |
| token embeddings                         | normal, deviation D^-1/2 (scaled by D^1/2 when read)                 |
| learned positions                        | normal, deviation 2^-1/2                                             |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from minitx.config import TransformerConfig
from minitx.nn.attention import MultiHeadAttention
from minitx.nn.cache import KeyValueCache
from minitx.nn.dropout import Dropout
from minitx.nn.linear import xavier_linear
from minitx.nn.masks import Mask, Span
from minitx.nn.positions import Rotation
from minitx.nn.reduced import Reduction


class Residual(nn.Module):
    """x + sublayer(norm(x)) for pre-norm; norm(x + sublayer(x)) for post-norm, as in the 2017 paper; dropout inside."""

    def __init__(self, d_model: int, norm: Literal["pre", "post"], dropout: float) -> None:
        super().__init__()
        self.is_pre = norm == "pre"
        self.norm = nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, S, D) -> (B, T, D), the sublayer's own T: its result stands for the first T positions of x."""
        change = sublayer(self.norm(x) if self.is_pre else x)
        y = self.dropout.add(x[:, : change.shape[1]], change)
        return y if self.is_pre else cast(Tensor, self.norm(y))


class FeedForward(nn.Module):
    """Two matrices with an activation between, at every position alike (section 3.3)."""

    def __init__(self, d_model: int, d_ff: int, activation: Literal["relu", "gelu"]) -> None:
        super().__init__()
        self.widen = xavier_linear(d_model, d_ff)
        self.activation = nn.ReLU() if activation == "relu" else nn.GELU()
        self.output = xavier_linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.activation(self.widen(x)))
        return y


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention = make_attention(config, config.attention.span)
        self.feed_forward = FeedForward(config.d_model, config.ff_dim, config.activation)
        self.around_attention = Residual(config.d_model, config.norm, config.dropout)
        self.around_feed_forward = Residual(config.d_model, config.norm, config.dropout)

    def forward(self, x: Tensor, mask: Mask, rotation: Rotation | None = None, n_queries: int | None = None) -> Tensor:
        """(B, S, D) -> (B, S, D), or (B, n_queries, D): the first positions alone, which still read all."""
        x = self.around_attention(x, lambda h: self.attention(h, mask=mask, rotation=rotation, n_queries=n_queries))
        y: Tensor = self.around_feed_forward(x, self.feed_forward)
        return y

    def sublayers(self) -> Sequence[MultiHeadAttention | FeedForward]:
        return self.attention, self.feed_forward


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's memory, then feed-forward.

    A window span holds for the self-attention here too. Sentence spans do not: a target has no sentence numbers while
    it is being written. Cross-attention reads the whole memory.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        span: Span = "window" if config.attention.span == "window" else "global"
        self.attention = make_attention(config, span, causal=True)
        self.cross_attention = make_attention(config, "global")
        self.feed_forward = FeedForward(config.d_model, config.ff_dim, config.activation)
        self.around_attention = Residual(config.d_model, config.norm, config.dropout)
        self.around_cross_attention = Residual(config.d_model, config.norm, config.dropout)
        self.around_feed_forward = Residual(config.d_model, config.norm, config.dropout)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        mask: Mask,
        memory_mask: Mask,
        rotation: Rotation | None = None,
        cache: KeyValueCache | None = None,
        cross_cache: KeyValueCache | None = None,
    ) -> Tensor:
        """(B, T, D) and memory (B, S, D) -> (B, T, D)."""
        x = self.around_attention(x, lambda h: self.attention(h, cache=cache, mask=mask, rotation=rotation))
        x = self.around_cross_attention(
            x, lambda h: self.cross_attention(h, memory, cache=cross_cache, mask=memory_mask)
        )
        y: Tensor = self.around_feed_forward(x, self.feed_forward)
        return y

    def sublayers(self) -> Sequence[MultiHeadAttention | FeedForward]:
        return self.attention, self.cross_attention, self.feed_forward


def make_attention(config: TransformerConfig, span: Span, causal: bool = False) -> MultiHeadAttention:
    """The attention that a model configuration asks for."""
    options = config.attention
    return MultiHeadAttention(
        config.d_model,
        config.n_heads,
        config.k_dim,
        heads=options.heads,
        span=span,
        window=options.window,
        causal=causal,
        dropout=options.dropout,
        backend=options.backend,
        reduction=Reduction(**options.left_out) if options.left_out else None,
    )


def shrink_residuals(layers: Iterable[EncoderLayer | DecoderLayer]) -> None:
    """Divide the last matrix of each sub-layer by the root of their number, so that their sum starts at unit scale.

    For pre-norm stacks, whose residual stream adds up unnormalised (GPT-2's initialisation does the same).
    """
    sublayers = [sublayer for layer in layers for sublayer in layer.sublayers()]
    with torch.no_grad():
        for sublayer in sublayers:
            sublayer.output.weight.mul_(len(sublayers) ** -0.5)
