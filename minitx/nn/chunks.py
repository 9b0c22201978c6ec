"""A text as several rows, one for each chunk of it, and back.

Letters in shapes: B rows, S length, K chunk length, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.batch import Batch


@dataclass(frozen=True, eq=False)
class SourceRows:
    """What an encoder reads of a batch: (B, S), or with chunks (B * chunks, K)."""

    ids: Tensor
    mask: Tensor | None
    """bool, True = real token; None = none is padded."""
    sentence: Tensor | None

    @property
    def real(self) -> Tensor:
        """The mask, always."""
        return torch.ones_like(self.ids, dtype=torch.bool) if self.mask is None else self.mask


def source_rows(batch: Batch, chunk: int | None) -> SourceRows:
    """The texts of a batch, those longer than a chunk cut. chunk: None = all whole."""
    rows = SourceRows(batch.src, batch.src_mask, batch.sentence)
    if chunk is None or batch.src.shape[1] <= chunk:
        return rows
    sentence = None if batch.sentence is None else folded(batch.sentence, chunk)
    return SourceRows(folded(batch.src, chunk), folded(rows.real, chunk), sentence)


def folded(x_BS: Tensor, chunk: int) -> Tensor:
    """(B, S) -> (B * chunks, K): a row's chunks one after another, the last filled up with zeros (PAD, False)."""
    n_rows, length = x_BS.shape
    n_chunks = -(-length // chunk)
    return F.pad(x_BS, (0, n_chunks * chunk - length)).view(n_rows * n_chunks, chunk)


def unfolded(states: Tensor, n_rows: int, length: int) -> Tensor:
    """(B * chunks, K, D) -> (B, S, D), the filling left out."""
    return states.reshape(n_rows, -1, states.shape[-1])[:, :length]
