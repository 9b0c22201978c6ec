"""From paired runs to verdicts: intervals over seeds, Holm's correction over contrasts, learning curves, exponents.

Letters in shapes: N seeds, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

Floats = npt.NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)
Verdict = Literal["supported", "contradicted", "negligible", "inconclusive"]
ALPHA = 0.05
MIN_SEEDS = 5
"""Fewer make a study exploratory, and its verdict inconclusive."""
MIN_SIZES = 4
"""Points that a curve of three parameters needs at least, so that something is left to disagree with it."""
EXPONENTS = (0.02, 4.0)
"""Where the exponent of a learning curve is looked for; one found at an end of this means nothing."""


@dataclass(frozen=True)
class Effect:
    """A paired effect over seeds, with the interval that goes with its place among all contrasts of a report."""

    mean: float
    low: float
    high: float
    n_seeds: int
    level: float
    """Confidence of the interval: 1 - alpha / k where k contrasts are left in Holm's procedure."""
    p: float
    """Smallest alpha at which this contrast alone is decided, one way or another."""
    verdict: Verdict
    """Of the effect itself: `supported` = above delta, `contradicted` = below -delta, `negligible` = within."""


def paired_interval(differences_N: npt.ArrayLike, level: float = 1 - ALPHA) -> tuple[float, float, float]:
    """(mean, low, high): Student's interval of the mean of paired differences; infinite for fewer than two seeds."""
    values = np.asarray(differences_N, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def decide(low: float, high: float, delta: float) -> Verdict:
    """The verdict of an interval, given the smallest effect worth naming."""
    if low > delta:
        return "supported"
    if high < -delta:
        return "contradicted"
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


def contrast_effects(contrasts: Mapping[Name, tuple[npt.ArrayLike, float]], alpha: float = ALPHA) -> dict[Name, Effect]:
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

    A prediction of `flat` is supported by `negligible` alone, and contradicted by an effect in either direction.
    """
    found = [_part(verdict, prediction) for verdict, prediction in parts]
    for verdict in ("contradicted", "inconclusive", "negligible"):
        if verdict in found:
            return verdict
    return "supported"


def _part(verdict: Verdict, prediction: Literal["above", "flat"]) -> Verdict:
    if prediction == "above" or verdict == "inconclusive":
        return verdict
    return "supported" if verdict == "negligible" else "contradicted"


# ------------------------------------------------------------------------------------------------------------- curves


@dataclass(frozen=True)
class LearningCurve:
    """a + b n^-c through the means over seeds (Cortes et al., 1993), with intervals by the jackknife over seeds."""

    fitted: Floats
    """(3,): a, b, c of all seeds."""
    left_out_N3: Floats
    """The same without each seed in turn."""
    level: float

    def at(self, sizes_P: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
        """(curve, low, high) at some sizes, each (P,)."""
        sizes = np.asarray(sizes_P, dtype=np.float64)
        whole, left_out_NP = _curve(self.fitted, sizes), np.array([_curve(one, sizes) for one in self.left_out_N3])
        bounds = [_jackknife(one, left, self.level) for one, left in zip(whole, left_out_NP.T, strict=True)]
        low, high = np.array(bounds).T
        return whole, low, high

    def parameter(self, name: Literal["a", "b", "c"]) -> tuple[float, float, float]:
        """(value, low, high)"""
        place = "abc".index(name)
        value = float(self.fitted[place])
        return value, *_jackknife(value, self.left_out_N3[:, place], self.level)

    def gains(self, sizes_P: npt.ArrayLike) -> tuple[float, float]:
        """Interval of what the curve gains from the smallest size to the largest."""
        ends = np.array([np.min(sizes_P), np.max(sizes_P)], dtype=np.float64)
        gain, *left_out = (float(np.subtract(*_curve(one, ends))) for one in (self.fitted, *self.left_out_N3))
        return _jackknife(gain, np.array(left_out), self.level)


def learning_curve(sizes_P: npt.ArrayLike, values_NP: npt.ArrayLike, level: float = 1 - ALPHA) -> LearningCurve | None:
    """The curve of N seeds at P sizes; None where it would mean nothing.

    That is: of fewer than MIN_SIZES sizes or two seeds, with an exponent at an end of EXPONENTS, or where the interval
    of that exponent or of what the curve gains holds 0. Points on a straight line over log n fix no exponent, and the
    limit that goes with one could be anything.
    """
    sizes, values = np.asarray(sizes_P, dtype=np.float64), np.asarray(values_NP, dtype=np.float64)
    n_seeds = len(values)
    if len(np.unique(sizes)) < MIN_SIZES or n_seeds < 2:
        return None
    fitted = _fit_curve(sizes, values.mean(0))
    least, most = EXPONENTS
    if not 1.01 * least < fitted[2] < 0.99 * most:
        return None
    left_out = [_fit_curve(sizes, np.delete(values, seed, axis=0).mean(0)) for seed in range(n_seeds)]
    curve = LearningCurve(fitted, np.array(left_out), level)
    _, *exponents = curve.parameter("c")
    return None if any(low <= 0 <= high for low, high in (exponents, curve.gains(sizes))) else curve


def _curve(abc: Floats, sizes_P: Floats) -> Floats:
    a, b, c = abc
    return np.asarray(a + b * sizes_P**-c)


def _fit_curve(sizes_P: Floats, values_P: Floats) -> Floats:
    """Least squares. Given c, a and b are a straight line's; so c alone is searched for: no start to choose."""

    def line(log_c: float) -> tuple[Floats, float]:
        powers_P2 = np.stack([np.ones_like(sizes_P), (sizes_P / sizes_P.min()) ** -np.exp(log_c)], axis=1)
        ab = np.linalg.lstsq(powers_P2, values_P, rcond=None)[0]
        return ab, float(np.square(values_P - powers_P2 @ ab).sum())

    grid = np.linspace(np.log(EXPONENTS[0]), np.log(EXPONENTS[1]), 40)
    best = int(np.argmin([line(log_c)[1] for log_c in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = optimize.minimize_scalar(lambda log_c: line(log_c)[1], bounds=around, method="bounded").x
    (a, b), c = line(found)[0], np.exp(found)
    return np.array([a, b * sizes_P.min() ** c, c])


def _jackknife(whole: float, left_out_N: Floats, level: float) -> tuple[float, float]:
    """Tukey's (1958): Student's interval of the pseudo-values N whole - (N - 1) left out, set around `whole`."""
    n = len(left_out_N)
    mean, low, high = paired_interval(n * whole - (n - 1) * left_out_N, level)
    return float(whole + low - mean), float(whole + high - mean)
