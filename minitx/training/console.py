"""What a person sees: plain lines, one live progress line on a terminal, a table at the end; train.log keeps it."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column, Table
from rich.text import Text

LOG_WIDTH = 120
WIDTH_WITH_BAR = 110
"""Columns of a terminal from which a bar fits beside the progress line."""
PLAIN: dict[str, Any] = {"highlight": False, "emoji": False, "markup": False}
"""Text comes from data and from paths: it is shown as it is."""
SECONDS_BETWEEN_PLAIN_LINES = 10.0
SECONDS_BETWEEN_UPDATES = 0.25


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where training is, for the progress line."""

    epoch: float
    step: int
    total_steps: int
    loss: float
    lr: float
    tokens_per_second: float
    seconds_left: float

    def __str__(self) -> str:
        left = f"{int(self.seconds_left) // 60}:{int(self.seconds_left) % 60:02d}"
        return (
            f"epoch {self.epoch:.2f}  step {self.step:,}/{self.total_steps:,}  loss {self.loss:.4f}  "
            f"lr {self.lr:.2e}  {self.tokens_per_second:,.0f} tokens/s  {left} left"
        )


class Reporter:
    """Speaks to the terminal (or a pipe) and to train.log alike."""

    def __init__(self, log: Path | None = None, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.console = Console(file=stream or sys.stdout, soft_wrap=True, **PLAIN)
        self._log_file = log.open("a", encoding="utf-8") if log else None
        self._log = Console(file=self._log_file, width=LOG_WIDTH, **PLAIN) if self._log_file else None
        self._quiet = quiet
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._last = 0.0

    def info(self, text: str) -> None:
        """One line; text is shown as it is, never read as markup."""
        for console in self._both():
            console.print(text)

    def warning(self, text: str) -> None:
        self.info(f"warning: {text}")

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], names: Collection[str] = ()
    ) -> None:
        """A table with its first column to the left and the others to the right.

        names: columns of names or texts, to the left, each on one line and cut where the width ends.
        """
        table = Table(title=title, title_justify="left", header_style="bold", show_header=any(columns))
        for number, column in enumerate(columns):
            left = number == 0 or column in names
            # Where there are names, they alone give way.
            whole = bool(names) and column not in names
            table.add_column(column, justify="left" if left else "right", overflow="fold", no_wrap=whole)
        for row in rows:
            pairs = zip(columns, row, strict=True)
            table.add_row(*(_on_one_line(cell) if column in names else cell for column, cell in pairs))
        for console in self._both():
            console.print(table)

    def progress(self, status: Status) -> None:
        """Move the live line, or print a plain line now and then where there is no terminal."""
        now = time.monotonic()
        terminal = self.console.is_terminal
        if now - self._last < (SECONDS_BETWEEN_UPDATES if terminal else SECONDS_BETWEEN_PLAIN_LINES):
            return
        self._last = now
        if not terminal:
            self.info(str(status))
            return
        if self._live is None:
            one_line = Column(no_wrap=True, overflow="ellipsis")
            bar = [BarColumn(bar_width=20)] if self.console.width >= WIDTH_WITH_BAR else []
            columns = [*bar, TextColumn("{task.description}", markup=False, table_column=one_line)]
            self._live = Progress(*columns, console=self.console, transient=True, refresh_per_second=4)
            self._task = self._live.add_task("", total=status.total_steps)
            self._live.start()
        self._live.update(self._task, completed=status.step, total=status.total_steps, description=str(status))

    def end_progress(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def close(self) -> None:
        self.end_progress()
        if self._log_file is not None:
            self._log_file.close()

    def _both(self) -> list[Console]:
        return ([] if self._quiet else [self.console]) + ([self._log] if self._log else [])


def _on_one_line(cell: str) -> Text:
    """Cut by the column's width, with control characters spelled out: a terminal would obey them."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cell)
    return Text(plain, no_wrap=True, overflow="ellipsis")
