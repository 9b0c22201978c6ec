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
from minitx.nn.attention.cache import DecoderCache, KeyValueCache
from minitx.nn.attention.masks import Mask, Span
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.attention.positions import Positions, Rotation
from minitx.nn.attention.projections import Reduction
from minitx.nn.layers import Dropout, xavier_linear


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


class Encoder(nn.Module):
    """Embedded source tokens -> their states."""

    def __init__(self, config: TransformerConfig, max_length: int) -> None:
        super().__init__()
        self.positions = Positions(config.position, config.d_model, config.k_dim, max_length)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model) if config.norm == "pre" else nn.Identity()
        if config.norm == "pre":
            shrink_residuals(self._layers())

    def forward(
        self,
        tokens: Tensor,
        key_mask: Tensor | None = None,
        sentence: Tensor | None = None,
        first_only: bool = False,
    ) -> Tensor:
        """(B, S, D) -> (B, S, D). key_mask: (B, S) bool, True = real token, None = none is padded; sentence: (B, S).

        first_only: the state of the first position alone, (B, 1, D). The last layer then computes nothing else: of the
        other positions it needs keys and values. Global spans only.
        """
        n_rows, length = tokens.shape[:2]
        x = self.dropout(self.positions.embed(tokens))
        rotation = self.positions.rotation(length)
        mask = self.attentions()[0].mask(n_rows, length, length, x, key_mask, sentence)
        *layers, last = self._layers()
        for layer in layers:
            x = layer(x, mask, rotation)
        whole = not first_only or last.attention.recorder is not None  # a recorded map shows every query
        x = last(x, mask, rotation, None if whole else 1)
        y: Tensor = self.norm(x[:, :1] if first_only else x)
        return y

    def attentions(self) -> list[MultiHeadAttention]:
        """The self-attention of each layer."""
        return [layer.attention for layer in self._layers()]

    def _layers(self) -> list[EncoderLayer]:
        return [cast(EncoderLayer, layer) for layer in self.layers]


class Decoder(nn.Module):
    """Embedded target tokens and the encoder's memory -> hidden states, each of which saw no later target."""

    def __init__(self, config: TransformerConfig, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.positions = Positions(config.position, config.d_model, config.k_dim, max_length)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.d_model) if config.norm == "pre" else nn.Identity()
        if config.norm == "pre":
            shrink_residuals(self._layers())

    def forward(
        self, tokens: Tensor, memory: Tensor, src_mask: Tensor | None = None, cache: DecoderCache | None = None
    ) -> Tensor:
        """(B, T, D) and memory (M, S, D) -> (B, T, D); see `TextDecoder`."""
        n_rows, length = tokens.shape[:2]
        seen = 0 if cache is None else cache.length
        x = self.dropout(self.positions.embed(tokens, seen))
        rotation = self.positions.rotation(length, seen)
        mask = self.attentions()[0].mask(n_rows, length, seen + length, x)
        n_memories, n_keys = memory.shape[:2]
        n_queries = n_rows * length // n_memories
        memory_mask = self.cross_attentions()[0].mask(n_memories, n_queries, n_keys, x, src_mask)
        for i, layer in enumerate(self._layers()):
            own, cross = (None, None) if cache is None else (cache.own[i], cache.cross[i])
            x = layer(x, memory, mask, memory_mask, rotation, own, cross)
        y: Tensor = self.norm(x)
        return y

    def new_cache(self, memory: Tensor) -> DecoderCache:
        """An empty cache that holds the memory's keys and values already."""
        cache = DecoderCache(len(self.layers))
        with torch.no_grad():
            for kept, attention in zip(cache.cross, self.cross_attentions(), strict=True):
                kept.append(*attention.project.keys_values(memory))
        return cache

    def attentions(self) -> list[MultiHeadAttention]:
        """The self-attention of each layer."""
        return [layer.attention for layer in self._layers()]

    def cross_attentions(self) -> list[MultiHeadAttention]:
        """The attention to the memory of each layer."""
        return [layer.cross_attention for layer in self._layers()]

    def _layers(self) -> list[DecoderLayer]:
        return [cast(DecoderLayer, layer) for layer in self.layers]
