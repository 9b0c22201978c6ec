"""A study while it runs: where every cell stands, as a table that lives on a terminal and as lines elsewhere."""

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
from minitx.studies.plan import StudyCell
from minitx.studies.study import place_name
from minitx.sweeps.machine import WAITS
from minitx.training.console import Reporter
from minitx.training.run_folder import RunFolder


@dataclass
class CellStatus:
    """Where every cell stands."""

    cells: Sequence[StudyCell]
    folders: Mapping[str, Path]
    """Hash -> folder."""
    done: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    elsewhere: set[str] = field(default_factory=set)
    """Another process is at them."""
    waits: bool = False
    """Another study on the machine keeps its next cell from beginning."""
    failed: dict[str, str] = field(default_factory=dict)
    """Hash -> error."""
    began: float = field(default_factory=time.monotonic)
    done_before: int = 0

    def folder_of(self, cell: StudyCell) -> Path:
        return self.folders[cell.hash]

    @property
    def n_all(self) -> int:
        return len(self.folders)

    @property
    def seconds_left(self) -> float | None:
        """By the mean of what has been done here; None before anything has."""
        here = len(self.done) - self.done_before
        left = self.n_all - len(self.done) - len(self.failed)
        return (time.monotonic() - self.began) / here * left if here else None


class ProgressTable:
    """`with ProgressTable(...) as screen: screen.show(standing)`; silent where there is no terminal."""

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

    def show(self, standing: CellStatus) -> None:
        """As things stand."""
        if self._live is not None:
            self._live.update(self.table(standing), refresh=True)

    def table(self, standing: CellStatus) -> Table:
        """One line an arm and value: cells done, running, failed and to go, and the best that validation has said."""
        table = Table(title=Text(f"{self._title}   {_progress(standing)}"), title_justify="left", header_style="bold")
        table.add_column("arm")
        for column in ("done", "running", "failed", "to go", "best on validation"):
            table.add_column(column, justify="right")
        for name, cells in _by_place(standing.cells).items():
            states = [self._state(standing, cell) for cell in cells]
            counts = [str(states.count(state) or "") for state in ("done", "running", "failed", "to go")]
            table.add_row(Text(name), *counts, self._best(standing, cells))
        return table

    @staticmethod
    def _state(standing: CellStatus, cell: StudyCell) -> str:
        if cell.hash in standing.done:
            return "done"
        if cell.hash in standing.failed:
            return "failed"
        return "running" if cell.hash in standing.running | standing.elsewhere else "to go"

    def _best(self, standing: CellStatus, cells: Sequence[StudyCell]) -> str:
        best: tuple[str, float] | None = None
        for cell in cells:
            if cell.hash not in standing.done:
                continue
            if cell.hash not in self._scores:  # read once: the screen is drawn twice a second
                self._scores[cell.hash] = _validation_score(standing.folder_of(cell))
            score = self._scores[cell.hash]
            if score is not None and (best is None or better(score[1], best[1], score[0])):
                best = score
        return "" if best is None else f"{best[0]} {best[1]:.4f}"


def _validation_score(folder: Path) -> tuple[str, float] | None:
    """(metric, value) of the metric that `best` goes by; None of what is not trained."""
    results = RunFolder(folder).results()
    metrics = (results or {}).get("metrics", {}).get("validation", {})
    return next(((name, metric["value"]) for name, metric in metrics.items()), None)


def _by_place(cells: Sequence[StudyCell]) -> dict[str, list[StudyCell]]:
    found: dict[str, list[StudyCell]] = {}
    for cell in cells:
        found.setdefault(place_name((cell.arm, cell.value)), []).append(cell)
    return found


def _progress(standing: CellStatus) -> str:
    """`12 of 24 cells, 1 failed, 3:20 left`, and that it waits."""
    left = standing.seconds_left
    failed = f", {len(standing.failed)} failed" if standing.failed else ""
    shown = "" if left is None else f", {int(left) // 60}:{int(left) % 60:02d} left"
    waits = f"; {WAITS}" if standing.waits else ""
    return f"{len(standing.done)} of {standing.n_all} cells{failed}{shown}{waits}"
