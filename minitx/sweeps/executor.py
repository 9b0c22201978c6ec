"""Runs cells, of a sweep or a study, one after the other in this process or side by side in worker processes.

What has finished is skipped, what was stopped or killed goes on, and a cell that fails does not end the others.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from minitx import distributed
from minitx.errors import RunError, Stopped, first_line
from minitx.sweeps.cells import Cell, add_measures, is_done, write_measure
from minitx.sweeps.machine import WAITS, TimingLock, machine_name, share_of_machine, workers_for
from minitx.sweeps.progress import CellStatus, ProgressTable
from minitx.training.console import Reporter
from minitx.training.device import resolve_compute
from minitx.training.run import run
from minitx.training.run_folder import Busy, RunFolder, versions
from minitx.training.signals import EXIT_BASE, StopRequest, stop_on_signals

ERROR_FILE = "error.txt"
"""The traceback, in a failed cell's folder."""
WORKERS_LOG = "workers.log"
"""In the folder of all cells: what libraries print in worker processes."""
STOPPED = "stopped; type the same line again to go on"
SECONDS_BETWEEN_UPDATES = 0.5
"""Of the progress table."""
SECONDS_BEFORE_RETRY = 2.0
"""Of a cell that another process is running."""
NOT_STARTED = 143
"""Exit code of a cell that a worker was given while it was to stop."""


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """How a cell ended: one of the three below, or none of them when it has finished."""

    error: str | None = None
    traceback: str = ""
    busy: bool = False
    """Another process is running it."""
    stopped: int | None = None
    """Exit code of a run that was asked to stop, and has saved."""


# ----------------------------------------------------------------------------------------------------------- the loop


def run_cells(
    status: CellStatus,
    backend: Callable[[Sequence[Cell]], Backend],
    table: ProgressTable,
    log: Reporter,
    on_error: str = "continue",
) -> None:
    """Run every cell that has not finished, and keep `status` and `table` up to date.

    backend: makes what runs the unfinished cells. on_error: `stop` ends at the first cell that fails.

    Raises:
        Stopped: SIGINT or SIGTERM came; what was running has saved.
        RunError: a cell failed and on_error is stop, or a worker died.
    """
    loop = _Loop(status, table, log, on_error)
    waiting = loop.unfinished()
    if waiting:
        loop.run(waiting, backend(waiting))
    table.show(status)


