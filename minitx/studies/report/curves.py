"""What is laid through an arm's points: learning curves, lines of an exponent, and where two arms cross."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from minitx.studies.evidence import LAST_DECADE, Evidence, PartFinding
from minitx.studies.statistics import Floats, LearningCurve, learning_curve, paired_interval
from minitx.studies.study import Part, Value

DATA_SIZE = "data.train_size"
"""The axis along which a measure is a learning curve."""


@dataclass(frozen=True)
class Line:
    """A power law through the last tenfold of the axis: (2,) ends of it."""

    exponent: float
    x: Floats
    y: Floats


def numbers_of(evidence: Evidence, arm: str) -> list[float] | None:
    """The arm's values on the axis, where all of them are numbers."""
    values = evidence.tier.values_of(arm)
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return numbers if numbers and len(numbers) == len(values) else None


def learning_curves(evidence: Evidence, measure: str) -> dict[str, LearningCurve]:
    """Arm -> its curve, where the axis is the size of the data and the fit means something."""
    if evidence.tier.axis != DATA_SIZE:
        return {}
    found = {}
    for arm in evidence.tier.arms:
        curve = _curve_of(evidence, measure, arm)
        if curve is not None:
            found[arm] = curve
    return found


def _curve_of(evidence: Evidence, measure: str, arm: str) -> LearningCurve | None:
    """Of the seeds that all sizes have."""
    if numbers_of(evidence, arm) is None:
        return None
    seen = {v: evidence.per_seed(measure, arm, v) for v in evidence.tier.values_of(arm)}
    sizes = [value for value, seeds in seen.items() if seeds]
    common = sorted(set.intersection(*(set(seen[size]) for size in sizes))) if sizes else []
    values_NP = [[seen[size][seed] for size in sizes] for seed in common]
    return learning_curve([float(size) for size in sizes if size is not None], values_NP)


def exponent_line(evidence: Evidence, found: PartFinding) -> Line | None:
    """The fitted power through the middle of the points that it was fitted to."""
    part = found.part
    numbers = numbers_of(evidence, part.arm)
    if part.contrast != "exponent" or numbers is None:
        return None
    means = {
        float(v): geometric_mean(evidence, part.measure, part.arm, v)
        for v in evidence.tier.values_of(part.arm)
        if v is not None
    }
    there = {number: mean for number, mean in means.items() if mean is not None and mean > 0}
    top = np.array([number for number in there if number * LAST_DECADE >= max(there)])
    exponent = part.centre + found.effect.mean
    log_y = np.log([there[number] for number in top])
    ends = np.array([top.min(), top.max()])
    return Line(exponent, ends, np.exp(log_y.mean() + exponent * (np.log(ends) - np.log(top).mean())))


def geometric_mean(evidence: Evidence, measure: str, arm: str, value: Value | None) -> float | None:
    """Over the seeds whose number is above 0; None without any."""
    numbers = [number for number in evidence.per_seed(measure, arm, value).values() if number > 0]
    return math.exp(math.fsum(map(math.log, numbers)) / len(numbers)) if numbers else None


def crossings(evidence: Evidence, part: Part) -> list[tuple[Value, Value]]:
    """Neighbouring values between which the paired gap changes its sign, both intervals (95 %) clear of 0."""
    if part.against is None or numbers_of(evidence, part.arm) is None:
        return []
    signs: list[tuple[Value, int]] = []
    for value in evidence.tier.values_of(part.arm):
        own, other = (evidence.per_seed(part.measure, arm, value) for arm in (part.arm, part.against))
        gaps = [own[seed] - other[seed] for seed in own if seed in other]
        _, low, high = paired_interval(gaps) if gaps else (0.0, -1.0, 1.0)
        if value is not None and not low <= 0 <= high:
            signs.append((value, 1 if low > 0 else -1))
    return [(a, b) for (a, before), (b, after) in itertools.pairwise(signs) if before != after]
