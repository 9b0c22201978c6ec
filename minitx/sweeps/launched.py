"""Cells that one of Hydra's launchers runs: `hydra/launcher=submitit_slurm`, `submitit_local` or `joblib`.

All unfinished cells go to the launcher in one call, which returns when the last has ended. Until then their state is
read from their folders; so a cell does not mind when this process dies, and the same line goes on with what there is.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from minitx import distributed
from minitx.errors import first_line
from minitx.sweeps.cells import Cell, is_done
from minitx.sweeps.executor import WORKERS_LOG, CellResult, LocalWorkers, attempt, run_cell
from minitx.sweeps.progress import CellStatus
from minitx.training.console import Reporter
from minitx.training.run_folder import Busy, RunFolder
from minitx.training.signals import StopRequest, stop_on_signals


class Launcher(Protocol):
    """Of Hydra's launchers what is needed here."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Run a job for each list of overrides; returns hydra.core.utils.JobReturn when all have ended."""
        ...


MakeLauncher = Callable[[Callable[[str], CellResult], Path], Launcher]
"""(what a job does in its folder, the folder that the launcher keeps its own files in) -> one of Hydra's, set up."""
SECONDS_BETWEEN_LOOKS = 1.0
"""At the folders of the cells that run."""
SECONDS_TO_COLLECT = 60.0
"""Longest wait for a launcher whose cells have all ended."""


def launched(
    make: MakeLauncher, status: CellStatus, folder: Path, log: Reporter
) -> Callable[[Sequence[Cell]], LaunchedCells]:
    """A backend that gives cells to a launcher. folder: of the study or sweep."""

    def start(cells: Sequence[Cell]) -> LaunchedCells:
        log.info(f"launch  {sum(cell.timing is None for cell in cells)} cells")
        return LaunchedCells(make, {cell.key: status.folder_of(cell) for cell in cells}, cells, folder)

    return start


class LaunchedCells:
    """Trainings go to the launcher; timings, which want a machine for themselves, to a process on this one."""

    def __init__(self, make: MakeLauncher, paths: Mapping[str, Path], cells: Sequence[Cell], folder: Path) -> None:
        self.n_workers = len(cells)
        self._make, self._paths, self._folder = make, paths, folder
        self._first = [cell for cell in cells if cell.timing is None]
        self._futures: dict[str, Future[CellResult]] = {}
        self._threads: list[threading.Thread] = []
        self._alone: LocalWorkers | None = None
        self._setting, self._n_launched, self._ended = threading.Lock(), 0, threading.Event()

    def submit(self, cell: Cell, path: Path) -> Future[CellResult]:
        """Part of the first call; a cell that another process had the first time is launched anew."""
        if cell.timing is not None:
            self._alone = self._alone or LocalWorkers(1, self._folder / WORKERS_LOG)
            return self._alone.submit(cell, path)
        if cell.key not in self._futures:
            self._launch([cell])
        return self._futures.pop(cell.key)

    def catch_signals(self) -> AbstractContextManager[StopRequest]:
        return stop_on_signals()

    def __enter__(self) -> Self:
        if self._first:
            self._launch(self._first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stopped: jobs that are processes of this one (joblib's) save and end, others go on by themselves."""
        self._ended.set()
        if self._alone is not None:
            self._alone.__exit__(kind, error, trace)
        if error is not None:
            for process in multiprocessing.active_children():
                process.terminate()
            return
        for thread in self._threads:
            thread.join(SECONDS_TO_COLLECT)

    # ------------------------------------------------------------------------------------------------------- one call

    def _launch(self, cells: Sequence[Cell], futures: Mapping[str, Future[CellResult]] | None = None) -> None:
        """One call of the launcher, which blocks, and one look after another at the folders meanwhile.

        futures: that the loop has been given already; None = new ones, for `submit` to give.
        """
        if futures is None:
            futures = {cell.key: Future[CellResult]() for cell in cells}
            self._futures |= futures
        call = _Call(cells, futures, self._n_launched)
        self._n_launched += len(cells)
        for work in (self._make_call, self._look):
            thread = threading.Thread(target=work, args=(call,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _make_call(self, call: _Call) -> None:
        paths = [self._paths[cell.key].resolve() for cell in call.cells]
        jobs = {str(path): cell for path, cell in zip(paths, call.cells, strict=True)}
        places = [[f"hydra.sweep.dir={_quoted(p.parent)}", f"hydra.sweep.subdir={_quoted(p.name)}"] for p in paths]
        try:
            launcher = self._make(partial(run_job, jobs), self._folder)
            returned = launcher.launch(places, initial_job_idx=call.first)
        except Exception as error:  # no such partition, or a job that died: which one, a launcher does not tell
            self._after_failure(call, first_line(error))
            return
        for cell, job in zip(call.cells, returned, strict=True):
            result = job._return_value
            self._set(call, cell, result if isinstance(result, CellResult) else CellResult(error=first_line(result)))

    def _after_failure(self, call: _Call, line: str) -> None:
        """What runs goes on to be looked at; what had not begun is launched again, if anything had."""
        begun = [cell for cell in call.cells if RunFolder(self._paths[cell.key]).config_file.is_file()]
        call.failure = line
        rest = [cell for cell in call.cells if cell not in begun]
        if begun and rest:
            self._launch(rest, {cell.key: call.futures[cell.key] for cell in rest})
        elif rest:
            for cell in rest:
                self._set(call, cell, CellResult(error=line))

    def _look(self, call: _Call) -> None:
        left = list(call.cells)
        while left and not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            for cell in left:
                path, failure = self._paths[cell.key], call.failure
                died = failure is not None and RunFolder(path).config_file.is_file() and not _is_running(path)
                if is_done(cell, path):
                    self._set(call, cell, CellResult())
                elif died:
                    self._set(call, cell, CellResult(error=failure))
            left = [cell for cell in left if not call.futures[cell.key].done()]

    def _set(self, call: _Call, cell: Cell, result: CellResult) -> None:
        with self._setting:
            if not call.futures[cell.key].done():
                call.futures[cell.key].set_result(result)


@dataclass
class _Call:
    """Of a launcher."""

    cells: Sequence[Cell]
    futures: Mapping[str, Future[CellResult]]
    first: int
    """Number of its first job."""
    failure: str | None = None
    """What it ended with instead of results."""


def run_job(jobs: Mapping[str, Cell], folder: str) -> CellResult:
    """What a launcher's job does: the cell whose folder is the job's. Tasks of one job train the cell together."""
    _join_tasks()
    result = attempt(run_cell, jobs[str(Path(folder).resolve())], Path(folder))
    if result == CellResult():  # after an error nobody waits for anybody
        distributed.leave()
    return result


def _join_tasks() -> None:
    """Where a job of submitit has several tasks, have them meet as the processes of one run."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return
    import submitit

    if submitit.JobEnvironment().num_tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export()
        distributed.join()


def _is_running(path: Path) -> bool:
    """Whether a process has the run in this folder."""
    try:
        with RunFolder(path).locked():
            return False
    except Busy:
        return True


def _quoted(path: object) -> str:
    """As a value of an override."""
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
