"""A score with its 95 % interval, by the bootstrap over examples.

Every score here is a function of statistics summed over examples. Resampling examples then needs the sums alone, so a
thousand resamples cost milliseconds. An interval keeps these statistics, so that two runs evaluated on the same
examples can be compared (see `comparison.py`).

Letters in shapes: N examples, D distinct rows of statistics, F statistics of one example, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""(R, F) sums of statistics -> (R,) scores."""

RESAMPLES = 1000
NO_EXAMPLES = "a score needs at least one example; the split or the list of predictions is empty"
MANY_ROWS = 1500
"""Distinct rows from which examples are drawn one by one: 25,000 rows then take 0.2 s, by a multinomial 1.2 s."""


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """The statistics behind a score: their distinct rows, the row of each example, and the function of their sums."""

    rows_DF: Floats
    which_N: Ints
    statistic: Statistic

    @property
    def counts_D(self) -> Ints:
        """How many examples have each row."""
        return np.bincount(self.which_N, minlength=len(self.rows_DF))


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % percentile-bootstrap interval over examples; `signature` names the settings of BLEU or chrF.

    The interval is about the choice of examples, not about seeds or training runs. Each holds with 95 % by itself: of
    ten metrics, classes or runs, all ten together hold less often. It has no width where every example has the same
    score (an accuracy of exactly 1), which does not mean that the next example is certain to have it too.
    """

    value: float
    low: float
    high: float
    signature: str | None = None
    examples: RowStatistics | None = field(default=None, repr=False, compare=False)
    """The examples behind the score, in their order; None where only the numbers are known."""

    def to_json(self) -> dict[str, Any]:
        """`{"value": x, "ci95": [low, high]}`, and `"signature"` where there is one."""
        shown: dict[str, Any] = {"value": self.value, "ci95": [self.low, self.high]}
        return shown | ({"signature": self.signature} if self.signature else {})


def bootstrap(stats_NF: npt.ArrayLike, statistic: Statistic) -> Interval:
    """The score of all examples, with its percentile bootstrap interval (Efron & Tibshirani 1993, section 13.3).

    Drawing N examples with replacement is the same as drawing how often each *distinct* row of statistics appears,
    from one multinomial: an accuracy has two distinct rows however many examples there are. The generator is our own
    and freshly seeded, so the result depends on the statistics alone, not even on the order of the examples.
    """
    rows_DF, which_N = np.unique(np.asarray(stats_NF, dtype=np.float64), axis=0, return_inverse=True)
    # One index per example, also in numpy 2.0, where the inverse along an axis has two dimensions.
    return bootstrap_distinct(RowStatistics(rows_DF, which_N.reshape(-1), statistic))


def bootstrap_distinct(examples: RowStatistics) -> Interval:
    """`bootstrap` of examples whose rows are distinct already."""
    rows_DF, counts_D, statistic = examples.rows_DF, examples.counts_D, examples.statistic
    if counts_D.sum() == 0:
        raise ValueError(NO_EXAMPLES)
    low, high = np.percentile(statistic(_resampled_sums(rows_DF, counts_D)), (2.5, 97.5))
    value = statistic((counts_D @ rows_DF)[None])[0]
    return Interval(float(value), float(low), float(high), examples=examples)


def _resampled_sums(rows_DF: Floats, counts_D: Ints) -> Floats:
    """(R, F) summed statistics of each resample; in pieces, so that the counts stay below about 32 MB."""
    rng, draw = np.random.default_rng(0), _counts if len(rows_DF) <= MANY_ROWS else _counts_one_by_one
    piece = max(1, 4_000_000 // len(rows_DF))
    sizes = [min(piece, RESAMPLES - start) for start in range(0, RESAMPLES, piece)]
    return np.concatenate([draw(rng, counts_D, n) @ rows_DF for n in sizes])


def _counts(rng: np.random.Generator, counts_D: Ints, n: int) -> Ints:
    """(n, D) how often each row is drawn, in n resamples."""
    total = int(counts_D.sum())
    return rng.multinomial(total, counts_D / total, size=n)


def _counts_one_by_one(rng: np.random.Generator, counts_D: Ints, n: int) -> Ints:
    """The same, of the same distribution: N examples drawn and counted."""
    row_N, n_rows = np.repeat(np.arange(len(counts_D)), counts_D), len(counts_D)
    drawn = (row_N[rng.integers(0, len(row_N), len(row_N))] for _ in range(n))
    return np.stack([np.bincount(rows, minlength=n_rows) for rows in drawn])


def ratio(sums_RF: Floats) -> Floats:
    """First statistic over the second; 0 / 0 (nothing to get wrong) is 0."""
    return np.divide(sums_RF[:, 0], sums_RF[:, 1], out=np.zeros(len(sums_RF)), where=sums_RF[:, 1] != 0)
