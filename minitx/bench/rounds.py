"""Rounds, in which contestants take turns so that a slow minute falls on all of them; then medians and ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")


def turn(items: Sequence[Item], number: int) -> list[Item]:
    """The order of round `number`: rotated by one from round to round."""
    shift = number % len(items) if items else 0
    return [*items[shift:], *items[:shift]]


def medians(measurements: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """{label: median over rounds of `key`}, of those that have been measured."""
    return {label: statistics.median(values.values()) for label, values in _by_label(measurements, key).items()}


def ratios(measurements: Sequence[Mapping[str, Any]], key: str, base: str) -> dict[str, dict[str, Any]]:
    """{opponent: {"median", "min", "max", "rounds"}}: `base` over the opponent within each round that has both."""
    by_label = _by_label(measurements, key)
    own = by_label.pop(base, {})
    found = {}
    for label, values in by_label.items():
        each = [own[number] / values[number] for number in sorted(own.keys() & values.keys())]
        if each:
            found[label] = {"median": statistics.median(each), "min": min(each), "max": max(each), "rounds": each}
    return found


def _by_label(measurements: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[int, float]]:
    """{label: {round: value}} of successful measurements."""
    found: dict[str, dict[int, float]] = {}
    for measured in measurements:
        if measured["status"] == "ok" and key in measured:
            found.setdefault(measured["label"], {})[measured["round"]] = measured[key]
    return found


def growth_exponent(points: Mapping[int, float], last: int = 3) -> float | None:
    """Slope of log y over log x through the `last` largest x by least squares; None for fewer points or y <= 0."""
    chosen = sorted((x, y) for x, y in points.items() if y > 0)[-last:]
    if len(chosen) < last:
        return None
    xs, ys = [math.log(x) for x, _ in chosen], [math.log(y) for _, y in chosen]
    return statistics.linear_regression(xs, ys).slope