class _Loop:
    """Gives cells to a backend and takes their results."""

    def __init__(self, status: CellStatus, table: ProgressTable, log: Reporter, on_error: str) -> None:
        self.status, self.table, self.log, self.on_error = status, table, log, on_error
        self.running: dict[Future[CellResult], Cell] = {}
        self.lock = TimingLock()

    def unfinished(self) -> list[Cell]:
        """One cell a hash, trainings first; the others count as done, or as failed where they cannot run at all."""
        unique = {cell.key: cell for cell in self.status.cells}
        left = []
        for cell in sorted(unique.values(), key=lambda cell: cell.timing is not None):
            if cell.error is not None:
                self._fail(cell, CellResult(error=cell.error))
            elif is_done(cell, self.status.folder_of(cell)):
                self.status.done.add(cell.key)
            else:
                left.append(cell)
        self.status.done_before = len(self.status.done)
        if self.status.done:
            self.log.info(f"already done: {len(self.status.done)} of {self.status.n_all} cells")
        return left

    def run(self, cells: Sequence[Cell], backend: Backend) -> None:
        waiting = deque(cells)
        with self.lock, backend, backend.catch_signals() as stop:
            try:
                while waiting or self.running:
                    self._fill(waiting, backend)
                    self._take(waiting)
                    self.table.show(self.status)
                    if stop.signal is not None:
                        raise Stopped(STOPPED, EXIT_BASE + stop.signal)
            except KeyboardInterrupt:  # in this process, between two trainings
                raise Stopped(STOPPED, EXIT_BASE + signal.SIGINT) from None
            except BrokenProcessPool:
                if stop.signal is not None:  # it came while a worker was being set up
                    raise Stopped(STOPPED, EXIT_BASE + stop.signal) from None
                remedy = "type the same line again to go on, with fewer study.workers if memory was short"
                raise RunError(f"a worker process died; {remedy}") from None

    def _fill(self, waiting: deque[Cell], backend: Backend) -> None:
        """As many trainings as there are workers; a timing only where nothing else runs."""
        while waiting and self._has_room(waiting[0], backend.n_workers) and self._is_admitted(waiting[0]):
            cell = waiting.popleft()
            self.status.running.add(cell.key)
            self.table.show(self.status)
            self.running[backend.submit(cell, self.status.folder_of(cell))] = cell

    def _has_room(self, cell: Cell, n_workers: int) -> bool:
        if cell.timing is not None:
            return not self.running
        return len(self.running) < n_workers and all(other.timing is None for other in self.running.values())

    def _is_admitted(self, cell: Cell) -> bool:
        """Whether other sweeps and studies on the machine let the cell begin; waiting is logged once."""
        admitted = self.lock.admits(training=cell.timing is None, idle=not self.running)
        if not admitted and not self.status.waits:
            self.log.info(WAITS)
        self.status.waits = not admitted
        return admitted

    def _take(self, waiting: deque[Cell]) -> None:
        """Results of the cells that have ended."""
        if not self.running:  # another study's timing keeps the next cell from beginning
            time.sleep(SECONDS_BETWEEN_UPDATES)
        finished, _ = wait(self.running, timeout=SECONDS_BETWEEN_UPDATES, return_when=FIRST_COMPLETED)
        for future in finished:
            cell, result = self.running.pop(future), future.result()
            self.status.running.discard(cell.key)
            self.status.elsewhere.discard(cell.key)
            if result.busy:
                self.status.elsewhere.add(cell.key)
                trainings = sum(other.timing is None for other in waiting)
                waiting.insert(trainings if cell.timing is None else len(waiting), cell)
                time.sleep(SECONDS_BEFORE_RETRY)
            elif result.stopped is not None:
                raise Stopped(STOPPED, result.stopped)
            elif result.error is not None:
                self._fail(cell, result)
            else:
                self._finish(cell)

    def _finish(self, cell: Cell) -> None:
        self.status.done.add(cell.key)
        folder = self.status.folder_of(cell)
        (folder / ERROR_FILE).unlink(missing_ok=True)
        results = RunFolder(folder).results() or {}
        scores = "".join(f"  {name} {m['value']:.4f}" for name, m in results["metrics"].get("test", {}).items())
        seconds = f"  ({results['seconds']:.0f} s)" if "seconds" in results else ""
        self.log.info(f"{self._number()} {cell.label}{scores}{seconds}")

    def _fail(self, cell: Cell, result: CellResult) -> None:
        assert result.error is not None
        self.status.failed[cell.key] = result.error
        self.log.info(f"{self._number()} {cell.label}  FAILED: {result.error}")
        if result.traceback:
            folder = self.status.folder_of(cell)
            with suppress(OSError):  # on a full disk; the line above is there
                folder.mkdir(parents=True, exist_ok=True)
                (folder / ERROR_FILE).write_text(result.traceback, encoding="utf-8")
        if self.on_error == "stop":
            raise RunError(f"{cell.label} failed ({result.error}); study.on_error=continue goes on without it")

    def _number(self) -> str:
        return f"[{len(self.status.done) + len(self.status.failed)}/{self.status.n_all}]"


# ----------------------------------------------------------------------------------------------------------- backends


