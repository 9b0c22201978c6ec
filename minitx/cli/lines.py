"""Standard input as lines of text, in chunks, with progress told on the error stream."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from minitx.errors import ConfigError

SECONDS_BETWEEN_LINES = 10.0
"""Of progress, where no live line can be shown."""
Item = TypeVar("Item")


def read_lines() -> Iterator[str]:
    """Lines of standard input without their ends; one that is not UTF-8 is a ConfigError, whatever the locale."""
    for number, raw in enumerate(sys.stdin.buffer, start=1):
        try:
            yield raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"line {number:,} of standard input must be UTF-8 text; {error.reason}") from None


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one shorter."""
    chunk: list[Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class LineProgress:
    """Lines answered so far and their speed: a live line where a person looks on and the answers go elsewhere, else a
    line now and then."""

    def __init__(self, silent: bool = False) -> None:
        self.n_lines, self.silent = 0, silent
        self._live = sys.stderr.isatty() and not sys.stdout.isatty()
        self._start = self._last = time.monotonic()

    def advance(self, n_lines: int) -> None:
        self.n_lines += n_lines
        now = time.monotonic()
        if self.silent or not (self._live or now - self._last >= SECONDS_BETWEEN_LINES):
            return
        self._last = now
        line = f"{self.n_lines:,} lines answered, {self.n_lines / max(now - self._start, 1e-9):,.0f} per second"
        print(f"\r{line}" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the live line as it stands."""
        if self._live and not self.silent and self.n_lines:
            print(file=sys.stderr)
