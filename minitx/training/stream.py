"""The endless stream of training batches: a pure function of seed and position, so a resumed run goes on exactly."""

from __future__ import annotations

import numpy as np

from minitx.data.batching import plan_epoch


class BatchStream:
    """Rows of one batch after another; the position (epoch, batch) is all there is to save."""

    def __init__(self, lengths: np.ndarray, batch_tokens: int, seed: int, batch_rows: int | None = None) -> None:
        self._lengths, self._batch_tokens, self._seed, self._batch_rows = lengths, batch_tokens, seed, batch_rows
        self.seek(0, 0)
        self.batches_per_epoch = len(self._plan)

    def seek(self, epoch: int, batch: int) -> None:
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
