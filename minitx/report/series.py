"""What a figure of outcomes draws: the numbers of every arm, their means and intervals, and both axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitx.report.curves import numbers_of
from minitx.report.drawing import COLOURS, LINES, MARKERS
from minitx.report.labels import in_words, is_accuracy, is_cost, possible_range
from minitx.report.wording import value_text
from minitx.studies.claims import ContrastResult
from minitx.studies.evidence import Evidence
from minitx.studies.statistics import paired_interval
from minitx.studies.verdicts import MIN_SEEDS
from minitx.sweeps.cells import Value

LONGEST_NAME = 44
MARGIN = 0.06
"""Of the y axis, above and below all that is drawn."""
DECADE = 10.0
"""Numbers that span this much are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Panel:
    """One measure of one study, in axes of its own."""

    evidence: Evidence
    measure: str
    contrasts: Sequence[ContrastResult] = ()
    """Those whose fitted exponents are drawn."""
    title: str = ""
    """Small, above the axes."""
    chance: float | None = None
    """The accuracy of guessing."""
    names: Mapping[str, str] | None = None
    """Arm -> its name in the figure, of the arms to draw; None = all, by their own names."""

    def name_of(self, arm: str) -> str:
        """Short enough to draw."""
        name = in_words(arm) if self.names is None else self.names[arm]
        return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"

    @property
    def arms(self) -> list[str]:
        """Of the study, those to draw."""
        return [arm for arm in self.evidence.tier.arms if self.names is None or arm in self.names]


@dataclass(frozen=True)
class Series:
    """An arm's points: their positions, and the numbers of all seeds at each."""

    arm: str
    name: str
    places: tuple[float, ...]
    numbers: tuple[tuple[float, ...], ...]
    style: int
    """Number of its colour, marker and line; arms of one name share it in all panels."""

    @property
    def colour(self) -> str:
        return COLOURS[self.style % len(COLOURS)]

    @property
    def marker(self) -> str:
        return MARKERS[self.style % len(MARKERS)]

    @property
    def line(self) -> Any:
        return LINES[self.style % len(LINES)]


@dataclass(frozen=True)
class Axis:
    """The x axis."""

    key: str | None
    places: Mapping[Value, float]
    """Value, or arm on an axis of arms -> position."""
    labels: tuple[str, ...]
    """In the order of `places`."""
    log: bool
    of_arms: bool


def axis_of(panel: Panel) -> Axis:
    """Numbers to scale; names in order; arms where there is no axis or one value."""
    evidence, tier = panel.evidence, panel.evidence.tier
    having = [
        arm for arm in panel.arms if any(evidence.per_seed(panel.measure, arm, v) for v in tier.values_of(arm))
    ]  # fmt: skip
    values = list(dict.fromkeys(v for arm in having for v in tier.values_of(arm) if v is not None))
    if len(values) < 2:
        return Axis(None, _in_order(having), tuple(map(panel.name_of, having)), log=False, of_arms=True)
    if all(numbers_of(evidence, arm) is not None for arm in having):
        places = {value: float(value) for value in sorted(values, key=float)}
        numbers = list(places.values())
        doubling = len(numbers) > 2 and numbers[0] > 0 and np.ptp(np.diff(np.log(numbers))) < 1e-9
        log = numbers[0] > 0 and (doubling or numbers[-1] >= DECADE * numbers[0])
        return Axis(tier.axis, places, tuple(map(_short, numbers)), bool(log), of_arms=False)
    order = sorted(values, key=lambda v: tier.values.index(v) if v in tier.values else len(tier.values))
    return Axis(tier.axis, _in_order(order), tuple(map(value_text, order)), log=False, of_arms=False)


def _in_order(values: Sequence[Value]) -> dict[Value, float]:
    return {value: float(place) for place, value in enumerate(values)}


