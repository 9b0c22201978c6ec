"""Scores with intervals: accuracy, macro F1, phoneme and word error rates, BLEU and chrF.

Every score is a function of statistics summed over examples, and that is the one decision worth knowing: resampling
examples then only needs the sums, so a thousand bootstrap resamples cost milliseconds (see `bootstrap`). An interval
keeps these statistics, so that two runs judged on the same examples can be compared (see `compare.py`).

Letters in shapes: N examples, D distinct rows of statistics, F statistics of one example, R resamples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""(R, F) sums of statistics -> (R,) scores."""

RESAMPLES = 1000
NO_EXAMPLES = "a score needs at least one example; the split or the list of predictions is empty"
MANY_ROWS = 1500
"""Distinct rows from which examples are drawn one by one: 25,000 rows then take 0.2 s, by a multinomial 1.2 s."""
LOWER_IS_BETTER = frozenset({"loss", "per", "wer", "ece"})


@dataclass(frozen=True, eq=False)
class Examples:
    """What a score was made of: the distinct rows of statistics, the row of each example, and the way to the score."""

    rows_DF: Floats
    which_N: Ints
    statistic: Statistic

    @property
    def counts_D(self) -> Ints:
        """How many examples have each row."""
        return np.bincount(self.which_N, minlength=len(self.rows_DF))


@dataclass(frozen=True)
class Interval:
    """A score and its 95 % percentile-bootstrap interval over examples; `signature` says how BLEU or chrF was made.

    The interval speaks of the examples that happened to be in the split, not of seeds or training runs. It has no
    width where every example scores alike (an accuracy of exactly 1).
    """

    value: float
    low: float
    high: float
    signature: str | None = None
    examples: Examples | None = field(default=None, repr=False, compare=False)
    """The examples behind the score, in their order; None where only the numbers are known."""

    def to_json(self) -> dict[str, Any]:
        """`{"value": x, "ci95": [low, high]}`, and `"signature"` where there is one."""
        shown: dict[str, Any] = {"value": self.value, "ci95": [self.low, self.high]}
        return shown | ({"signature": self.signature} if self.signature else {})


def higher_is_better(metric: str) -> bool:
    """False for losses and errors (`LOWER_IS_BETTER`), True for every other score."""
    return metric not in LOWER_IS_BETTER


def better(a: float, b: float, metric: str) -> bool:
    """True if score `a` is strictly better than `b`; a NaN is never better, and any number beats one."""
    if np.isnan(b):
        return not np.isnan(a)
    return a > b if higher_is_better(metric) else a < b


# ---------------------------------------------------------------------------------------------------------- bootstrap


def bootstrap(stats_NF: npt.ArrayLike, statistic: Statistic) -> Interval:
    """The score of all examples, with its percentile bootstrap interval (Efron & Tibshirani 1993, section 13.3).

    Drawing N examples with replacement is the same as drawing how often each *distinct* row of statistics appears,
    from one multinomial: an accuracy has two distinct rows however many examples there are. The generator is our own
    and freshly seeded, so the result depends on the statistics alone, not even on the order of the examples.
    """
    rows_DF, which_N = np.unique(np.asarray(stats_NF, dtype=np.float64), axis=0, return_inverse=True)
    # One index per example, also in numpy 2.0, where the inverse along an axis has two dimensions.
    return _bootstrap_distinct(Examples(rows_DF, which_N.reshape(-1), statistic))


def _bootstrap_distinct(examples: Examples) -> Interval:
    """`bootstrap` of rows that are distinct already."""
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


def _ratio(sums_RF: Floats) -> Floats:
    """First statistic over the second; 0 / 0 (nothing to get wrong) is 0."""
    return np.divide(sums_RF[:, 0], sums_RF[:, 1], out=np.zeros(len(sums_RF)), where=sums_RF[:, 1] != 0)


# ----------------------------------------------------------------------------------------------------- classification


def accuracy(predicted: npt.ArrayLike, labels: npt.ArrayLike) -> Interval:
    """Fraction of examples whose predicted class (N,) is the label (N,)."""
    hits = np.asarray(predicted) == np.asarray(labels)
    return bootstrap(np.stack([hits, np.ones(len(hits))], axis=1), _ratio)


def masked_accuracy(hits: npt.ArrayLike, hidden: npt.ArrayLike) -> Interval:
    """Fraction of hidden tokens that were guessed; an example is a text, with hits (N,) of so many hidden (N,)."""
    return bootstrap(np.stack([np.asarray(hits), np.asarray(hidden)], axis=1), _ratio)


def confusion_matrix(predicted: npt.ArrayLike, labels: npt.ArrayLike, n_classes: int) -> Ints:
    """(C, C) counts: one row per true class, one column per predicted class."""
    cells = _cells(predicted, labels, n_classes)
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


