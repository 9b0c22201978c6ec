"""From paired runs to verdicts: intervals over seeds, Holm's correction over contrasts, learning curves, exponents.

Letters in shapes: N seeds, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Verdict = Literal["supported", "reversed", "negligible", "inconclusive"]
ALPHA = 0.05
MIN_SEEDS = 5
"""Fewer make a study exploratory, and its verdict inconclusive."""


@dataclass(frozen=True)
class Effect:
    """A paired effect over seeds, with the interval that goes with its place among all contrasts of a report."""

    mean: float
    low: float
    high: float
    n_seeds: int
    level: float
    """Confidence of the interval: 1 - alpha / k where Holm's procedure looks at k contrasts still."""
    p: float
    """Smallest alpha at which this contrast alone is decided, one way or another."""
    verdict: Verdict
    """Of the effect itself: `supported` = above delta, `reversed` = below -delta, `negligible` = within."""


def paired_interval(differences_N: npt.ArrayLike, level: float = 1 - ALPHA) -> tuple[float, float, float]:
    """(mean, low, high): Student's interval of the mean of paired differences; infinite for fewer than two seeds."""
    values = np.asarray(differences_N, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def decide(low: float, high: float, delta: float) -> Verdict:
    """What an interval says beside the smallest effect worth naming."""
    if low > delta:
        return "supported"
    if high < -delta:
        return "reversed"
    return "negligible" if -delta < low and high < delta else "inconclusive"


def deciding_alpha(differences_N: npt.ArrayLike, delta: float) -> float:
    """The smallest alpha at which the (1 - alpha) interval decides; 1 where none does.

    The three decisions exclude each other: the interval of a mean above delta, below -delta or between them can leave
    the area that it lies in only by growing, so the alpha is that of the bound it meets first.
    """
    values = np.asarray(differences_N, dtype=np.float64)
    n, mean = len(values), float(values.mean())
    margin = delta - abs(mean) if abs(mean) < delta else abs(mean) - delta
    if n < 2 or margin <= 0:
        return 1.0
    spread = float(values.std(ddof=1) / np.sqrt(n))
    return float(2 * stats.t.sf(margin / spread, n - 1)) if spread else 0.0


def judge(contrasts: Mapping[str, tuple[npt.ArrayLike, float]], alpha: float = ALPHA) -> dict[str, Effect]:
    """Name -> (paired differences (N,), delta) of every contrast of a report -> their effects.

    Holm's procedure (1979) on the deciding alphas: the k-th smallest of m is held to alpha / (m - k + 1), until one
    fails; it and all after it are inconclusive. Each contrast's interval has the level that it was held to, so that a
    reader sees the verdict in it. Contrasts of fewer than MIN_SEEDS seeds are inconclusive whatever they show; they
    stay in the count.
    """
    p = {name: deciding_alpha(values, delta) for name, (values, delta) in contrasts.items()}
    effects, failed_at = {}, None
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        values, delta = contrasts[name]
        held_to = failed_at or alpha / (len(p) - rank)
        mean, low, high = paired_interval(values, 1 - held_to)
        verdict = decide(low, high, delta) if failed_at is None else "inconclusive"
        if verdict == "inconclusive":
            failed_at = held_to
        n_seeds = len(np.asarray(values))
        shown = verdict if n_seeds >= MIN_SEEDS else "inconclusive"
        effects[name] = Effect(mean, low, high, n_seeds, 1 - held_to, p[name], shown)
    return {name: effects[name] for name in contrasts}


def claim_verdict(parts: Sequence[tuple[Verdict, Literal["above", "flat"]]]) -> Verdict:
    """A claim of several parts, each (its effect's verdict, its prediction): supported if every part is.

    A prediction of `flat` is supported by `negligible` alone, and reversed by an effect in either direction.
    """
    found = [_part(verdict, prediction) for verdict, prediction in parts]
    for verdict in ("reversed", "inconclusive", "negligible"):
        if verdict in found:
            return verdict
    return "supported"


def _part(verdict: Verdict, prediction: Literal["above", "flat"]) -> Verdict:
    if prediction == "above" or verdict == "inconclusive":
        return verdict
    return "supported" if verdict == "negligible" else "reversed"