def series_of(panel: Panel, axis: Axis, styles: Mapping[str, int]) -> list[Series]:
    """Of every arm that has the measure. styles: name of an arm -> number of its style."""
    found, evidence = [], panel.evidence
    for arm in panel.arms:
        seen = {v: evidence.per_seed(panel.measure, arm, v) for v in evidence.tier.values_of(arm)}
        points = {v: tuple(seeds.values()) for v, seeds in seen.items() if seeds}
        if points:
            at = {v: axis.places[arm if axis.of_arms or v is None else v] for v in points}
            order = sorted(points, key=lambda v: at[v])
            name = panel.name_of(arm)
            found.append(Series(arm, name, tuple(at[v] for v in order), tuple(points[v] for v in order), styles[name]))
    return found


def styles_of(panels: Sequence[Panel]) -> dict[str, int]:
    """Name of an arm -> number of its style, the same in all panels, and in all figures of a study."""
    names = dict.fromkeys(panel.name_of(arm) for panel in panels for arm in panel.arms)
    return {name: number for number, name in enumerate(names)}


def _short(number: float) -> str:
    """`640k` for 640,000, to save room."""
    if number >= 100_000 and number % 1000 == 0:
        return f"{number / 1000:,.0f}k"
    return f"{number:,g}" if number < 1e6 else f"{number:,.0f}"


def dodged(one: Series, axis: Axis, n_arms: int) -> list[float]:
    """Positions of an arm's means, shifted a little so that intervals of arms do not hide each other."""
    if axis.of_arms or len(axis.places) < 2 or n_arms < 2:
        return list(one.places)
    places = np.array(list(axis.places.values()))
    scaled = np.log(places) if axis.log else places
    room = min(0.2 * float(np.diff(scaled).min()), 0.03 * float(np.ptp(scaled)))
    shift = room * ((one.style % n_arms) / (n_arms - 1) - 0.5)
    return [x * math.exp(shift) if axis.log else x + shift for x in one.places]


# ------------------------------------------------------------------------------------------------------------- limits


def is_log(panel: Panel, axis: Axis) -> bool:
    """Whether the y axis is logarithmic: of fitted powers, and of times and sizes along a logarithmic axis."""
    fitted = any(one.contrast.measure == panel.measure and one.contrast.kind == "exponent" for one in panel.contrasts)
    return fitted or (axis.log and is_cost(panel.measure))


def limits_of(panels: Sequence[tuple[Panel, Sequence[Series]]], log: bool) -> tuple[float, float]:
    """Ends of the y axis that all panels share: with a margin, never beyond what the measure can be."""
    seen = [number for _, series in panels for one in series for point in one.numbers for number in point]
    shown = seen + [p.chance for p, _ in panels if p.chance is not None and is_accuracy(p.measure)]
    for panel, series in panels:
        for one in series:
            for numbers in one.numbers:
                shown += interval_of(numbers, panel.measure)[1:]
    if log:
        shown = [number for number in shown if number > 0 and number >= 0.5 * min(n for n in seen if n > 0)]
        low, high = math.log(min(shown)), math.log(max(shown))
        margin = MARGIN * (high - low) or 0.5
        return math.exp(low - margin), math.exp(high + margin)
    low, high = min(shown), max(shown)
    deltas = [one.contrast.delta for panel, _ in panels for one in panel.contrasts]
    margin = MARGIN * (high - low) or max(deltas, default=0.0) or 0.1 * abs(low) or 1.0
    ranges = [possible_range(panel.measure) for panel, _ in panels]
    least, most = min(r[0] for r in ranges), max(r[1] for r in ranges)
    return max(low - margin, min(least, low)), min(high + margin, max(most, high))


def interval_of(numbers: Sequence[float], measure: str) -> tuple[float, float, float]:
    """Mean and 95 % interval, cut at what the measure can be; the mean alone where there are too few seeds, or all are
    equal."""
    mean, low, high = paired_interval(numbers)
    if len(numbers) < MIN_SEEDS or math.isinf(low):
        return mean, mean, mean
    least, most = possible_range(measure)
    return mean, max(low, min(least, mean)), min(high, max(most, mean))
