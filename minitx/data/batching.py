"""Which rows make a batch: rows of about equal length under a budget of padded tokens; and the endless batch stream.

The stream is a pure function of seed and position, so a resumed run goes on exactly.
"""

from __future__ import annotations

import numpy as np

from minitx.data.splits import IntArray

MIN_POOL, MAX_POOL = 20, 100
"""Batches in a pool. Rows are sorted by length within a pool only: a larger one pads less, a smaller one mixes more."""


def plan_epoch(
    lengths: IntArray, batch_tokens: int, seed: int, epoch: int, batch_rows: int | None = None
) -> list[IntArray]:
    """Shuffled batches of one training epoch: every row exactly once, in arrays of row numbers.

    Each batch has `longest * rows <= batch_tokens` and at most `batch_rows` rows; a row that is longer than
    batch_tokens goes alone. Rows are put into pools at random and sorted by length there (ties stay random, so that
    most batches have one length where lengths repeat): upwards and downwards in turn, so that a batch can extend over
    the end of its pool. Then the rows are cut into batches, and these are shuffled. The number of batches can differ a
    little from epoch to epoch.
    """
    rng = np.random.default_rng((seed, epoch))
    rows = rng.permutation(len(lengths))
    pool = np.arange(len(rows)) // _pool_rows(lengths, batch_tokens, batch_rows)
    upwards = np.where(pool % 2, -1, 1)
    rows = rows[np.lexsort((lengths[rows] * upwards, pool))]
    batches = _cut(rows, lengths, batch_tokens, batch_rows)
    return [batches[i] for i in rng.permutation(len(batches))]


def plan_eval(lengths: IntArray, batch_tokens: int) -> list[IntArray]:
    """Batches for evaluation, under the same budget: all rows from short to long, ties in row order."""
    return _cut(np.argsort(lengths, kind="stable"), lengths, batch_tokens)


def _pool_rows(lengths: IntArray, batch_tokens: int, batch_rows: int | None) -> int:
    """Rows per pool: a quarter of the set, so that even a small one is shuffled, within the bounds above."""
    per_batch = max(1, batch_tokens // max(1, int(np.mean(lengths)))) if len(lengths) else 1
    per_batch = min(per_batch, batch_rows or per_batch)
    return int(np.clip(-(-len(lengths) // 4), MIN_POOL * per_batch, MAX_POOL * per_batch))


def _cut(rows: IntArray, lengths: IntArray, batch_tokens: int, batch_rows: int | None = None) -> list[IntArray]:
    """Cut a sequence of rows into batches, each as long as the budget allows."""
    ordered = lengths[rows]
    batches, start = [], 0
    while start < len(rows):
        most = max(1, batch_tokens // max(1, int(ordered[start])))
        most = min(most, batch_rows or most)
        longest = np.maximum.accumulate(ordered[start : start + most])
        padded = longest * np.arange(1, len(longest) + 1)
        count = max(1, int(np.searchsorted(padded, batch_tokens, side="right")))
        batches.append(rows[start : start + count])
        start += count
    return batches


class BatchStream:
    """The rows of each training batch in turn; its whole state is the position (epoch, batch)."""

    def __init__(self, lengths: np.ndarray, batch_tokens: int, seed: int, batch_rows: int | None = None) -> None:
        self._lengths, self._batch_tokens, self._seed, self._batch_rows = lengths, batch_tokens, seed, batch_rows
        self.seek(0, 0)
        self.batches_per_epoch = len(self._plan)

    def seek(self, epoch: int, batch: int) -> None:
        """Go to a batch of an epoch, both from 0."""
        self.epoch, self.batch = epoch, batch
        self._plan = plan_epoch(self._lengths, self._batch_tokens, self._seed, epoch, self._batch_rows)

    @property
    def epochs(self) -> float:
        """Position in epochs, with a fraction."""
        return self.epoch + self.batch / len(self._plan)

    def next(self) -> np.ndarray:
        """The row numbers of the next batch."""
        if self.batch == len(self._plan):
            self.seek(self.epoch + 1, 0)
        self.batch += 1
        return self._plan[self.batch - 1]
