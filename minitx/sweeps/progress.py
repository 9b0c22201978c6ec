"""The status of every cell while a sweep or study runs, and a live table of it on a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from minitx.metrics.scores import better
from minitx.sweeps.cells import Cell
from minitx.sweeps.machine import WAITS
from minitx.training.console import Reporter
from minitx.training.run_folder import RunFolder


@dataclass
class CellStatus:
    """Which cells are done, running, failed or waiting; sets hold keys of cells."""

    cells: Sequence[Cell]
    folders: Mapping[str, Path]
    """Key of a cell -> folder."""
    done: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    """Run by another process."""
    waits: bool = False
    """For the timing of another study on the machine."""
    failed: dict[str, str] = field(default_factory=dict)
    """Key -> error."""
    began: float = field(default_factory=time.monotonic)
    done_before: int = 0

    def folder_of(self, cell: Cell) -> Path:
        return self.folders[cell.key]

    @property
    def n_all(self) -> int:
        return len(self.folders)

    @property
    def seconds_left(self) -> float | None:
        """At the mean pace since this start; None before a cell has finished."""
        here = len(self.done) - self.done_before
        left = self.n_all - len(self.done) - len(self.failed)
        return (time.monotonic() - self.began) / here * left if here else None


class ProgressTable:
    """`with ProgressTable(...) as table: table.show(status)`; prints nothing where there is no terminal."""

    def __init__(self, title: str, reporter: Reporter) -> None:
        self._title, self._scores = title, dict[str, tuple[str, float] | None]()
        self._live: Live | None = None
        if reporter.console.is_terminal:
            self._live = Live(console=reporter.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, status: CellStatus) -> None:
        """Draw the table anew."""
        if self._live is not None:
            self._live.update(self.table(status), refresh=True)

    def table(self, status: CellStatus) -> Table:
        """One line for each arm and value: how many cells are done, running, failed and to go, and the best score."""
        table = Table(title=Text(f"{self._title}   {_progress(status)}"), title_justify="left", header_style="bold")
        table.add_column("arm")
        for column in ("done", "running", "failed", "to go", "best on validation"):
            table.add_column(column, justify="right")
        for name, cells in _by_group(status.cells).items():
            states = [self._state(status, cell) for cell in cells]
            counts = [str(states.count(state) or "") for state in ("done", "running", "failed", "to go")]
            table.add_row(Text(name), *counts, self._best(status, cells))
        return table

    @staticmethod
    def _state(status: CellStatus, cell: Cell) -> str:
        if cell.key in status.done:
            return "done"
        if cell.key in status.failed:
            return "failed"
        return "running" if cell.key in status.running | status.elsewhere else "to go"

    def _best(self, status: CellStatus, cells: Sequence[Cell]) -> str:
        best: tuple[str, float] | None = None
        for cell in cells:
            if cell.key not in status.done:
                continue
            if cell.key not in self._scores:  # read once: the table is drawn twice a second
                self._scores[cell.key] = _validation_score(status.folder_of(cell))
            score = self._scores[cell.key]
            if score is not None and (best is None or better(score[1], best[1], score[0])):
                best = score
        return "" if best is None else f"{best[0]} {best[1]:.4f}"


def _validation_score(folder: Path) -> tuple[str, float] | None:
    """(name, value) of the metric that chooses the best checkpoint; None for a timing."""
    results = RunFolder(folder).results()
    metrics = (results or {}).get("metrics", {}).get("validation", {})
    return next(((name, metric["value"]) for name, metric in metrics.items()), None)


def _by_group(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(cell.group, []).append(cell)
    return found


def _progress(status: CellStatus) -> str:
    """`12 of 24 cells, 1 failed, 3:20 left`, and that it waits."""
    left = status.seconds_left
    failed = f", {len(status.failed)} failed" if status.failed else ""
    shown = "" if left is None else f", {int(left) // 60}:{int(left) % 60:02d} left"
    waits = f"; {WAITS}" if status.waits else ""
    return f"{len(status.done)} of {status.n_all} cells{failed}{shown}{waits}"
