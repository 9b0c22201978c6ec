"""Each contrast, seed by seed: differences, ratios, slopes, exponents, and how many times the rows an arm needs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from minitx.studies.evidence import Evidence
from minitx.studies.study import Contrast
from minitx.studies.verdicts import Method, Part
from minitx.sweeps.cells import Value

LAST_DECADE = 10.0

Bounds = tuple[float, float]
"""(low, high) of a number: equal where it is known, else what it lies between."""


def part_of(evidence: Evidence, contrast: Contrast, seeds: Collection[int]) -> tuple[Part, tuple[int, ...]]:
    """The contrast's values of those seeds that have every cell that it reads, and these seeds."""
    bounds = {seed: both for seed, both in contrast_bounds(evidence, contrast).items() if seed in seeds}
    low, high = (tuple(both[side] for both in bounds.values()) for side in (0, 1))
    method: Method = contrast.test
    if contrast.solved_at is not None:
        method = "rate" if contrast.against is None else "solved"
    centre = contrast.centre if method == "rate" else 0.0
    return Part(low, high, contrast.delta, contrast.expect, method, centre), tuple(bounds)


def contrast_bounds(evidence: Evidence, contrast: Contrast) -> dict[int, Bounds]:
    """Seed -> bounds of the contrast; only seeds that have every cell that it reads."""
    return _CONTRASTS[contrast.kind](evidence, contrast)


def known(both: Bounds) -> float:
    """The value; of a censored one the bound that is known, NaN without any."""
    low, high = both
    if math.isinf(low) and math.isinf(high):
        return math.nan
    return high if math.isinf(low) else low


def _read(evidence: Evidence, contrast: Contrast, arm: str, value: Value | None) -> dict[int, Bounds]:
    """Seed -> what the cells of a place say: the measure, 1 or 0 for solved or not, or how far a run came that never
    got there."""
    if contrast.solved_at is not None:
        seen = evidence.per_seed(contrast.measure, arm, value)
        return {seed: (_solved(number, contrast.solved_at),) * 2 for seed, number in seen.items()}
    found = {}
    for seed, cell in evidence.table.get((arm, value), {}).items():
        if contrast.measure in cell.measures:
            found[seed] = (cell.measures[contrast.measure],) * 2
        elif contrast.censored_at is not None and contrast.censored_at in cell.measures:
            found[seed] = (cell.measures[contrast.censored_at], math.inf)
    return found


def _solved(number: float, at: float) -> float:
    """1 or 0, and NaN of what is no number."""
    return number if math.isnan(number) else float(number >= at)


def _difference(evidence: Evidence, contrast: Contrast) -> dict[int, Bounds]:
    own = _read(evidence, contrast, contrast.arm, contrast.at)
    if contrast.against is None:
        centre = 0.0 if contrast.solved_at is not None else contrast.centre
        return {seed: (low - centre, high - centre) for seed, (low, high) in own.items()}
    return _paired(own, _read(evidence, contrast, contrast.against, contrast.other_at))


def _paired(own: Mapping[int, Bounds], other: Mapping[int, Bounds]) -> dict[int, Bounds]:
    """own - other; where both are censored nothing is known."""
    return {seed: (low - other[seed][1], high - other[seed][0]) for seed, (low, high) in own.items() if seed in other}


def _log_ratio(evidence: Evidence, contrast: Contrast) -> dict[int, Bounds]:
    assert contrast.against is not None, "a study's declaration says so"
    own = _read(evidence, contrast, contrast.arm, contrast.at)
    other = _read(evidence, contrast, contrast.against, contrast.other_at)
    if any(low <= 0 for low, _ in (*own.values(), *other.values())):
        return {}
    logs = [{s: (math.log(low), math.log(high)) for s, (low, high) in side.items()} for side in (own, other)]
    return _paired(*logs)


def _slope(evidence: Evidence, contrast: Contrast) -> dict[int, Bounds]:
    """On the logarithm of the axis, by least squares."""
    values = evidence.tier.values_of(contrast.arm)
    gaps = [
        _plain(_difference(evidence, contrast.model_copy(update={"at": value, "against_at": None}))) for value in values
    ]
    base, sign = 10.0 if contrast.per == "tenfold" else 2.0, -1.0 if contrast.falls else 1.0
    log_V = np.log(np.array(values, dtype=np.float64)) / math.log(base)
    return {seed: (sign * _steepness(log_V, [gap[seed] for gap in gaps]),) * 2 for seed in _common(gaps)}