def macro_f1(predicted: npt.ArrayLike, labels: npt.ArrayLike, n_classes: int) -> Interval:
    """Mean F1 over the classes that occur among labels or predictions (those of the resample, in the bootstrap)."""
    cells_D, which_N = np.unique(_cells(predicted, labels, n_classes), return_inverse=True)
    true_D, predicted_D = np.divmod(cells_D, n_classes)
    one_CC = np.eye(n_classes)
    hit_DC = one_CC[true_D] * (true_D == predicted_D)[:, None]
    seen_DC = one_CC[true_D] + one_CC[predicted_D]
    return _bootstrap_distinct(Examples(np.hstack([hit_DC, seen_DC]), which_N, _mean_f1))


def _mean_f1(sums_RF: Floats) -> Floats:
    """Macro F1 from, of each class, its hits and how often it was seen among labels and predictions together."""
    hit_RC, seen_RC = np.hsplit(sums_RF, 2)
    f1_RC = np.divide(2 * hit_RC, seen_RC, out=np.zeros_like(hit_RC), where=seen_RC > 0)
    return np.asarray(f1_RC.sum(axis=1) / (seen_RC > 0).sum(axis=1))


def _cells(predicted: npt.ArrayLike, labels: npt.ArrayLike, n_classes: int) -> Ints:
    """(N,) the cell of the flattened confusion matrix that each example falls into."""
    # Checked here because numpy would quietly count a class that is too large as another class.
    for name, classes in (("predicted", predicted), ("labels", labels)):
        if np.size(classes) and not 0 <= np.min(classes) <= np.max(classes) < n_classes:
            raise ValueError(f"{name} must lie in 0..{n_classes - 1}, but reach {np.min(classes)}..{np.max(classes)}")
    return np.asarray(labels, dtype=np.int64) * n_classes + np.asarray(predicted, dtype=np.int64)


# -------------------------------------------------------------------------------------------------------- error rates


def error_rates(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> dict[str, Interval]:
    """`per` and `wer` of symbol sequences, each example with one or more references.

    per: the smallest edit distance to any reference over *that* reference's length, both summed before dividing (so it
    may exceed 1). Where references tie, the longest counts: the rule must not depend on their order.
    wer: fraction of examples that equal none of their references.
    """
    _check_references(hypotheses, references)
    pairs = zip(hypotheses, references, strict=True)
    stats = np.array([_nearest(hypothesis, wanted) for hypothesis, wanted in pairs], dtype=np.float64).reshape(-1, 2)
    wrong = np.stack([stats[:, 0] > 0, np.ones(len(stats))], axis=1)
    return {"per": bootstrap(stats, _ratio), "wer": bootstrap(wrong, _ratio)}


def _nearest(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[int, int]:
    """(distance, length) of the nearest reference, the longest one among ties."""
    distance, shortness = min((edit_distance(hypothesis, wanted), -len(wanted)) for wanted in references)
    return distance, -shortness


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions that turn `a` into `b` (Levenshtein 1966), row by row."""
    if list(a) == list(b):
        return 0
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


# -------------------------------------------------------------------------------------------------------- BLEU, chrF


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]], tokenize: str = "13a") -> Interval:
    """Corpus BLEU in points by sacrebleu (Post 2018); `tokenize` is sacrebleu's (13a, zh, char, flores200, ...)."""
    # force: text that is declared to be tokenised needs no warning that it is.
    return _sacrebleu(BLEU(tokenize=tokenize, force=tokenize == "none"), hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Interval:
    """Corpus chrF in points by sacrebleu (Popovic 2015)."""
    return _sacrebleu(CHRF(), hypotheses, references)


def _sacrebleu(metric: Any, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Interval:
    """Bootstrap over sacrebleu's own statistics of each sentence, scored by sacrebleu's own formula.

    Its public `n_bootstrap` reports mean +- half the width, seeded from the environment, and not the percentiles.
    """
    _check_references(hypotheses, references)
    # sacrebleu wants one stream per reference number, None where an example has fewer.
    width = max((len(wanted) for wanted in references), default=0)
    streams = [[wanted[k] if k < len(wanted) else None for wanted in references] for k in range(width)]
    stats = metric._extract_corpus_statistics(list(hypotheses), streams)
    return replace(bootstrap(stats, partial(_sacrebleu_scores, metric)), signature=str(metric.get_signature()))


def _sacrebleu_scores(metric: Any, sums_RF: Floats) -> Floats:
    return np.array([metric._compute_score_from_stats(sums).score for sums in sums_RF.tolist()])


def _check_references(hypotheses: Sequence[object], references: Sequence[Sequence[object]]) -> None:
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses must match {len(references)} lists of references in number")
    if not hypotheses:
        raise ValueError(NO_EXAMPLES)
    if not all(references):
        raise ValueError("an example without any reference cannot be scored; every row needs at least one")
