"""What torch's varlen_attn computes, in plain torch: one square of which each text reads its own block."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def varlen_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """(N, H, K) from queries (N, H, K) and keys and values (M, H, K); cu_seq: (B + 1,) int32 ends of the texts."""
    (text_N, place_N), (text_M, place_M) = _stand(cu_seq_q, query), _stand(cu_seq_k, key)
    (left, right), ahead_NM = window_size, place_M - place_N[:, None]
    allowed_NM = text_M == text_N[:, None]
    allowed_NM = allowed_NM & (ahead_NM >= -left) if left >= 0 else allowed_NM
    allowed_NM = allowed_NM & (ahead_NM <= right) if right >= 0 else allowed_NM
    q, k, v = (x.transpose(0, 1)[None] for x in (query, key, value))
    y: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed_NM)
    return y[0].transpose(0, 1)


def _stand(ends: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) text of each token and (N,) its position there."""
    token_N = torch.arange(x.shape[0], device=x.device)
    text_N = torch.searchsorted(ends, token_N.int(), right=True) - 1
    return text_N, token_N - ends[text_N]


class Kernel:
    """Stands in for the kernel and notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.windows: list[tuple[int, int]] = []

    def __call__(self, *args: Any, window_size: tuple[int, int]) -> Tensor:
        query, key, value, ends_q, ends_k, max_q, max_k = args
        assert query.dtype == key.dtype == value.dtype, "the kernel takes one type"
        assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1, "and whole heads"
        for ends, longest, x in ((ends_q, max_q, query), (ends_k, max_k, key)):
            assert ends.dtype == torch.int32 and ends[0] == 0 and ends[-1] == x.shape[0]
            assert int(ends.diff().max()) <= longest
        self.calls.append(args)
        self.windows.append(window_size)
        return varlen_reference(*args, window_size=window_size)
