"""A text as several rows, one for each chunk of it, and back.

Letters in shapes: B rows, S length, K chunk length, D model width.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def folded(x_BS: Tensor, chunk: int) -> Tensor:
    """(B, S) -> (B * chunks, K): a row's chunks one after another, the last filled up with zeros (PAD, False)."""
    n_rows, length = x_BS.shape
    n_chunks = -(-length // chunk)
    return F.pad(x_BS, (0, n_chunks * chunk - length)).view(n_rows * n_chunks, chunk)


def unfolded(states: Tensor, n_rows: int, length: int) -> Tensor:
    """(B * chunks, K, D) -> (B, S, D), the filling left out."""
    return states.reshape(n_rows, -1, states.shape[-1])[:, :length]
