"""Calibration of a classifier: does its confidence match its accuracy? Bins and expected calibration error.

Confidence is the largest probability of an example. A calibrated model gets 80 % of the examples
with confidence 80 % right. Bins of equal width group examples by confidence (Guo et al. 2017, arXiv:1706.04599).

Letters in shapes: N examples, C classes, B bins, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from minitx.metrics.intervals import Floats, Interval, Ints, bootstrap

N_BINS = 15
NORMAL_95 = 1.96
MOST_TEMPERATURE = 20.0


def ece(log_probs_NC: npt.ArrayLike, labels_N: npt.ArrayLike) -> Interval:
    """Expected calibration error: the mean of |accuracy - confidence| over the bins, each weighing as its examples.

    Read its interval with care. Chance alone moves every bin off the diagonal, either way, and the absolute value adds
    that up: a perfectly calibrated model's error is above 0, the more so the fewer examples it has. Resampling adds
    the same once more, so the interval lies higher than it should and may even exclude the value itself. It shows
    how uncertain the error is, not whether it could be 0.
    """
    confidence_N, right_N = _outcomes(log_probs_NC, labels_N)
    gaps_NB = np.zeros((len(right_N), N_BINS))
    gaps_NB[np.arange(len(right_N)), _bin_of(confidence_N)] = right_N - confidence_N
    return bootstrap(np.hstack([gaps_NB, np.ones((len(right_N), 1))]), _error)


def _error(sums_RF: Floats) -> Floats:
    """From, of each bin, hits minus confidence, both summed, and at last the number of examples.

    A bin's size cancels: n / N |hits / n - confidence / n|.
    """
    return np.asarray(np.abs(sums_RF[:, :-1]).sum(axis=1) / sums_RF[:, -1])


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The examples of confidence in (low, high]; means are None where there are none."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Mean confidence and accuracy of a classifier, over all examples and in each bin."""

    confidence: float
    accuracy: float
    margin: float
    """Half the 95 % interval of confidence - accuracy (normal approximation); infinite of a single example."""
    bins: tuple[Bin, ...]

    @property
    def verdict(self) -> str:
        """Over-confident or under-confident, where the gap is larger than chance."""
        gap = self.confidence - self.accuracy
        if abs(gap) <= self.margin:
            return "a gap within chance"
        return "over-confident" if gap > 0 else "under-confident"

    def to_json(self) -> Mapping[str, Any]:
        """`{"confidence": x, "accuracy": x, "bins": [{"low": x, "high": x, "n": n, ...}, ...]}`."""
        return {"confidence": self.confidence, "accuracy": self.accuracy, "bins": [asdict(b) for b in self.bins]}


def calibrate(log_probs_NC: npt.ArrayLike, labels_N: npt.ArrayLike) -> Calibration:
    """The bins and means of at least one example."""
    confidence_N, right_N = _outcomes(log_probs_NC, labels_N)
    gaps_N, n = confidence_N - right_N, len(right_N)
    return Calibration(
        confidence=float(confidence_N.mean()),
        accuracy=float(right_N.mean()),
        margin=NORMAL_95 * float(gaps_N.std(ddof=1)) / n**0.5 if n > 1 else float("inf"),
        bins=_bins(confidence_N, right_N),
    )


def fit_temperature(log_probs_NC: npt.ArrayLike, labels_N: npt.ArrayLike) -> float:
    """The number by which logits are to be divided so that these labels are likeliest (Guo et al. 2017, section 4.2).

    Log-probabilities do for logits: they differ by a constant in each row. N rows that are all right would ask for 0,
    and leave no doubt on any other text; so each label has the share (N + 1) / (N + 2) of its row, and the other
    classes what is left, as in Platt 1999, section 2.2. Between 1 / 20 and 20.
    """
    logits_NC, labels_N = np.asarray(log_probs_NC, dtype=np.float64), np.asarray(labels_N)
    n, n_classes = logits_NC.shape
    shares_NC = np.full((n, n_classes), 1 / (n + 2) / max(1, n_classes - 1))
    shares_NC[np.arange(n), labels_N] = (n + 1) / (n + 2)

    def loss(log_temperature: float) -> float:
        scaled_NC = logits_NC / np.exp(log_temperature)
        return float((logsumexp(scaled_NC, axis=1) - (shares_NC * scaled_NC).sum(axis=1)).mean())

    bound = np.log(MOST_TEMPERATURE)
    found = minimize_scalar(loss, bounds=(-bound, bound), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _bins(confidence_N: Floats, right_N: Floats) -> tuple[Bin, ...]:
    bin_N = _bin_of(confidence_N)
    sizes = np.bincount(bin_N, minlength=N_BINS).tolist()
    sums = [np.bincount(bin_N, weights=x, minlength=N_BINS).tolist() for x in (confidence_N, right_N)]
    means = [[total / n if n else None for total, n in zip(each, sizes, strict=True)] for each in sums]
    edges = (np.arange(N_BINS + 1) / N_BINS).tolist()
    rows = zip(edges[:-1], edges[1:], sizes, *means, strict=True)
    return tuple(Bin(low=low, high=high, n=n, confidence=c, accuracy=a) for low, high, n, c, a in rows)


def _outcomes(log_probs_NC: npt.ArrayLike, labels_N: npt.ArrayLike) -> tuple[Floats, Floats]:
    """(N,) confidence and (N,) 1 where the likeliest class is the label, 0 elsewhere."""
    log_probs_NC = np.asarray(log_probs_NC)
    confidence_N = np.exp(log_probs_NC.max(axis=1).astype(np.float64))
    return confidence_N, (log_probs_NC.argmax(axis=1) == np.asarray(labels_N)).astype(np.float64)


def _bin_of(confidence_N: Floats) -> Ints:
    """(N,) 0 ... B - 1: bin b holds (b / B, (b + 1) / B]; what is no number counts as the last, and stays none."""
    return np.searchsorted(np.arange(1, N_BINS) / N_BINS, confidence_N, side="left")
