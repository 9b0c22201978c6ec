"""Runs cells in worker processes that live on: resumed where they were, shared between studies.

The parent sends a cell as plain values; a worker trains or measures it and answers in plain values.
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
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from minitx.config import Config, NetConfig, TrainerConfig
from minitx.config.load import load
from minitx.errors import RunError, Stopped
from minitx.studies.plan import StudyCell
from minitx.studies.study import CellKind, Measure, Study, TimingKind
from minitx.sweeps.machine import WAITS, TimingLock, share_of_machine, workers_for
from minitx.sweeps.measures_file import is_kept
from minitx.sweeps.progress import CellStatus, ProgressTable
from minitx.training.console import Reporter
from minitx.training.run_folder import Busy, RunFolder, run_hash
from minitx.training.signals import EXIT_BASE, stop_on_signals

SECONDS_BETWEEN_SCREENS = 0.5
TRACE = "error.txt"
"""In a failed cell's folder."""
WORKERS_LOG = "workers.log"
"""In a study's folder: what libraries say in its workers."""
STOPPED = "study stopped; type the same line again to go on"
SECONDS_UNTIL_ASKED_AGAIN = 2.0
"""Of a cell that another process is at."""


def homes(cells: Sequence[StudyCell], folder: Path) -> dict[str, Path]:
    """Hash -> the folder of that cell: one that has it already, in any study beside `folder`, or a new one here."""
    known = [path for path in sorted(folder.parent.glob("*/*")) if (path / "config.yaml").is_file()]
    found = {}
    for cell in cells:
        there = [path for path in known if path.name.endswith(f"-{cell.hash}")]
        finished = [path for path in there if (RunFolder(path).results() or {}).get("status") == "finished"]
        found[cell.hash] = next(iter(finished + there), folder / cell.folder)
    return found


def run_cells_of(
    study: Study, standing: CellStatus, folder: Path, measures: Sequence[Measure], screen: ProgressTable, log: Reporter
) -> None:
    """Run what has not finished of `standing`, which keeps the account; tell `screen` how it stands.

    A failing cell is recorded and the others go on.

    Raises:
        Stopped: SIGINT or SIGTERM came; what was running has saved.
        RunError: a cell failed and `study.on_error` is stop, or a worker died.
    """
    waiting = deque(_unfinished(standing, measures))
    standing.done_before = len(standing.done)
    if not waiting:
        screen.show(standing)
        return
    trainers = [cell.config.trainer for cell in waiting if cell.config is not None and cell.kind == "train"]
    workers = workers_for(study.workers, trainers)
    log.say(f"workers {workers}")
    _Runner(study, workers, standing, folder, measures, screen, log).run(waiting)


def _unfinished(standing: CellStatus, measures: Sequence[Measure]) -> list[StudyCell]:
    """One cell a hash, trainings first; the others count as done."""
    unique = {cell.hash: cell for cell in standing.cells}
    left = []
    for cell in sorted(unique.values(), key=lambda cell: cell.kind != "train"):
        assert cell.config is not None, "a plan has no cell without one"
        if is_done(standing.folder_of(cell), cell.config, cell.kind, measures):
            standing.done.add(cell.hash)
        else:
            left.append(cell)
    return left


