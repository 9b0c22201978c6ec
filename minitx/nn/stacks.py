"""Encoder and decoder: positions, layers and the last norm. Masks and rotations are made once for all layers.

Letters in shapes: B rows, T target length, S source length, D model width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from minitx.config import TransformerConfig
from minitx.nn.attention import MultiHeadAttention
from minitx.nn.blocks import DecoderLayer, EncoderLayer, shrink_residuals
from minitx.nn.cache import DecoderCache
from minitx.nn.dropout import Dropout
from minitx.nn.packing import Packing
from minitx.nn.positions import Positions


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

    def packed(self, tokens: Tensor, packing: Packing, first_only: bool = False) -> Tensor:
        """(1, N, D) -> (1, N, D), or (B, 1, D) with first_only: the same of packed texts."""
        x = self.dropout(self.positions.embed(tokens, packing=packing))
        rotation = self.positions.rotation(packing.longest, packing=packing)
        mask = self.attentions()[0].reach.packed(packing, packing)
        for layer in self._layers():  # with first_only too: first tokens alone would need offsets of their own
            x = layer(x, mask, rotation)
        y: Tensor = self.norm(packing.first(x) if first_only else x)
        return y

    @property
    def packs(self) -> bool:
        """Whether packed texts are taken at present."""
        return all(attention.packs for attention in self.attentions())

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

    def packed(self, tokens: Tensor, memory: Tensor, packing: Packing, memory_packing: Packing) -> Tensor:
        """(1, N, D) and memory (1, M, D) -> (1, N, D): the same of packed texts."""
        x = self.dropout(self.positions.embed(tokens, packing=packing))
        rotation = self.positions.rotation(packing.longest, packing=packing)
        mask = self.attentions()[0].reach.packed(packing, packing)
        memory_mask = self.cross_attentions()[0].reach.packed(packing, memory_packing)
        for layer in self._layers():
            x = layer(x, memory, mask, memory_mask, rotation)
        y: Tensor = self.norm(x)
        return y

    @property
    def packs(self) -> bool:
        """Whether packed texts are taken at present."""
        return all(attention.packs for attention in (*self.attentions(), *self.cross_attentions()))

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
