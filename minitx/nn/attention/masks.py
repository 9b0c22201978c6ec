"""What attention may read. The one place that decides it: True = may attend, everywhere.

An `AttentionSpan` is the rule (span, window, causal); its `mask` applies it to one forward pass and gives the cheapest
`Mask` that says the same, made once and shared by every layer of a stack:

    global, causal      window 1            window 1, causal    sentences 0 0 1 1
    x . . .             x x . .             x . . .             x x . .
    x x . .             x x x .             x x . .             x x . .
    x x x .             . x x x             . x x .             . . x x
    x x x x             . . x x             . . x x             . . x x

Letters in shapes: B rows, T queries, S keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Span = Literal["global", "window", "sentence"]


@dataclass(frozen=True, eq=False)
class Mask:
    """One forward pass's mask, in the cheapest form: nothing, a flag, a dense tensor, or blocks."""

    n_keys: int
    """Keys to read, counted from the last: a window over a long cache needs only its end."""
    is_causal: bool = False
    """The lower triangle, left to the kernel; then `allowed` is None and there are as many queries as keys."""
    allowed: Tensor | None = None
    """(B or 1, 1, T or 1, S) bool, True = may attend; None = every key."""
    blocks: Blocks | None = None
    """Set where a window is computed block by block; holds its own mask."""

    def n_readable(self, n_queries: int, device: torch.device) -> Tensor:
        """(B or 1, T or 1) int64: how many keys each query may read, by a mask without blocks."""
        assert self.blocks is None, "blocks are not recorded"
        if self.is_causal:
            return torch.arange(1, n_queries + 1, device=device)[None]
        if self.allowed is None:
            return torch.full((1, 1), self.n_keys, device=device)
        return self.allowed.sum(-1)[:, 0]


@dataclass(frozen=True)
class AttentionSpan:
    """The rule: what a query may read. Queries are the last T of the S positions (T == S without a cache)."""

    span: Span = "global"
    window: int = 8
    causal: bool = False

    def mask(
        self,
        n_rows: int,
        n_queries: int,
        n_keys: int,
        *,
        key_mask: Tensor | None = None,
        sentence: Tensor | None = None,
        device: torch.device | None = None,
        blocked: bool = True,
    ) -> Mask:
        """The mask of one forward pass.

        key_mask: (B, S) bool, True = real key; None when no key is padded. sentence: (B, S) sentence numbers, for
        span "sentence" only, else ignored; a ValueError where that span has none. blocked: allow the forms that
        drop unread keys (blocks, the end of a cache); otherwise every key is there.
        """
        if blocked and self.span == "window" and n_queries < n_keys:
            n_keys = min(n_keys, self.window + n_queries)
            key_mask = None if key_mask is None else key_mask[:, -n_keys:]
        before, after = self._bounds(n_queries, n_keys)
        if blocked and before is not None and n_queries == n_keys:
            blocks = plan_blocks(n_rows, n_keys, before, after or 0, key_mask, device)
            if blocks is not None:
                return Mask(n_keys, blocks=blocks)
        same = self._same_sentence(sentence, n_queries)
        if before is None and after == 0 and n_queries == n_keys and key_mask is None and same is None:
            return Mask(n_keys, is_causal=True)
        keys = None if key_mask is None else key_mask[:, None, None, :]
        return Mask(n_keys, allowed=_both(_both(band(n_queries, n_keys, before, after, device), same), keys))

    def _bounds(self, n_queries: int, n_keys: int) -> tuple[int | None, int | None]:
        """How far a query may read before and after itself; None where the limit cuts nothing off."""
        before = self.window if self.span == "window" else None
        after = 0 if self.causal else before
        if torch.compiler.is_exporting():  # for any length
            return before, None if self.causal and n_queries == 1 else after
        return (
            before if before is not None and before < n_keys - 1 else None,
            after if after is not None and after < n_queries - 1 else None,
        )

    def _same_sentence(self, sentence: Tensor | None, n_queries: int) -> Tensor | None:
        """(B, 1, T, S) True within one sentence; None for the other spans."""
        if self.span != "sentence":
            return None
        if sentence is None:
            raise ValueError("attention with span 'sentence' needs the sentence number of every token")
        return (sentence[:, -n_queries:, None] == sentence[:, None, :])[:, None]


def band(
    n_queries: int, n_keys: int, before: int | None, after: int | None, device: torch.device | None = None
) -> Tensor | None:
    """(1, 1, T, S) bool, True where the key is at most `before` earlier and `after` later; None for no limit at all."""
    if before is None and after is None:
        return None
    keys = torch.arange(n_keys, device=device)
    ahead_TS = keys - keys[n_keys - n_queries :, None]
    lower = None if before is None else ahead_TS >= -before
    upper = None if after is None else ahead_TS <= after
    both = _both(lower, upper)
    assert both is not None
    return both[None, None]


def masked_softmax(scores: Tensor, allowed: Tensor | None) -> Tensor:
    """(..., S) softmax over the allowed keys, 0 elsewhere; a row that may read nothing is all 0.

    allowed: bool, of a shape that broadcasts to the scores'; None = every key.
    """
    if allowed is None:
        return scores.softmax(dim=-1)
    hidden = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return hidden.softmax(dim=-1).masked_fill(~allowed, 0.0)


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """`a & b` where None means True everywhere."""
    if a is None or b is None:
        return b if a is None else a
    return a & b


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
