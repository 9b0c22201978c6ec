"""The length from which on one thing takes longer than another, read off between measured lengths.

Numbers are geometric means over seeds; between two lengths the logarithm of a ratio goes in proportion to the
logarithm of the length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from minitx.studies.evidence import Evidence
from minitx.studies.report.curves import geometric_mean, numbers_of
from minitx.studies.report.words import axis_name, value_text

MIXING, TRAINING = "cost.mixing_seconds", "cost.training_seconds"
ATTENTION = "transformer"
"""The model that has a part which mixes positions; of others all is timed as mixing."""
Times = Mapping[float, float]
"""Length -> seconds."""


def overtakings(evidence: Evidence) -> Iterator[str]:
    """Of costs: where attention takes more than half of a layer's training step, and where attention to all positions
    overtakes attention in a window, and all of a layer that convolves or recurs."""
    for arm in _arms(evidence, attends=True):
        own = _times(evidence, arm, MIXING)
        half = {length: seconds / 2 for length, seconds in _times(evidence, arm, TRAINING).items()}
        yield f"The attention of {arm} takes more than half of a training step: {_where(evidence, own, half)}."
        if _is_windowed(evidence, arm):
            continue
        for other in _arms(evidence, attends=True):
            if _is_windowed(evidence, other):
                where = _where(evidence, own, _times(evidence, other, MIXING))
                yield f"The attention of {arm} takes longer than that of {other}: {where}."
        for other in _arms(evidence, attends=False):
            where = _where(evidence, own, _times(evidence, other, TRAINING))
            yield f"The attention of {arm} takes longer than a training step of {other}: {where}."


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
        return "not within the measured lengths"
    if length == min(own.keys() & other.keys()):
        return f"at every measured {axis}, {value_text(round(length))} and more"
    return f"from {axis} {value_text(round(length))} on"


def _arms(evidence: Evidence, *, attends: bool) -> list[str]:
    """Arms whose cost was measured along numbers."""
    return [
        arm
        for arm in evidence.tier.arms
        if _times(evidence, arm, MIXING) and (_said(evidence, arm, "model", ATTENTION) == ATTENTION) == attends
    ]


def _is_windowed(evidence: Evidence, arm: str) -> bool:
    return _said(evidence, arm, "model.attention.span", "global") == "window"


def _said(evidence: Evidence, arm: str, key: str, default: str) -> str:
    """What the arm's overrides say of a key, the last one first."""
    overrides = [*evidence.tier.overrides, *evidence.tier.arms[arm].overrides]
    values = [value for name, _, value in (override.partition("=") for override in overrides) if name == key]
    return values[-1] if values else default


def _times(evidence: Evidence, arm: str, measure: str) -> Times:
    if numbers_of(evidence, arm) is None:
        return {}
    means = {value: geometric_mean(evidence, measure, arm, value) for value in evidence.tier.values_of(arm)}
    return {float(value): mean for value, mean in means.items() if value is not None and mean is not None}
