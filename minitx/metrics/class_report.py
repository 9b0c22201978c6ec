"""A classifier's evaluation in detail: scores by class, the classes it confuses, calibration, the hardest examples.

Everything follows from the log-probabilities that an `Evaluation` keeps; here it becomes small values that the console,
TensorBoard and evaluation.json all show.

Letters in shapes: N examples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from minitx.data import Split
from minitx.metrics.calibration import Calibration, calibrate
from minitx.metrics.evaluate import Evaluation
from minitx.metrics.intervals import Ints
from minitx.metrics.scores import confusion_matrix

N_HARDEST = 50
N_CONFUSED = 20
LONGEST_TEXT = 120
"""Characters kept of a hard example's text."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class against all others; a share of nothing is None."""

    name: str
    n: int
    """Examples of the class."""
    precision: float | None
    """Of the examples taken for it, how many are; None where nothing is."""
    recall: float | None
    """Of its examples, how many are taken for it; None without examples."""
    f1: float | None
    """2 hits / (examples + predictions), whose mean over the classes is macro F1; None where there is neither."""
    taken_for: str | None
    """The other class that its examples are most often taken for; None where they never are."""
    n_taken: int


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Examples of one class that were taken for another."""

    true: str
    predicted: str
    n: int
    share: float
    """Of the examples of the true class."""


@dataclass(frozen=True, kw_only=True)
class HardExample:
    """A row whose true class the model gave a low probability, or of the surest ones a high one."""

    row: int
    """Of the split, counted from 0."""
    text: str
    """On one line, at most `LONGEST_TEXT` characters."""
    true: str
    p_true: float
    predicted: str
    p_predicted: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassReport:
    """A classifier's evaluation on some rows, in detail."""

    evaluation: Evaluation
    names: tuple[str, ...]
    confusion: Ints = field(repr=False)
    """(C, C) counts, one row per true class and one column per predicted class."""
    classes: tuple[ClassScore, ...]
    """In the order of `names`."""
    confused: tuple[Confusion, ...]
    """The most frequent first, at most `N_CONFUSED`."""
    calibration: Calibration
    hardest: tuple[HardExample, ...]
    """The highest loss first."""
    surest: tuple[HardExample, ...] = ()
    """The lowest loss first."""

    def worst(self, n: int) -> tuple[ClassScore, ...]:
        """The n classes of the lowest F1, the lowest first; those that do not occur come last."""
        return tuple(sorted(self.classes, key=lambda c: 2.0 if c.f1 is None else c.f1)[:n])

    def to_json(self, split: str) -> dict[str, Any]:
        """What evaluation.json holds; `split` names the rows."""
        found = self.evaluation
        return {
            "split": split,
            "n": len(found.rows),
            "loss": found.loss,
            "metrics": {name: interval.to_json() for name, interval in found.metrics.items()},
            "classes": [asdict(score) for score in self.classes],
            "confusion": {"labels": list(self.names), "rows_true_columns_predicted": self.confusion.tolist()},
            "most_confused": [asdict(pair) for pair in self.confused],
            "calibration": self.calibration.to_json(),
            "hardest": [asdict(example) for example in self.hardest],
        }


def report_classes(
    evaluation: Evaluation, split: Split, names: Sequence[str], n_hardest: int = N_HARDEST
) -> ClassReport:
    """The report of a classifier's evaluation on (some rows of) `split`, whose classes are called `names`."""
    log_probs, labels = evaluation.log_probs, evaluation.labels
    assert log_probs is not None and labels is not None, "only a classifier's evaluation can be reported by class"
    confusion = confusion_matrix(log_probs.argmax(axis=1), labels, len(names))
    return ClassReport(
        evaluation=evaluation,
        names=tuple(names),
        confusion=confusion,
        classes=class_scores(confusion, names),
        confused=most_confused(confusion, names),
        calibration=calibrate(log_probs, labels),
        hardest=hardest_examples(evaluation, split, names, n_hardest),
        surest=hardest_examples(evaluation, split, names, n_hardest, least=True),
    )


def class_scores(confusion_CC: Ints, names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Scores of each class, in order. confusion: one row per true class, one column per predicted class."""
    hits = confusion_CC.diagonal().tolist()
    n_true, n_predicted = (confusion_CC.sum(axis=axis).tolist() for axis in (1, 0))
    mistakes_CC = confusion_CC - np.diag(confusion_CC.diagonal())
    return tuple(
        ClassScore(
            name=name,
            n=n_true[c],
            precision=_share(hits[c], n_predicted[c]),
            recall=_share(hits[c], n_true[c]),
            f1=_share(2 * hits[c], n_true[c] + n_predicted[c]),
            taken_for=names[int(mistakes_CC[c].argmax())] if mistakes_CC[c].any() else None,
            n_taken=int(mistakes_CC[c].max()),
        )
        for c, name in enumerate(names)
    )


def most_confused(confusion_CC: Ints, names: Sequence[str], most: int = N_CONFUSED) -> tuple[Confusion, ...]:
    """The pairs of classes that are most often taken for one another, each way for itself; the most frequent first."""
    mistakes_CC = confusion_CC - np.diag(confusion_CC.diagonal())
    order = np.argsort(-mistakes_CC, axis=None, kind="stable")[:most]
    pairs = zip(*(axis.tolist() for axis in np.unravel_index(order, mistakes_CC.shape)), strict=True)
    sizes = confusion_CC.sum(axis=1)
    return tuple(
        Confusion(
            true=names[t], predicted=names[p], n=int(mistakes_CC[t, p]), share=float(mistakes_CC[t, p] / sizes[t])
        )
        for t, p in pairs
        if mistakes_CC[t, p]
    )


def hardest_examples(
    evaluation: Evaluation, split: Split, names: Sequence[str], most: int, *, least: bool = False
) -> tuple[HardExample, ...]:
    """The rows with the highest loss, equals in their order; or those with the least."""
    assert evaluation.log_probs is not None and evaluation.labels is not None
    log_probs, labels = evaluation.log_probs.astype(np.float64), evaluation.labels
    true = log_probs[np.arange(len(labels)), labels]
    order = np.argsort(-true if least else true, kind="stable")[:most]
    predicted = log_probs.argmax(axis=1)
    return tuple(
        HardExample(
            row=int(evaluation.rows[i]),
            text=shortened(split.text(int(evaluation.rows[i]))),
            true=names[labels[i]],
            p_true=float(np.exp(log_probs[i, labels[i]])),
            predicted=names[predicted[i]],
            p_predicted=float(np.exp(log_probs[i, predicted[i]])),
        )
        for i in order.tolist()
    )


def shortened(text: str) -> str:
    """`text` on one line, its end cut off where it is long."""
    line = " ".join(text[: 20 * LONGEST_TEXT].split())  # of a long text no more is looked at
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
