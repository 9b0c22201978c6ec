"""Two runs on the same examples: the difference of their scores by paired bootstrap, and a paired randomisation test.

Pairing keeps each example's two outputs together, because what is hard for one run is mostly hard for the other: the
difference is then known far better than either score. Instead of examples, *distinct pairs* of rows of statistics are
drawn (see `intervals.bootstrap`), at most four for an accuracy.

Like an interval, a comparison is about the choice of examples, not about seeds: a run trained again would differ too.

Letters in shapes: N examples, D distinct rows of statistics, P distinct pairs of rows, F statistics of one example,
R resamples or trials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minitx.metrics.evaluate import Evaluation
from minitx.metrics.intervals import RESAMPLES, Floats, Interval, Ints, RowStatistics, Statistic

TRIALS = 10_000
"""Trials of the randomisation test: a p-value of 0.05 is then known to 0.004 (two standard errors)."""
ROUNDING = 1e-9
"""Closer differences count as equal: in floating point, macro F1 moves a little when two classes change places."""
PIECE = 1_000_000
"""Numbers drawn at once: 8 MB, and as much again where numpy turns them to floats to multiply."""


@dataclass(frozen=True)
class Comparison:
    """Score of run a minus score of run b on the same examples, its 95 % interval, and its p-value.

    `p_value`: how often a difference at least this large, either way, arises when it does not matter which run an
    output came from; never below 1 / (n_trials + 1). For error rates a negative difference is the good news
    (`scores.higher_is_better`).
    """

    difference: float
    low: float
    high: float
    p_value: float
    n_examples: int
    n_trials: int


def compare(a: Interval, b: Interval) -> Comparison:
    """Paired comparison of one metric of two runs, whose examples must be the same ones in the same order.

    The interval is the percentile one of a paired bootstrap, 1,000 resamples of the examples with both outputs of each
    (Koehn 2004; Efron & Tibshirani 1993, section 13.3). The p-value is the two-sided one of approximate randomisation,
    10,000 trials that swap the two outputs of each example or not, by the toss of a coin (Riezler & Maxwell 2005); an
    accuracy's is an exact McNemar test but for the chance in the trials.

    The generator is our own and freshly seeded, so the result depends on the statistics alone; `compare(b, a)` is the
    exact mirror image.
    """
    examples_a, examples_b = _comparable(a, b)
    pairs, turns = _pair(examples_a, examples_b)
    rng, difference = np.random.default_rng(0), a.value - b.value
    resampled_R = pairs.resampled(rng, RESAMPLES)
    low, high = _interval(np.concatenate([turn * resampled_R for turn in turns]))
    extreme = np.abs(pairs.swapped(rng, TRIALS)) >= abs(difference) - ROUNDING
    p_value = (int(extreme.sum()) + 1) / (TRIALS + 1)
    return Comparison(difference, low, high, p_value, len(examples_a.which_N), TRIALS)


def _interval(spread_R: Floats) -> tuple[float, float]:
    """The 95 % percentile interval, such that that of `-spread_R` is the exact mirror image."""
    # The same percentile twice, for numpy rounds an upper one otherwise; adding to 0 makes 0 of -0, which reads badly.
    return 0.0 + float(np.percentile(spread_R, 2.5)), 0.0 - float(np.percentile(-spread_R, 2.5))


def compare_evaluations(a: Evaluation, b: Evaluation) -> dict[str, Comparison]:
    """`compare` for every metric that both have; both must be of the same rows (of the same data) in one order.

    Only the numbers of the rows can be checked here, not the texts behind them.
    """
    _check_same_rows(a, b)
    shared = [name for name in a.metrics if name in b.metrics]
    if not shared:
        raise ValueError(
            f"two evaluations must share a metric, but one has {', '.join(a.metrics)} and the other "
            f"{', '.join(b.metrics)}; compare runs of the same task"
        )
    return {name: compare(a.metrics[name], b.metrics[name]) for name in shared}


def _check_same_rows(a: Evaluation, b: Evaluation) -> None:
    if not np.array_equal(a.rows, b.rows):
        counts = f"{len(a.rows):,} and {len(b.rows):,}"
        raise ValueError(
            f"two evaluations must be of the same rows in the same order, but theirs differ ({counts} rows); "
            "give both the same choice of rows"
        )


def _comparable(a: Interval, b: Interval) -> tuple[RowStatistics, RowStatistics]:
    """The examples of both, if they can be paired."""
    if a.signature != b.signature:
        raise ValueError(
            f"two scores must be computed alike, but their signatures differ: {a.signature} and {b.signature}"
        )
    one, other = _examples(a, "first"), _examples(b, "second")
    if len(one.which_N) != len(other.which_N):
        counts = f"{len(one.which_N):,} and the other over {len(other.which_N):,}"
        raise ValueError(f"two scores must be over the same examples, but one is over {counts}")
    if one.rows_DF.shape[1] != other.rows_DF.shape[1]:
        widths = f"{one.rows_DF.shape[1]} and {other.rows_DF.shape[1]}"
        raise ValueError(f"two scores must be of one metric and the same classes, but sum {widths} statistics")
    return one, other


def _examples(interval: Interval, which: str) -> RowStatistics:
    if interval.examples is None:
        raise ValueError(f"the {which} score must know its examples, not only its numbers; compare what a metric made")
    return interval.examples


# ------------------------------------------------------------------------------------------------------------ classes


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two classifiers gets right, and the p-value of McNemar's test."""

    a_alone: int
    b_alone: int
    p_value: float
    """Two-sided and exact: how often a fair coin for each of these rows comes out as unevenly, or more."""


