"""Which rows go together: batches of about equal length under a budget of padded tokens.

Both plans are pure functions of their arguments, so a resumed run rebuilds its epoch from (seed, epoch) alone.
"""

from __future__ import annotations

import numpy as np

from minitx.data.ragged import IntArray

MIN_POOL, MAX_POOL = 10, 100
"""Batches in a pool. Rows are sorted by length within a pool only: a larger one pads less, a smaller one mixes more."""


def plan_epoch(lengths: IntArray, batch_tokens: int, seed: int, epoch: int) -> list[IntArray]:
    """Shuffled batches of one training epoch: every row exactly once, in arrays of row numbers.

    Each batch has `longest * rows <= batch_tokens`; a row that is longer than that goes alone. Rows are dealt at random
    into pools, sorted by length there (ties stay random, so that most batches have one length where lengths repeat),
    cut, and the batches are shuffled. The number of batches can differ a little from epoch to epoch.
    """
    rng = np.random.default_rng((seed, epoch))
    rows = rng.permutation(len(lengths))
    pool = np.arange(len(rows)) // _pool_rows(lengths, batch_tokens)
    rows = rows[np.lexsort((lengths[rows], pool))]
    batches = [b for part in np.split(rows, _changes(pool)) for b in _cut(part, lengths, batch_tokens)]
    return [batches[i] for i in rng.permutation(len(batches))]


def plan_eval(lengths: IntArray, batch_tokens: int) -> list[IntArray]:
    """The same budget without chance: all rows from short to long, ties in row order."""
    return _cut(np.argsort(lengths, kind="stable"), lengths, batch_tokens)


def _pool_rows(lengths: IntArray, batch_tokens: int) -> int:
    """Rows per pool: a quarter of the set, so that even a small one is mixed anew, within the bounds above."""
    per_batch = max(1, batch_tokens // max(1, int(np.mean(lengths)))) if len(lengths) else 1
    return int(np.clip(-(-len(lengths) // 4), MIN_POOL * per_batch, MAX_POOL * per_batch))


def _changes(pool: IntArray) -> IntArray:
    return np.flatnonzero(np.diff(pool)) + 1


def _cut(rows: IntArray, lengths: IntArray, batch_tokens: int) -> list[IntArray]:
    """Cut rows, sorted by length, into the longest batches that fit."""
    ordered = lengths[rows]
    batches, start = [], 0
    while start < len(rows):
        most = max(1, batch_tokens // max(1, int(ordered[start])))
        padded = ordered[start : start + most] * np.arange(1, min(most, len(rows) - start) + 1)
        count = max(1, int(np.searchsorted(padded, batch_tokens, side="right")))
        batches.append(rows[start : start + count])
        start += count
    return batches
