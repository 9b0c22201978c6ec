"""What a worker process does: trains or measures one cell after another, told by plain values and answering so."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from minitx.config import Config, NetConfig
from minitx.errors import Stopped
from minitx.parse import load
from minitx.studies.kept import is_kept
from minitx.studies.study import CellKind, Measure, TimingKind
from minitx.training.runfolder import Busy, RunFolder, run_hash

HALTED = 143
"""Exit code of what was not begun any more."""
SECONDS_BETWEEN_LOOKS = 0.5
VERSIONS: Mapping[Measure | TimingKind, str] = {
    "fit": "1", "builds": "1", "heads": "1", "field": "1", "compute": "1", "cost": "1", "parallel": "1",
}  # fmt: skip
"""Raise one when what it computes changes, and it is computed anew."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One cell, as it is sent to a worker."""

    config: Mapping[str, Any]
    """`Config.model_dump(mode="json")`"""
    path: str
    kind: CellKind
    measures: tuple[Measure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Answer:
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


def work(task: Task) -> Answer:
    """Run a cell to its end, then compute what is asked of it beside results.json."""
    if any(halt.is_set() for halt in _halt):
        return Answer(stopped=HALTED)
    try:
        _run(load(task.config), Path(task.path), task)
    except Busy:
        return Answer(busy=True)
    except Stopped as stop:
        return Answer(stopped=stop.exit_code)
    except Exception as error:
        return Answer(error=(str(error) or repr(error)).splitlines()[0], trace=traceback.format_exc())
    return Answer()


def _run(config: Config, path: Path, task: Task) -> None:
    if task.kind == "cost":
        from minitx.studies.cost import run_cost

        run_cost(config, path)
    elif task.kind == "parallel":
        from minitx.studies.parallel import run_parallel

        run_parallel(config, path)
    else:
        from minitx.studies.measures import add_measures
        from minitx.training.session import run

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