def mcnemar(a: Evaluation, b: Evaluation) -> McNemar:
    """McNemar's test (1947) of two classifiers' accuracies on the same rows, by the exact binomial distribution.

    Rows that both get right, or both wrong, are no evidence of which is better and do not count.
    """
    from scipy.stats import binomtest  # half a second of imports, which training need not wait for

    _check_same_rows(a, b)
    right_a, right_b = _right(a), _right(b)
    alone = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return McNemar(*alone, float(binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0)


def _right(evaluation: Evaluation) -> npt.NDArray[np.bool_]:
    """(N,) which rows the likeliest class is right of."""
    if evaluation.log_probs is None or evaluation.labels is None:
        raise ValueError("McNemar's test must be of two classifiers; translations are not simply right or wrong")
    return np.asarray(evaluation.log_probs.argmax(axis=1) == evaluation.labels)


# -------------------------------------------------------------------------------------------------------------- pairs


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Two runs as distinct pairs: rows `one_P[p]` and `other_P[p]` of `rows_DF` belong to `counts_P[p]` examples."""

    rows_DF: Floats
    one_P: Ints
    other_P: Ints
    counts_P: Ints
    statistic: Statistic

    def resampled(self, rng: np.random.Generator, n: int) -> Floats:
        """(n,) differences one - other over as many examples, drawn with replacement."""
        one_PF, other_PF = self.rows_DF[self.one_P], self.rows_DF[self.other_P]
        total = int(self.counts_P.sum())
        draws = _in_pieces(lambda k: rng.multinomial(total, self.counts_P / total, size=k), n, len(self.counts_P))
        return np.concatenate([self.statistic(counts @ one_PF) - self.statistic(counts @ other_PF) for counts in draws])

    def swapped(self, rng: np.random.Generator, n: int) -> Floats:
        """(n,) differences one - other with each example's outputs swapped with probability 1/2."""
        one_F, other_F = (self.counts_P @ self.rows_DF[row_P] for row_P in (self.one_P, self.other_P))
        unlike = self.one_P != self.other_P  # swapping equals changes nothing
        counts_P = self.counts_P[unlike]
        change_PF = self.rows_DF[self.other_P[unlike]] - self.rows_DF[self.one_P[unlike]]
        draws = _in_pieces(lambda k: rng.binomial(counts_P, 0.5, size=(k, len(counts_P))), n, len(counts_P))
        changes = (swaps @ change_PF for swaps in draws)
        return np.concatenate([self.statistic(one_F + c) - self.statistic(other_F - c) for c in changes])


def _in_pieces(draw: Callable[[int], Ints], n: int, width: int) -> Iterator[Ints]:
    """`draw` of n rows of numbers, few enough at a time."""
    piece = max(1, PIECE // max(1, width))
    return (draw(min(piece, n - start)) for start in range(0, n, piece))


def _pair(a: RowStatistics, b: RowStatistics) -> tuple[_Pairs, list[int]]:
    """The distinct pairs of two runs, and the signs that turn differences one - other into a - b.

    Which run is `one` goes by the statistics, not by who is called a: else the same draws would fall on other pairs in
    `compare(b, a)`. Both signs come back where the two are indistinguishable, there being as many pairs (x, y) as
    (y, x): only an interval of both is then its own mirror image.
    """
    rows_DF, place_D = np.unique(np.concatenate([a.rows_DF, b.rows_DF]), axis=0, return_inverse=True)
    place_A, place_B = np.split(place_D.reshape(-1), [len(a.rows_DF)])
    in_a_N, in_b_N = place_A[a.which_N], place_B[b.which_N]
    tables = {turn: _table(x, y, len(rows_DF)) for turn, x, y in ((1, in_a_N, in_b_N), (-1, in_b_N, in_a_N))}
    smallest = min(tables.values())
    cells_P, counts_P = np.array(smallest, dtype=np.int64)
    one_P, other_P = np.divmod(cells_P, len(rows_DF))
    turns = [turn for turn, table in tables.items() if table == smallest]
    return _Pairs(rows_DF, one_P, other_P, counts_P, a.statistic), turns


def _table(x_N: Ints, y_N: Ints, n_rows: int) -> list[list[int]]:
    """[cells of the D x D table of pairs that occur, how often each does], as lists: these have an order."""
    cells_P, counts_P = np.unique(x_N * n_rows + y_N, return_counts=True)
    return [cells_P.tolist(), counts_P.tolist()]