class _Runner:
    """The pool of workers and what it is at."""

    def __init__(
        self,
        study: Study,
        workers: int,
        standing: CellStatus,
        folder: Path,
        measures: Sequence[Measure],
        screen: ProgressTable,
        log: Reporter,
    ) -> None:
        self.study, self.standing, self.measures, self.screen, self.log = study, standing, tuple(measures), screen, log
        self.running: dict[Future[CellResult], StudyCell] = {}
        self.workers, self.quiet = workers, TimingLock()
        context = multiprocessing.get_context("spawn")
        log_file = folder / WORKERS_LOG
        self.halt = context.Event()
        self.pool = ProcessPoolExecutor(
            workers,
            context,
            initializer=begin,
            initargs=(*share_of_machine(workers), str(log_file), self.halt, os.getpid()),
        )

    def run(self, waiting: deque[StudyCell]) -> None:
        with self.quiet, self.pool, stop_on_signals() as stop:
            try:
                while waiting or self.running:
                    self._fill(waiting)
                    self._take(waiting)
                    self.screen.show(self.standing)
                    if stop.signal is not None:
                        raise Stopped(STOPPED, EXIT_BASE + stop.signal)
            except BrokenProcessPool:
                if stop.signal is not None:  # it came while a worker was being set up
                    raise Stopped(STOPPED, EXIT_BASE + stop.signal) from None
                remedy = "type the same line again to go on, with fewer study.workers if memory was short"
                raise RunError(f"a worker process died; {remedy}") from None
            finally:
                self.halt.set()  # whatever still runs saves and ends; the pool waits for it

    def _fill(self, waiting: deque[StudyCell]) -> None:
        """Trainings as many as there are workers; a timing only where nothing else runs."""
        while waiting and self._room_for(waiting[0]) and self._quiet_for(waiting[0]):
            cell = waiting.popleft()
            assert cell.config is not None, "a plan has no cell without one"
            task = CellTask(
                config=cell.config.model_copy(update={"trainer": _resuming(cell.config.trainer)}).model_dump(
                    mode="json"
                ),
                path=str(self.standing.folder_of(cell)),
                kind=cell.kind,
                measures=self.measures,
            )
            self.running[self.pool.submit(work, task)] = cell
            self.standing.running.add(cell.hash)

    def _room_for(self, cell: StudyCell) -> bool:
        if cell.kind != "train":
            return not self.running
        return len(self.running) < self.workers and all(other.kind == "train" for other in self.running.values())

    def _quiet_for(self, cell: StudyCell) -> bool:
        """Whether other studies on the machine let it begin; that it waits for one is said once."""
        admitted = self.quiet.admits(training=cell.kind == "train", idle=not self.running)
        if not admitted and not self.standing.waits:
            self.log.say(WAITS)
        self.standing.waits = not admitted
        return admitted

    def _take(self, waiting: deque[StudyCell]) -> None:
        if not self.running:  # another study keeps it from beginning
            time.sleep(SECONDS_BETWEEN_SCREENS)
        finished, _ = wait(self.running, timeout=SECONDS_BETWEEN_SCREENS, return_when=FIRST_COMPLETED)
        for future in finished:
            cell, answer = self.running.pop(future), future.result()
            self.standing.running.discard(cell.hash)
            self.standing.elsewhere.discard(cell.hash)
            if answer.busy:
                self.standing.elsewhere.add(cell.hash)
                trainings = sum(other.kind == "train" for other in waiting)
                waiting.insert(trainings if cell.kind == "train" else len(waiting), cell)
                time.sleep(SECONDS_UNTIL_ASKED_AGAIN)
            elif answer.stopped is not None:
                raise Stopped(STOPPED, answer.stopped)
            elif answer.error is not None:
                self._failed(cell, answer)
            else:
                self.standing.done.add(cell.hash)
                (self.standing.folder_of(cell) / TRACE).unlink(missing_ok=True)
                self.log.say(f"[{len(self.standing.done)}/{self.standing.n_all}] {cell.label}")

    def _failed(self, cell: StudyCell, answer: CellResult) -> None:
        assert answer.error is not None
        self.standing.failed[cell.hash] = answer.error
        self.log.say(f"FAILED {cell.label}: {answer.error}")
        folder = self.standing.folder_of(cell)
        with suppress(OSError):  # on a full disk; the line above has been said
            folder.mkdir(parents=True, exist_ok=True)
            (folder / TRACE).write_text(answer.trace, encoding="utf-8")
        if self.study.on_error == "stop":
            raise RunError(f"{cell.label} failed ({answer.error}); study.on_error=continue goes on without it")


