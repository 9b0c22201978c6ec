"""The tiny trainings that are killed and damaged: every model, task and way of training, a second or so each."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import c_int
from functools import wraps
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from tests.tiny import TINY_CLASSES, TINY_DATA, TINY_MODEL, TINY_TRAINER, write_colours, write_spelling

PHASES = ("start-up", "cache writing", "training", "evaluation", "checkpoint writing", "results")
TRAINER = {**TINY_TRAINER, "max_steps": 18, "eval_every": 6, "save_every": 4, "resume": "auto", "threads": 1}
SMALL = {"d_model": 12, "dropout": 0.1}

TRANSLATION: dict[str, dict[str, Any]] = {
    "transformer translation": {},
    "lstm translation": {"model": {"kind": "lstm", **SMALL}},
    "ema and accumulation": {"trainer": {"accumulate": 2, "average": {"kind": "ema", "decay": 0.9}}},
    "mean of the last": {"trainer": {"average": {"kind": "last", "k": 2}, "keep": 2}},
    "r-drop and smoothing": {"optim": {"r_drop": 2.0, "label_smoothing": 0.1}},
    "learned positions, bf16": {"model": {"position": "learned", "tie_embeddings": False},
                                "trainer": {"precision": "bf16"}},
}  # fmt: skip
CLASSIFICATION: dict[str, dict[str, Any]] = {
    "transformer classification": {"model": {"token_dropout": 0.1}},
    "lstm classification": {"model": {"kind": "lstm", **SMALL}},
    "cnn classification": {"model": {"kind": "cnn", **SMALL}},
    "bag classification": {"model": {"kind": "bag", "d_model": 12}},
    "linear classification": {"model": {"kind": "linear"}},
    "masked": {"data": {"task": "masked"}},
    "pretraining": {"pretrain": {"kind": "masked", "max_epochs": None, "max_steps": 8}},
}
TRAININGS = (*TRANSLATION, *CLASSIFICATION)


def write_data(folder: Path) -> None:
    """The two files that they read."""
    folder.mkdir(parents=True, exist_ok=True)
    write_spelling(folder / "spelling.csv")
    write_colours(folder / "colours.csv")


def configuration(name: str, data: Path, cache: Path) -> dict[str, Any]:
    """A training as plain sections. data: the folder that `write_data` filled. cache: for prepared data."""
    translates = name in TRANSLATION
    changes = TRANSLATION[name] if translates else CLASSIFICATION[name]
    section = TINY_DATA if translates else TINY_CLASSES
    file = data / ("spelling.csv" if translates else "colours.csv")
    tree: dict[str, Any] = {
        "data": {**section, "path": str(file), "cache_dir": str(cache)},
        "model": dict(TINY_MODEL),
        "optim": {"lr": 3e-3},
        "trainer": dict(TRAINER),
    }
    for key, values in changes.items():
        other_model = key == "model" and "kind" in values
        tree[key] = dict(values) if other_model else {**tree.get(key, {}), **values}
    return tree


class Phase:
    """Where a training process is, for the process that watches it."""

    def __init__(self, context: ForkServerContext) -> None:
        self.value: Synchronized[int] = context.Value(c_int, -1)

    @property
    def has_begun(self) -> bool:
        """Whether the process has come as far as train.py with its imports done."""
        return self.value.value >= 0

    @property
    def now(self) -> str:
        return PHASES[self.value.value]

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        before, self.value.value = self.value.value, PHASES.index(name)
        try:
            yield
        finally:
            self.value.value = before

    def follow(self, module: Any, function: str, name: str) -> None:
        """Note every call of a function of a module (or method of a class) as this phase."""
        original: Callable[..., Any] = getattr(module, function)

        @wraps(original)
        def noted(*args: Any, **keys: Any) -> Any:
            with self.inside(name):
                return original(*args, **keys)

        setattr(module, function, noted)


def server() -> ForkServerContext:
    """Starts processes that have torch loaded already."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.warm"])
    return context


def start(
    context: ForkServerContext,
    tree: Mapping[str, Any],
    run: Path,
    phase: Phase | None,
    log: Path,
    limits: Mapping[str, int] | None = None,
) -> BaseProcess:
    """A process that trains in folder `run`; what it prints goes to the end of `log`. limits: see `_limit`."""
    process = context.Process(target=_train, args=(tree, run, phase, log, limits))
    process.start()
    return process


def _train(
    tree: Mapping[str, Any], run: Path, phase: Phase | None, log: Path, limits: Mapping[str, int] | None = None
) -> None:
    from minitx.config.load import load
    from minitx.data.pipeline import cache
    from minitx.sweeps.hydra_plugin import errors_in_one_line
    from minitx.training import linear, loop, saver, trainer
    from minitx.training import run as session

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if phase is not None:
        phase.follow(cache, "_make", "cache writing")
        phase.follow(trainer.Trainer, "fit", "training")
        phase.follow(linear.TfidfClassifier, "fit", "training")
        phase.follow(trainer, "evaluate", "evaluation")
        phase.follow(saver, "save_checkpoint", "checkpoint writing")
        phase.follow(linear, "save_checkpoint", "checkpoint writing")
        phase.follow(session, "write_results", "results")
    _limit(loop.Loop, **(limits or {}))
    with errors_in_one_line():  # as train.py does
        if phase is not None:
            phase.value.value = 0
        session.run(load(tree), run, quiet=True)


def _limit(loop: Any, file_size: int | None = None, steps: int | None = None, nan_at: int | None = None) -> None:
    """file_size: bytes that no file may exceed. steps: SIGTERM comes after so many. nan_at: the step before which a
    weight is spoiled."""
    if file_size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writing then fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    original = loop._train_step

    def step(self: Any) -> None:
        if self.counters.step + 1 == nan_at:
            next(self.stepper.model.parameters()).data[:] = float("nan")
        original(self)
        if self.counters.step == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    loop._train_step = step
