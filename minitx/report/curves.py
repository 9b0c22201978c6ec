"""What is laid through an arm's points: learning curves, lines of an exponent, and where two arms cross."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from minitx.report.labels import axis_name
from minitx.report.phrases import say
from minitx.report.wording import value_text
from minitx.studies.claims import ContrastResult
from minitx.studies.contrasts import LAST_DECADE
from minitx.studies.evidence import Evidence
from minitx.studies.statistics import Floats, LearningCurve, learning_curve, paired_interval
from minitx.studies.study import Contrast
from minitx.sweeps.cells import Value

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


def exponent_line(evidence: Evidence, found: ContrastResult) -> Line | None:
    """The fitted power through the middle of the points that it was fitted to."""
    contrast = found.contrast
    numbers = numbers_of(evidence, contrast.arm)
    if contrast.kind != "exponent" or numbers is None:
        return None
    means = {
        float(v): geometric_mean(evidence, contrast.measure, contrast.arm, v)
        for v in evidence.tier.values_of(contrast.arm)
        if v is not None
    }
    there = {number: mean for number, mean in means.items() if mean is not None and mean > 0}
    top = np.array([number for number in there if number * LAST_DECADE >= max(there)])
    exponent = contrast.centre + found.effect.mean
    log_y = np.log([there[number] for number in top])
    ends = np.array([top.min(), top.max()])
    return Line(exponent, ends, np.exp(log_y.mean() + exponent * (np.log(ends) - np.log(top).mean())))


def geometric_mean(evidence: Evidence, measure: str, arm: str, value: Value | None) -> float | None:
    """Over the seeds whose number is above 0; None without any."""
    numbers = [number for number in evidence.per_seed(measure, arm, value).values() if number > 0]
    return math.exp(math.fsum(map(math.log, numbers)) / len(numbers)) if numbers else None


def crossings(evidence: Evidence, contrast: Contrast) -> list[tuple[Value, Value]]:
    """Neighbouring values between which the paired gap changes its sign, both intervals (95 %) clear of 0."""
    if contrast.against is None or numbers_of(evidence, contrast.arm) is None:
        return []
    signs: list[tuple[Value, int]] = []
    for value in evidence.tier.values_of(contrast.arm):
        own, other = (evidence.per_seed(contrast.measure, arm, value) for arm in (contrast.arm, contrast.against))
        gaps = [own[seed] - other[seed] for seed in own if seed in other]
        _, low, high = paired_interval(gaps) if gaps else (0.0, -1.0, 1.0)
        if value is not None and not low <= 0 <= high:
            signs.append((value, 1 if low > 0 else -1))
    return [(a, b) for (a, before), (b, after) in itertools.pairwise(signs) if before != after]


MIXING, TRAINING = "cost.mixing_seconds", "cost.training_seconds"
ATTENTION = "transformer"
"""The model with a part that mixes positions; of others all is timed as mixing."""
Times = Mapping[float, float]
"""Length -> seconds."""


def overtakings(evidence: Evidence) -> Iterator[str]:
    """Of costs: where attention takes more than half of a layer's training step, and where attention to all positions
    overtakes attention in a window, and all of a layer that convolves or recurs."""
    for arm in _arms(evidence, attends=True):
        own = _times(evidence, arm, MIXING)
        half = {length: seconds / 2 for length, seconds in _times(evidence, arm, TRAINING).items()}
        yield say(
            "The attention of {arm} takes more than half of a training step: {where}.",
            arm=arm, where=_where(evidence, own, half),
        )  # fmt: skip
        if _is_windowed(evidence, arm):
            continue
        for other in _arms(evidence, attends=True):
            if _is_windowed(evidence, other):
                where = _where(evidence, own, _times(evidence, other, MIXING))
                yield say(
                    "The attention of {arm} takes longer than that of {other}: {where}.",
                    arm=arm,
                    other=other,
                    where=where,
                )
        for other in _arms(evidence, attends=False):
            where = _where(evidence, own, _times(evidence, other, TRAINING))
            yield say(
                "The attention of {arm} takes longer than a training step of {other}: {where}.",
                arm=arm, other=other, where=where,
            )  # fmt: skip


def overtakes(own: Times, other: Times) -> float | None:
    """The length from which on `own` is above `other`; the shortest that both have where it always is, None where it is
    not at the longest."""
    lengths = sorted(own.keys() & other.keys())
    log_ratios = [math.log(own[length] / other[length]) for length in lengths]
    if not lengths or log_ratios[-1] <= 0:
        return None
    below = max((place for place, log_ratio in enumerate(log_ratios) if log_ratio <= 0), default=None)
    if below is None:
        return lengths[0]
    (a, b), (low, high) = log_ratios[below : below + 2], lengths[below : below + 2]
    return low * math.exp(a / (a - b) * math.log(high / low))


def _where(evidence: Evidence, own: Times, other: Times) -> str:
    axis, length = axis_name(evidence.tier.axis), overtakes(own, other)
    if length is None:
        return say("not within the measured lengths")
    if length == min(own.keys() & other.keys()):
        return say("at every measured {axis}, {length} and more", axis=axis, length=value_text(round(length)))
    return say("from {axis} {length} on", axis=axis, length=value_text(round(length)))


def _arms(evidence: Evidence, *, attends: bool) -> list[str]:
    """Arms whose cost was measured along numbers."""
    return [
        arm
        for arm in evidence.tier.arms
        if _times(evidence, arm, MIXING) and (override_of(evidence, arm, "model", ATTENTION) == ATTENTION) == attends
    ]


def _is_windowed(evidence: Evidence, arm: str) -> bool:
    return override_of(evidence, arm, "model.attention.span", "global") == "window"


def override_of(evidence: Evidence, arm: str, key: str, default: str) -> str:
    """What the arm's overrides say of a key, the last one first."""
    overrides = [*evidence.tier.overrides, *evidence.tier.arms[arm].overrides]
    values = [value for name, _, value in (override.partition("=") for override in overrides) if name == key]
    return values[-1] if values else default


def _times(evidence: Evidence, arm: str, measure: str) -> Times:
    if numbers_of(evidence, arm) is None:
        return {}
    means = {value: geometric_mean(evidence, measure, arm, value) for value in evidence.tier.values_of(arm)}
    return {float(value): mean for value, mean in means.items() if value is not None and mean is not None}
