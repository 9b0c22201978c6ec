"""What a worker process does: trains or measures one cell after another, told by plain values and answering so."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from minitx.errors import Stopped
from minitx.parse import load
from minitx.studies.evidence import MEASURES
from minitx.studies.study import CellKind, Measure
from minitx.training.runfolder import Busy, RunFolder, write_json

SECONDS_BETWEEN_LOOKS = 1.0


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
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the run's own lines are in its train.log
    os.dup2(said, sys.stderr.fileno())
    threading.Thread(target=_leave_with, args=(halt, parent), daemon=True).start()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    if gpu_share is not None:
        import torch

        torch.cuda.set_per_process_memory_fraction(gpu_share)


def _leave_with(halt: Event, parent: int) -> None:
    while not halt.wait(SECONDS_BETWEEN_LOOKS):
        if os.getppid() != parent:
            os._exit(1)  # whatever it was doing can be resumed from its last checkpoint
    os.kill(os.getpid(), signal.SIGTERM)


def work(task: Task) -> Answer:
    """Run a cell to its end, then compute what is asked of it beside results.json."""
    try:
        config = load(task.config)
        if task.kind == "cost":
            from minitx.studies.cost import run_cost

            run_cost(config, Path(task.path))
        else:
            from minitx.studies.measures import add_measures
            from minitx.training.session import run

            run(config, Path(task.path), quiet=True)
            add_measures(Path(task.path), task.measures)
    except Busy:
        return Answer(busy=True)
    except Stopped as stop:
        return Answer(stopped=stop.exit_code)
    except Exception as error:
        return Answer(error=(str(error) or repr(error)).splitlines()[0], trace=traceback.format_exc())
    return Answer()


def is_done(path: Path, measures: Sequence[Measure]) -> bool:
    """Whether a cell has finished, with all that is asked of it."""
    results = RunFolder(path).results()
    if results is None or results["status"] != "finished":
        return False
    there = measures_of(path)
    return all(any(key.startswith(f"{name}.") for key in there) for name in measures)


def measures_of(path: Path) -> dict[str, float]:
    """What has been computed of a cell so far."""
    file = path / MEASURES
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def write_measures(path: Path, found: Mapping[str, float]) -> None:
    """Add to what there is."""
    write_json(path / MEASURES, {**measures_of(path), **found})
