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
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from minitx.sweeps.cells import Cell, is_done
from minitx.sweeps.executor import WORKERS_LOG, CellResult, LocalWorkers, attempt, run_cell
from minitx.sweeps.progress import CellStatus
from minitx.training.console import Reporter
from minitx.training.signals import StopRequest, stop_on_signals


class Launcher(Protocol):
    """Of Hydra's launchers what is needed here."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        """Run a job for each list of overrides; returns hydra.core.utils.JobReturn when all have ended."""
        ...


MakeLauncher = Callable[[Callable[[Any], Any], Path], Launcher]
"""(what a job does, the folder that the launcher keeps its own files in) -> a launcher of Hydra's, set up."""
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
        self._calls: list[threading.Thread] = []
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
        for call in self._calls:
            call.join(SECONDS_TO_COLLECT)

    # ------------------------------------------------------------------------------------------------------- one call

    def _launch(self, cells: Sequence[Cell]) -> None:
        """One call of the launcher, which blocks, and one look after another at the folders meanwhile."""
        futures = {cell.key: Future[CellResult]() for cell in cells}
        self._futures |= futures
        first, self._n_launched = self._n_launched, self._n_launched + len(cells)
        for work in (partial(self._call, cells, futures, first), partial(self._look, cells, futures)):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._calls.append(thread)

    def _call(self, cells: Sequence[Cell], futures: Mapping[str, Future[CellResult]], first: int) -> None:
        paths = [self._paths[cell.key].resolve() for cell in cells]
        jobs = {str(path): cell for path, cell in zip(paths, cells, strict=True)}
        places = [[f"hydra.sweep.dir={_quoted(p.parent)}", f"hydra.sweep.subdir={_quoted(p.name)}"] for p in paths]
        try:
            launcher = self._make(partial(run_job, jobs), self._folder)
            results = [_result(job._return_value) for job in launcher.launch(places, initial_job_idx=first)]
        except Exception as error:  # the launcher's own: no such partition, a job lost, ...
            results = [CellResult(error=(str(error) or repr(error)).splitlines()[0])] * len(cells)
        for cell, result in zip(cells, results, strict=True):
            if result.error is not None and is_done(cell, self._paths[cell.key]):
                result = CellResult()
            self._set(futures[cell.key], result)

    def _look(self, cells: Sequence[Cell], futures: Mapping[str, Future[CellResult]]) -> None:
        left = list(cells)
        while left and not self._ended.wait(SECONDS_BETWEEN_LOOKS):
            for cell in left:
                if is_done(cell, self._paths[cell.key]):
                    self._set(futures[cell.key], CellResult())
            left = [cell for cell in left if not futures[cell.key].done()]

    def _set(self, future: Future[CellResult], result: CellResult) -> None:
        with self._setting:
            if not future.done():
                future.set_result(result)


def run_job(jobs: Mapping[str, Cell], raw: object) -> CellResult:
    """What a launcher's job does: the cell whose folder is the job's. raw: what Hydra composed, which is not read."""
    from hydra.core.hydra_config import HydraConfig

    _join_tasks()
    folder = HydraConfig.get().runtime.output_dir
    return attempt(run_cell, jobs[str(Path(folder).resolve())], Path(folder))


def _join_tasks() -> None:
    """Where a job of submitit has several tasks, tell torch.distributed which one this is (RANK, WORLD_SIZE, ...)."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return
    import submitit

    if submitit.JobEnvironment().num_tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export()


def _result(returned: Any) -> CellResult:
    """What a job returned, or what it died of."""
    if isinstance(returned, CellResult):
        return returned
    return CellResult(error=(str(returned) or repr(returned)).splitlines()[0])


def _quoted(path: object) -> str:
    """As a value of an override."""
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