class Backend(Protocol):
    """What runs cells."""

    n_workers: int

    def submit(self, cell: Cell, path: Path) -> Future[CellResult]: ...

    def catch_signals(self) -> AbstractContextManager[StopRequest]:
        """Whether the loop takes SIGINT and SIGTERM, or a run in this process does."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...


class InThisProcess:
    """One cell after the other, each run by a function that raises what goes wrong."""

    n_workers = 1

    def __init__(self, run_one: Callable[[Cell, Path], object]) -> None:
        self._run_one = run_one

    def submit(self, cell: Cell, path: Path) -> Future[CellResult]:
        """Runs it before it returns."""
        future = Future[CellResult]()
        future.set_result(attempt(self._run_one, cell, path))
        return future

    def catch_signals(self) -> AbstractContextManager[StopRequest]:
        return nullcontext(StopRequest())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        pass


class LocalWorkers:
    """Processes on this machine that run cell after cell."""

    def __init__(self, n_workers: int, log: Path) -> None:
        """log: file for what libraries print."""
        self.n_workers = n_workers
        context = multiprocessing.get_context("spawn")
        self._halt = context.Event()
        arguments = (*share_of_machine(n_workers), str(log), self._halt, os.getpid())
        self._pool = ProcessPoolExecutor(n_workers, context, initializer=start_worker, initargs=arguments)

    def submit(self, cell: Cell, path: Path) -> Future[CellResult]:
        return self._pool.submit(attempt, run_cell, cell, path)

    def catch_signals(self) -> AbstractContextManager[StopRequest]:
        return stop_on_signals()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._halt.set()  # whatever still runs saves and ends
        self._pool.shutdown(wait=True)


def local_workers(asked: int | None, folder: Path, log: Reporter) -> Callable[[Sequence[Cell]], LocalWorkers]:
    """A backend of as many workers as were asked for, or as keep the cores busy; see `workers_for`."""

    def start(cells: Sequence[Cell]) -> LocalWorkers:
        trainers = [cell.config.trainer for cell in cells if cell.config is not None and cell.timing is None]
        n_workers = workers_for(asked, trainers)
        log.info(f"workers {n_workers}")
        return LocalWorkers(n_workers, folder / WORKERS_LOG)

    return start


# ------------------------------------------------------------------------------------------------------------ one cell


def attempt(run_one: Callable[[Cell, Path], object], cell: Cell, path: Path) -> CellResult:
    """Run one cell and say how it ended."""
    if any(halt.is_set() for halt in _halt):
        return CellResult(stopped=NOT_STARTED)
    try:
        run_one(cell, path)
    except Busy:
        return CellResult(busy=True)
    except Stopped as stop:
        return CellResult(stopped=stop.exit_code)
    except Exception as error:
        return CellResult(error=first_line(error), traceback=traceback.format_exc())
    return CellResult()


def run_cell(cell: Cell, path: Path) -> None:
    """Train, or go on with, a cell's model in the folder `path` and compute its measures; or time it."""
    assert cell.config is not None, "a cell without a configuration cannot run"
    if cell.timing is not None:
        _time(cell, path)
        return
    trainer = cell.config.trainer.model_copy(update={"resume": "auto", "projector": 0})  # embeddings: one run at a time
    run(cell.config.model_copy(update={"trainer": trainer}), path, quiet=True)
    if distributed.current().is_first:  # of the processes that have trained it together
        add_measures(path, cell.measures)


def _time(cell: Cell, path: Path) -> None:
    """Take a timing in this process, and write results.json and the measures into the folder."""
    config, timing, folder = cell.config, cell.timing, RunFolder(path)
    assert config is not None and timing is not None
    folder.create()
    with folder.locked():
        if is_done(cell, path):  # by another process, while this one waited
            return
        folder.begin(config)
        began = time.monotonic()
        write_measure(path, timing.name, timing.version, timing.compute(path, config))
        folder.write_results(
            {
                "status": "finished", "kind": timing.name, "model": config.model.kind, "seed": config.seed,
                "device": machine_name(config.trainer), "precision": resolve_compute(config.trainer).precision,
                "seconds": time.monotonic() - began, "metrics": {}, "versions": versions(),
            }
        )  # fmt: skip


# ----------------------------------------------------------------------------------------------------- worker process


_halt: list[Event] = []
"""This process's, once it is a worker."""


def start_worker(threads: int | None, gpu_share: float | None, log: str, halt: Event, parent: int) -> None:
    """Set a worker up with its share of the machine; it prints nothing and ignores Ctrl-C.

    log: file for what libraries print. halt: set by the parent when what runs shall save and end. The worker ends when
    the parent does.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # training has a handler of its own; nothing else may die half done
    log_file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the run's own lines are in its train.log
    os.dup2(log_file, sys.stderr.fileno())
    _halt.append(halt)
    threading.Thread(target=_watch_parent, args=(halt, parent), daemon=True).start()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    if gpu_share is not None:
        import torch

        torch.cuda.set_per_process_memory_fraction(gpu_share)


def _watch_parent(halt: Event, parent: int) -> None:
    """End with the parent; pass its request to stop on to the run, once."""
    signalled = False
    while True:
        if os.getppid() != parent:
            os._exit(1)  # whatever was running can be resumed from its last checkpoint
        if halt.wait(SECONDS_BETWEEN_UPDATES) and not signalled and _training_handles_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            signalled = True
        if halt.is_set():
            time.sleep(SECONDS_BETWEEN_UPDATES)


def _training_handles_signals() -> bool:
    """Whether a run would save and end on SIGTERM now."""
    return signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
