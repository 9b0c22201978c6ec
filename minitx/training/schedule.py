"""The learning rate of the next step, and how long a run still is: by steps, or by the clock where minutes limit it.

    steps   known from the first step on; the learning rate is a function of the step alone
    minutes warm-up over a share of the steps that the speed so far promises; then decay by the share of the time that
            is over, so that the end of the minutes is the end of the schedule, whatever the machine does meanwhile

With both, whichever is further on decides: where the steps end first, the run is the one without minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from minitx.config import OptimConfig
from minitx.training.optim import decayed_rate, learning_rate, warmup_steps

SETTLED_AT = 10
"""The first steps compile, fault pages in and fill caches; they say nothing about speed."""
TRUSTED_AT = 0.02
"""Share of the minutes after which the speed so far counts; a moment's hindrance is no speed."""
UNKNOWN_STEPS = 10_000
"""Taken for the length of a run of minutes alone until its speed counts; it is warming up then."""


@dataclass(frozen=True)
class WarmUp:
    """How the warm-up of a run with `max_minutes` ended; fixed from then on, so the learning rate only falls."""

    steps: int
    seconds: float
    """Of training, when it ended."""


class Place(Protocol):
    """What the schedule reads of a run's counters, and the one thing that it writes there."""

    step: int
    seconds: float
    settled: float | None
    warm_up: WarmUp | None


class Schedule:
    """From where a run is to the learning rate of its next step; its whole state is in the run's counters."""

    def __init__(self, optim: OptimConfig, steps: int | None, seconds: float | None) -> None:
        """steps, seconds: the limits of the run (one at least), seconds of training alone."""
        assert steps is not None or seconds is not None, "a run needs an end"
        self.optim, self.steps, self.seconds = optim, steps, seconds

    def total_steps(self, place: Place) -> int:
        """The step at which the run ends, as far as it is known now (exactly, without minutes)."""
        promised = None if self.seconds is None else self._promised_steps(place, self.seconds)
        known = [steps for steps in (self.steps, promised) if steps is not None]
        return min(known) if known else max(UNKNOWN_STEPS, place.step + 1)

    def _promised_steps(self, place: Place, seconds: float) -> int | None:
        """By the mean speed so far; None = it does not count yet. Never fewer than one more."""
        if place.settled is None or place.step <= SETTLED_AT:
            return None
        took = place.seconds - place.settled
        if took <= max(0.0, TRUSTED_AT * (seconds - place.settled)):
            return None
        left = max(0.0, seconds - place.seconds) * (place.step - SETTLED_AT) / took
        return place.step + max(1, round(left))

    def is_over(self, place: Place) -> bool:
        """Whether the first limit is reached."""
        out_of_time = self.seconds is not None and place.seconds >= self.seconds
        return out_of_time or (self.steps is not None and place.step >= self.steps)

    def learning_rate(self, place: Place) -> float:
        """Of the step that comes next. Notes in `place` when the warm-up of a run with minutes is over."""
        total = self.total_steps(place)
        if self.seconds is None:
            return learning_rate(self.optim, place.step, total)
        if place.warm_up is None:
            place.warm_up = self._ended_warm_up(place, warmup_steps(self.optim, total))
        if place.warm_up is None:
            return learning_rate(self.optim, place.step, total)
        done = max(self._done_by_steps(place, place.warm_up), self._done_by_time(place, place.warm_up, self.seconds))
        return decayed_rate(self.optim, place.step, place.warm_up.steps, done)

    def _ended_warm_up(self, place: Place, steps: int) -> WarmUp | None:
        """The warm-up of so many steps, once it is over; where that was earlier, when it was by the mean speed."""
        if place.step < steps:
            return None
        return WarmUp(steps, place.seconds * steps / place.step if place.step else 0.0)

    def _done_by_steps(self, place: Place, warm_up: WarmUp) -> float:
        if self.steps is None:
            return -math.inf
        return (place.step + 1 - warm_up.steps) / (max(self.steps, warm_up.steps) - warm_up.steps + 1)

    def _done_by_time(self, place: Place, warm_up: WarmUp, seconds: float) -> float:
        left = seconds - warm_up.seconds
        return (place.seconds - warm_up.seconds) / left if left > 0 else 1.0
