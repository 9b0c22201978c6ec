"""The metrics: accuracy, macro F1, calibration error, phoneme and word error rates, BLEU and chrF.

`METRICS` lists them all, and that is the one place to add another: its entry says which data it is for, how it is
computed from a model's outputs, which direction is better and in which unit it is shown.

Letters in shapes: N examples, D distinct rows of statistics, F statistics of one example, R resamples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from minitx.data.splits import Metrics
from minitx.metrics.calibration import ece
from minitx.metrics.intervals import (
    NO_EXAMPLES,
    Floats,
    Interval,
    Ints,
    RowStatistics,
    bootstrap,
    bootstrap_distinct,
    ratio,
)

# ----------------------------------------------------------------------------------------------------- classification


def accuracy(predicted: npt.ArrayLike, labels: npt.ArrayLike) -> Interval:
    """Fraction of examples whose predicted class (N,) is the label (N,)."""
    hits = np.asarray(predicted) == np.asarray(labels)
    return bootstrap(np.stack([hits, np.ones(len(hits))], axis=1), ratio)


def masked_accuracy(hits: npt.ArrayLike, hidden: npt.ArrayLike) -> Interval:
    """Fraction of hidden tokens predicted rightly. An example is a text: (N,) hits of (N,) hidden tokens."""
    return bootstrap(np.stack([np.asarray(hits), np.asarray(hidden)], axis=1), ratio)


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
    return bootstrap_distinct(RowStatistics(np.hstack([hit_DC, seen_DC]), which_N, _mean_f1))


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


def phoneme_error_rate(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> Interval:
    """Edits per symbol of the nearest reference; each example has one or more references.

    The smallest edit distance (Levenshtein 1966) to any reference over *that* reference's length, both summed before
    dividing (so it may exceed 1). Where references tie, the longest counts: the rule must not depend on their order.
    """
    _check_references(hypotheses, references)
    return bootstrap([_nearest(h, wanted) for h, wanted in zip(hypotheses, references, strict=True)], ratio)


def _nearest(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[int, int]:
    """(distance, length) of the nearest reference, the longest one among ties."""
    distance, shortness = min((Levenshtein.distance(hypothesis, wanted), -len(wanted)) for wanted in references)
    return distance, -shortness


def word_error_rate(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> Interval:
    """Fraction of examples (words, in grapheme-to-phoneme conversion) that equal none of their references."""
    _check_references(hypotheses, references)
    pairs = zip(hypotheses, references, strict=True)
    return bootstrap([(list(h) not in [list(wanted) for wanted in group], 1) for h, group in pairs], ratio)


# -------------------------------------------------------------------------------------------------------- BLEU, chrF


def bleu(hypotheses: Sequence[str], references: Sequence[Sequence[str]], tokenize: str = "13a") -> Interval:
    """Corpus BLEU (Papineni et al. 2002) in points by sacrebleu (Post 2018).

    tokenize: sacrebleu's name for how it splits the text (13a, zh, char, flores200, ...).
    """
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


# ----------------------------------------------------------------------------------------------------- the list of all


@dataclass(frozen=True, kw_only=True)
class ClassOutputs:
    """What a classifier gave: (N, C) log-probabilities, and the (N,) true classes."""

    log_probs: npt.NDArray[np.floating[Any]]
    labels: Ints

    @property
    def classes(self) -> Ints:
        """(N,) the likeliest classes."""
        return np.asarray(self.log_probs.argmax(axis=1))


@dataclass(frozen=True, kw_only=True)
class TextOutputs:
    """What a translator wrote, and each example's references."""

    hypotheses: Sequence[str]
    references: Sequence[Sequence[str]]
    bleu_tokenize: str = "13a"

    @property
    def symbols(self) -> tuple[list[list[str]], list[list[list[str]]]]:
        """Both as lists of symbols, split at white space."""
        return [text.split() for text in self.hypotheses], [[r.split() for r in group] for group in self.references]


@dataclass(frozen=True, kw_only=True)
class MaskedOutputs:
    """What a masked model predicted: (N,) right predictions of (N,) hidden tokens, of each text."""

    hits: Ints
    hidden: Ints


@dataclass(frozen=True)
class Metric:
    """One metric."""

    name: str
    of: Metrics
    """The data it is for, see `data.metrics`."""
    score: Callable[[Any], Interval]
    """From the outputs of that kind: ClassOutputs, TextOutputs or MaskedOutputs."""
    higher_is_better: bool = True
    unit: Literal["fraction", "points"] = "fraction"
    """A fraction is 0 to 1 and shown in per cent; points, 0 to 100, are shown as they are."""


METRICS = (
    Metric("accuracy", "classification", lambda o: accuracy(o.classes, o.labels)),
    Metric("macro_f1", "classification", lambda o: macro_f1(o.classes, o.labels, o.log_probs.shape[1])),
    Metric("ece", "classification", lambda o: ece(o.log_probs, o.labels), higher_is_better=False),
    Metric("masked_accuracy", "masked", lambda o: masked_accuracy(o.hits, o.hidden)),
    Metric("per", "error_rate", lambda o: phoneme_error_rate(*o.symbols), higher_is_better=False),
    Metric("wer", "error_rate", lambda o: word_error_rate(*o.symbols), higher_is_better=False),
    Metric("bleu", "bleu", lambda o: bleu(o.hypotheses, o.references, o.bleu_tokenize), unit="points"),
    Metric("chrf", "bleu", lambda o: chrf(o.hypotheses, o.references), unit="points"),
)
"""The first of each kind of data is its main metric: checkpoints, patience, tuning and tables go by it."""


def scores(of: Metrics, outputs: ClassOutputs | TextOutputs | MaskedOutputs) -> dict[str, Interval]:
    """Every metric for such data, the main one first."""
    return {metric.name: metric.score(outputs) for metric in METRICS if metric.of == of}


def main_metric(of: Metrics) -> str:
    """Name of the metric that `best`, patience and tables go by."""
    return next(metric.name for metric in METRICS if metric.of == of)


def higher_is_better(metric: str) -> bool:
    """The direction of a metric, or of "loss"."""
    return metric != "loss" and _named(metric).higher_is_better


def in_points(metric: str) -> bool:
    """True of a metric of 0 to 100 points, False of a fraction, which is shown in per cent."""
    return _named(metric).unit == "points"


def _named(name: str) -> Metric:
    found = [metric for metric in METRICS if metric.name == name]
    if not found:
        raise ValueError(f"metric ({name}) must be one of {', '.join(metric.name for metric in METRICS)}")
    return found[0]


def better(a: float, b: float, metric: str) -> bool:
    """True if score `a` is strictly better than `b`; a NaN is never better, and any number beats one."""
    if np.isnan(b):
        return not np.isnan(a)
    return a > b if higher_is_better(metric) else a < b