def _steepness(x: np.ndarray, y: Sequence[float]) -> float:
    """The slope of a straight line by least squares; NaN where a value is not finite, through which there is none."""
    return float(np.polyfit(x, y, 1)[0]) if np.isfinite(y).all() else math.nan


def _exponent(evidence: Evidence, contrast: Contrast) -> dict[int, Bounds]:
    """Minus its centre; on the values of the axis within a decade of the largest."""
    by_length = _along(evidence, contrast)
    top = [n for n in by_length if n * LAST_DECADE >= max(by_length)]
    return _powers({n: by_length[n] for n in top}, contrast.centre)


def _excess_exponent(evidence: Evidence, contrast: Contrast) -> dict[int, Bounds]:
    """Of m(2n) - 2 m(n), over all lengths that have their double."""
    by_length = _along(evidence, contrast)
    excess = {
        n: {seed: by_length[2 * n][seed] - 2 * seen[seed] for seed in _common([seen, by_length[2 * n]])}
        for n, seen in by_length.items()
        if 2 * n in by_length
    }
    return _powers(excess, contrast.centre)


def _along(evidence: Evidence, contrast: Contrast) -> dict[float, dict[int, float]]:
    """Number on the axis -> seed -> the arm's measure, where there is one."""
    seen = {
        float(value): evidence.per_seed(contrast.measure, contrast.arm, value)
        for value in evidence.tier.values_of(contrast.arm)
        if value is not None
    }
    return {number: by_seed for number, by_seed in sorted(seen.items()) if by_seed}


def _powers(by_length: Mapping[float, Mapping[int, float]], centre: float) -> dict[int, Bounds]:
    if len(by_length) < 2 or any(value <= 0 for seen in by_length.values() for value in seen.values()):
        return {}
    log_V = np.log([*by_length])
    return {
        seed: (_steepness(log_V, np.log([s[seed] for s in by_length.values()]).tolist()) - centre,) * 2
        for seed in _common([*by_length.values()])
    }


def _rows_ratio(evidence: Evidence, contrast: Contrast) -> dict[int, Bounds]:
    """log10 of rows that the arm needs, less log10 of those that the other needs, to come as far."""
    assert contrast.against is not None, "a study's declaration says so"
    own, other = (
        _along(evidence, contrast.model_copy(update={"arm": arm})) for arm in (contrast.arm, contrast.against)
    )
    if not own or not other:
        return {}
    found = {}
    for seed in _common([*own.values(), *other.values()]):
        curves = [[(math.log10(n), seen[seed]) for n, seen in side.items()] for side in (own, other)]
        if any(math.isnan(score) for curve in curves for _, score in curve):
            found[seed] = [(math.nan,) * 2] * 2
            continue
        level = contrast.centre + contrast.share * (min(curve[-1][1] for curve in curves) - contrast.centre)
        found[seed] = [_rows_to(curve, level) for curve in curves]
    return {seed: (a[0] - b[1], a[1] - b[0]) for seed, (a, b) in found.items()}


def _rows_to(curve: Sequence[tuple[float, float]], level: float) -> Bounds:
    """Where a learning curve of (log10 rows, score) first comes to `level`, between two sizes by a line; below the
    smallest size it is only known to be below."""
    if curve[0][1] >= level:
        return -math.inf, curve[0][0]
    for (x, y), (x_next, y_next) in itertools.pairwise(curve):
        if y < level <= y_next:
            return (x + (level - y) / (y_next - y) * (x_next - x),) * 2
    return curve[-1][0], math.inf


def _plain(bounds: Mapping[int, Bounds]) -> dict[int, float]:
    """Those that are known, and those that are no number."""
    return {seed: low for seed, (low, high) in bounds.items() if low == high or math.isnan(low)}


def _common(tables: Sequence[Mapping[int, float]]) -> list[int]:
    """Seeds that all of them have."""
    return sorted(set.intersection(*(set(table) for table in tables))) if tables else []


_CONTRASTS: dict[str, Callable[[Evidence, Contrast], dict[int, Bounds]]] = {
    "difference": _difference,
    "log_ratio": _log_ratio,
    "slope": _slope,
    "exponent": _exponent,
    "excess_exponent": _excess_exponent,
    "rows_ratio": _rows_ratio,
}
