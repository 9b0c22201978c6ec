"""Padded rows <-> real tokens alone, one text after another in a single row: what layers work on under backend varlen.

    (B, S)  a b c .      index    0 1 2 4 6 7 8 9      (1, N)  a b c d e f g h
            d . . .  <-> offsets  0   3 4     8
            e f g h              (here S = 4; index counts in the flattened B * S)

Nothing here waits for the device: N, B and S are known from shapes.

Letters in shapes: B rows, S padded length, N real tokens, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.batch import Batch


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the real tokens of one side of a batch stand."""

    index: Tensor
    """(N,) int64 places in the flattened (B * S), ascending."""
    offsets: Tensor
    """(B + 1,) int32: text b is tokens offsets[b] to offsets[b + 1] of the N."""
    n_rows: int
    longest: int
    """S, which no text is longer than."""

    @property
    def n_tokens(self) -> int:
        return int(self.index.shape[0])

    @property
    def place(self) -> Tensor:
        """(N,) int64 position of each token within its text."""
        return self.index % self.longest

    def pack(self, x: Tensor) -> Tensor:
        """(B, S, ...) -> (1, N, ...)."""
        return x.flatten(0, 1).index_select(0, self.index)[None]

    def unpack(self, x_1ND: Tensor) -> Tensor:
        """(1, N, D) -> (B, S, D), zeros where there is no token."""
        blank = x_1ND.new_zeros(self.n_rows * self.longest, x_1ND.shape[2])
        return torch.unflatten(blank.index_copy(0, self.index, x_1ND[0]), 0, (self.n_rows, self.longest))

    def first(self, x_1ND: Tensor) -> Tensor:
        """(1, N, D) -> (B, 1, D): the first token of each text, none of which may be empty."""
        return x_1ND[0].index_select(0, self.offsets[:-1])[:, None]


@dataclass(frozen=True, eq=False)
class PackedSpan:
    """Each query reads its own text's keys, and of those the ones that the window leaves."""

    queries: Packing
    keys: Packing
    window: tuple[int, int] = (-1, -1)
    """Positions that may be read before and after the query's own; -1 = all."""


def source_packing(batch: Batch) -> Packing | None:
    """That of the source; None where the batch does not bring it."""
    if batch.src_index is None or batch.src_offsets is None:
        return None
    return Packing(batch.src_index, batch.src_offsets, *batch.src.shape)


def target_packing(batch: Batch) -> Packing | None:
    """That of the decoder's tokens, in the order of `targets`; None where the batch does not bring it."""
    if batch.tgt_in is None or batch.target_index is None or batch.tgt_offsets is None:
        return None
    return Packing(batch.target_index, batch.tgt_offsets, *batch.tgt_in.shape)
