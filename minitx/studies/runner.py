"""Runs a study's cells: in worker processes that live on, resumed where they were, shared between studies.

A cell belongs to the first folder of outputs/studies that holds its hash, so cells that coincide between studies run
once. Trainings go side by side; timings come after them, one at a time, and while no other study works (see `quiet`).
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

from minitx.config import TrainerConfig
from minitx.errors import RunError, Stopped
from minitx.studies.machine import share_of_machine, workers_for
from minitx.studies.plan import StudyCell
from minitx.studies.quiet import WAITS, Quiet
from minitx.studies.screen import Screen, Standing
from minitx.studies.study import Measure, Study
from minitx.studies.work import Answer, Task, begin, is_done, work
from minitx.training.console import Reporter
from minitx.training.runfolder import RunFolder
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
    study: Study, standing: Standing, folder: Path, measures: Sequence[Measure], screen: Screen, log: Reporter
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


def _unfinished(standing: Standing, measures: Sequence[Measure]) -> list[StudyCell]:
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
        standing: Standing,
        folder: Path,
        measures: Sequence[Measure],
        screen: Screen,
        log: Reporter,
    ) -> None:
        self.study, self.standing, self.measures, self.screen, self.log = study, standing, tuple(measures), screen, log
        self.running: dict[Future[Answer], StudyCell] = {}
        self.workers, self.quiet = workers, Quiet()
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
            task = Task(
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

    def _failed(self, cell: StudyCell, answer: Answer) -> None:
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
