"""Lines that say how far a long preparation of data is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
Report = Callable[[str], None]
"""Gets one line for the user."""
SECONDS_BETWEEN_LINES = 10.0


def silent(line: str) -> None:
    """Nobody wants to know."""


class Progress:
    """`train.csv: 1,200,000 of 5,000,000 texts, 0:42 left`, every ten seconds: what is done sooner says nothing."""

    def __init__(self, what: str, unit: str, report: Report, total: int | None = None, done: int = 0) -> None:
        """total: None where it is not known. done: before now, which tells nothing of the speed."""
        self._what, self._unit, self._report, self._total = what, unit, report, total
        self._done = self._before = done
        self._began = self._last = time.monotonic()

    def add(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        line = f"{self._what}: {self._done:,} "
        if self._total is not None:
            each = (now - self._began) / max(1, self._done - self._before)
            minutes, seconds = divmod(round(each * (self._total - self._done)), 60)
            line += f"of {self._total:,} {self._unit}, {minutes}:{seconds:02d} left"
        self._report(line if self._total is not None else f"{line}{self._unit}")

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """The items, each counted."""
        for item in items:
            yield item
            self.add()
