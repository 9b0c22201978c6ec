"""What every model of one text begins with: noise, token table, encoder.

Letters in shapes: B rows, S source length, D model width.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from minitx.batch import Batch
from minitx.config import NetConfig
from minitx.nn.chunks import source_rows, unfolded
from minitx.nn.encoders import make_encoder, make_token_table
from minitx.nn.packing import source_packing
from minitx.nn.stacks import Encoder
from minitx.nn.token_noise import TokenNoise

READER = ("src_tokens.", "encoder.")
"""Beginnings of the names of its weights, in every model that is one."""


class TextReader(nn.Module):
    """A text -> the state of each token. Models differ in the encoder (and the token table that goes with it) alone."""

    def __init__(self, config: NetConfig, src_vocab: int, max_length: int) -> None:
        super().__init__()
        self.chunk = config.chunk
        self.noise = TokenNoise(config.token_dropout, config.word_dropout)
        self.src_tokens = make_token_table(config, src_vocab)
        self.encoder = make_encoder(config, max_length)

    def states(self, batch: Batch, first_only: bool = False) -> Tensor:
        """(B, S, D): the encoder's state of each token, of each chunk by itself; (B, 1, D) with first_only."""
        ids = self.noise(batch.src)
        packing = source_packing(batch)
        if packing is not None and isinstance(self.encoder, Encoder) and self.encoder.packs:
            packed = self.encoder.packed(self.src_tokens(packing.pack(ids)), packing, first_only)
            return packed if first_only else packing.unpack(packed)
        rows = source_rows(replace(batch, src=ids), self.chunk)
        states: Tensor = self.encoder(self.src_tokens(rows.ids), rows.mask, rows.sentence, first_only)
        return states if rows.ids is ids else unfolded(states, *ids.shape)
