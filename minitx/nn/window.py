"""A window of +-w positions computed in blocks: time and memory grow with T (w + block), not with T squared.

Cut the queries into blocks of C; block b needs only the keys from `before` ahead of it to `after` behind it. Each block
becomes a row of its own in an ordinary, small attention, so every kernel serves here unchanged:

    keys      0 1 2 3 4 5 6 7 8 9 ...
    block 1   . . [ before | C queries | after ] . .        (B, H, T, K) -> (B * n_blocks, H, C, K)

Letters in shapes: B rows, H heads, T positions, K head width, N blocks, C block size, L keys of a block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_BLOCK = 32  # smaller blocks read fewer useless keys, but many tiny matrix products cost more than they save


@dataclass(frozen=True, eq=False)
class Blocks:
    """How one forward pass is cut, and what each query of a block may read."""

    n_rows: int
    length: int
    n_blocks: int
    size: int
    key_index: Tensor
    """(N * L,) the key position that each place of each block reads, clamped into the text."""
    allowed: Tensor
    """(B * N, 1, C, L) bool, True = may attend."""

    def cut_queries(self, q_BHTK: Tensor) -> Tensor:
        """(B, H, T, K) -> (B * N, H, C, K)."""
        q_BTHK = q_BHTK.transpose(1, 2)
        tail = self.n_blocks * self.size - self.length
        if tail:
            q_BTHK = F.pad(q_BTHK, (0, 0, 0, 0, 0, tail))
        return torch.unflatten(q_BTHK, 1, (self.n_blocks, self.size)).flatten(0, 1).transpose(1, 2)

    def cut_keys(self, k_BHTK: Tensor) -> Tensor:
        """(B, H, T, K) -> (B * N, H, L, K), keys near a border appearing in several blocks."""
        k_BLHK = k_BHTK.transpose(1, 2).index_select(1, self.key_index)
        return torch.unflatten(k_BLHK, 1, (self.n_blocks, -1)).flatten(0, 1).transpose(1, 2)

    def join(self, y_BHCK: Tensor) -> Tensor:
        """(B * N, H, C, K) -> (B, H, T, K), the tail's filling dropped."""
        y_BTHK = torch.unflatten(y_BHCK.transpose(1, 2), 0, (self.n_rows, self.n_blocks)).flatten(1, 2)
        return y_BTHK[:, : self.length].transpose(1, 2)


def plan_blocks(
    n_rows: int, length: int, before: int, after: int, key_mask: Tensor | None, device: torch.device | None
) -> Blocks | None:
    """The blocks of a window that reads `before` positions back and `after` ahead; None where one dense mask is less.

    key_mask: (B, T) bool, True = real key, or None.
    """
    size = max(MIN_BLOCK, before)
    n_keys = before + size + after
    if length <= n_keys:
        return None
    n_blocks = -(-length // size)
    place_L = torch.arange(n_keys, device=device) - before
    position_NL = place_L + size * torch.arange(n_blocks, device=device)[:, None]
    ahead_CL = place_L - torch.arange(size, device=device)[:, None]
    near_CL = (ahead_CL >= -before) & (ahead_CL <= after)
    index = position_NL.clamp(0, length - 1)
    real_BNL = (position_NL == index)[None]
    if key_mask is not None:
        real_BNL = real_BNL & key_mask[:, index]
    allowed_BNCL = (real_BNL[:, :, None] & near_CL).expand(n_rows, -1, -1, -1)
    return Blocks(n_rows, length, n_blocks, size, index.flatten(), allowed_BNCL.flatten(0, 1)[:, None])