def _resuming(trainer: TrainerConfig) -> TrainerConfig:
    return trainer.model_copy(update={"resume": "auto"})


HALTED = 143
"""Exit code of what was not begun any more."""
SECONDS_BETWEEN_LOOKS = 0.5
VERSIONS: Mapping[Measure | TimingKind, str] = {
    "fit": "1", "builds": "1", "heads": "1", "field": "1", "compute": "1", "cost": "1", "parallel": "1",
}  # fmt: skip
"""Raise one when what it computes changes, and it is computed anew."""


@dataclass(frozen=True, kw_only=True)
class CellTask:
    """One cell, as it is sent to a worker."""

    config: Mapping[str, Any]
    """`Config.model_dump(mode="json")`"""
    path: str
    kind: CellKind
    measures: tuple[Measure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What became of a task: one of the three, or nothing when it has finished."""

    error: str | None = None
    trace: str = ""
    busy: bool = False
    """Another process is at it."""
    stopped: int | None = None
    """Exit code of a run that was asked to stop, and has saved."""


def begin(threads: int | None, gpu_share: float | None, log: str, halt: Event, parent: int) -> None:
    """Set a worker up: with its share of the machine, silent on the terminal and deaf to its Ctrl-C.

    log: file for what libraries say. halt: set by the parent when what runs shall save and end. The worker is gone when
    the parent is.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # training has a handler of its own; nothing else may die half done
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the run's own lines are in its train.log
    os.dup2(said, sys.stderr.fileno())
    _halt.append(halt)
    threading.Thread(target=_leave_with, args=(halt, parent), daemon=True).start()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    if gpu_share is not None:
        import torch

        torch.cuda.set_per_process_memory_fraction(gpu_share)


def _leave_with(halt: Event, parent: int) -> None:
    told = False
    while True:
        if os.getppid() != parent:
            os._exit(1)  # whatever it was doing can be resumed from its last checkpoint
        if halt.wait(SECONDS_BETWEEN_LOOKS) and not told and training_listens():
            os.kill(os.getpid(), signal.SIGTERM)
            told = True
        if halt.is_set():
            time.sleep(SECONDS_BETWEEN_LOOKS)


def training_listens() -> bool:
    """Whether a run would save and end on SIGTERM now."""
    return signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)


_halt: list[Event] = []
"""This process's, once it is a worker."""


def work(task: CellTask) -> CellResult:
    """Run a cell to its end, then compute what is asked of it beside results.json."""
    if any(halt.is_set() for halt in _halt):
        return CellResult(stopped=HALTED)
    try:
        _run(load(task.config), Path(task.path), task)
    except Busy:
        return CellResult(busy=True)
    except Stopped as stop:
        return CellResult(stopped=stop.exit_code)
    except Exception as error:
        return CellResult(error=(str(error) or repr(error)).splitlines()[0], trace=traceback.format_exc())
    return CellResult()


def _run(config: Config, path: Path, task: CellTask) -> None:
    if task.kind == "cost":
        from minitx.studies.timings import run_cost

        run_cost(config, path)
    elif task.kind == "parallel":
        from minitx.studies.timings import run_parallel

        run_parallel(config, path)
    else:
        from minitx.studies.measures import add_measures
        from minitx.training.run import run

        run(config, path, quiet=True)
        add_measures(path, task.measures)


def is_done(path: Path, config: Config, kind: CellKind, measures: Sequence[Measure]) -> bool:
    """Whether this very cell has finished in `path`, with all that is asked of it.

    A run that was continued in place, with more steps say, is another cell.
    """
    folder = RunFolder(path)
    results = folder.results()
    if results is None or results["status"] != "finished":
        return False
    if run_hash(folder.read_config(), "", "", "") != run_hash(config, "", "", ""):
        return False
    if kind != "train":
        return is_kept(path, kind, VERSIONS[kind])
    return not isinstance(config.model, NetConfig) or all(is_kept(path, name, VERSIONS[name]) for name in measures)
