"""Intervals over seeds, and learning curves.

Letters in shapes: N seeds, P points of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

Floats = npt.NDArray[np.float64]
ALPHA = 0.05
MIN_SIZES = 4
"""Points that a curve of three parameters needs at least, so that something is left to disagree with it."""
EXPONENTS = (0.02, 4.0)
"""Where the exponent of a learning curve is looked for; one found at an end of this means nothing."""


def paired_interval(differences_N: npt.ArrayLike, level: float = 1 - ALPHA) -> tuple[float, float, float]:
    """(mean, low, high): Student's interval of the mean of paired differences.

    Infinite for fewer than two seeds, and where all are equal: values without spread say nothing of how far the next
    one may lie.
    """
    values = np.asarray(differences_N, dtype=np.float64)
    if len(values) < 2 or np.ptp(values) == 0:
        return float(values.mean()), -np.inf, np.inf
    return _student(values, level)


def _student(values: Floats, level: float) -> tuple[float, float, float]:
    mean = float(values.mean())
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


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
    mean, low, high = _student(n * whole - (n - 1) * left_out_N, level)
    return float(whole + low - mean), float(whole + high - mean)
