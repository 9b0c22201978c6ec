"""One run from configuration to results.json; `python train.py`, sweeps and studies all come here.

configuration -> run folder, locked -> data -> model -> fit -> best weights on validation and test -> results.json
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from minitx.config import Config, LinearConfig, NetConfig
from minitx.data import TaskData, identify_source, load_data
from minitx.errors import Stopped
from minitx.training.console import Reporter
from minitx.training.device import Compute, compute_of, prepare_process
from minitx.training.linear import LinearTrainer
from minitx.training.pretrain import check_pretraining, find_start
from minitx.training.results import results_of, show_next_steps, write_results
from minitx.training.run_folder import RunFolder, finished_before, run_hash
from minitx.training.signals import EXIT_BASE
from minitx.training.trainer import Trainer

CUT = "data.max_length"
"""How a note on cut texts begins."""


def run(config: Config, path: Path, quiet: bool = False, parent_run: Path | None = None) -> dict[str, Any]:
    """Train in folder `path`, or continue what it holds when `trainer.resume` says so; returns results.json.

    `quiet` leaves the console to the caller, but for the live progress line; train.log has it all. parent_run: the run
    that this one is the pretraining of.

    Raises:
        ConfigError: the configuration or the data cannot be used.
        CheckpointError: the checkpoint to continue from is damaged.
        TrainingError: the loss became non-finite.
        Stopped: SIGINT or SIGTERM came; everything is saved.
    """
    compute = compute_of(config)
    fingerprint = identify_source(config.data)
    folder = RunFolder(path)
    if not folder.has_checkpoint():  # later on nothing is read from `pretrain.run`, which may be gone
        check_pretraining(config, fingerprint)
    folder.create()
    with folder.locked():
        results = finished_before(config, folder, fingerprint, compute.device.type, compute.precision)
        if results is None:
            with closing(Reporter(folder.log, quiet=quiet)) as reporter, _failure_recorded(config, folder):
                return _train(config, folder, fingerprint, compute, reporter, quiet, parent_run)
    if not quiet and parent_run is None:
        longer = "; raise trainer.max_epochs, max_steps, max_minutes or patience to go on"
        print(f"already finished: {path}/results.json{longer if isinstance(config.model, NetConfig) else ''}")
    return results


def _train(
    config: Config,
    folder: RunFolder,
    fingerprint: str,
    compute: Compute,
    reporter: Reporter,
    quiet: bool,
    parent_run: Path | None,
) -> dict[str, Any]:
    """Everything between an empty or unfinished folder and its results."""
    start = None
    if config.pretrain.kind != "none" and not folder.has_checkpoint():
        start = find_start(config, folder, reporter, lambda stage, path: run(stage, path, quiet, folder.path))
    if isinstance(config.model, NetConfig):
        prepare_process(config.trainer.speed, compute.device, config.trainer.threads)
        if compute.compiled:
            torch.compiler.reset()  # a sweep's earlier cells have used up their number of recompilations
    reporter.info(f"run     {folder.path}")
    data = load_data(config.data, fingerprint=fingerprint)
    _show_data(reporter, config, data)
    trainer: Trainer | LinearTrainer
    if isinstance(config.model, LinearConfig):
        trainer = LinearTrainer(config, config.model, folder, data, reporter)
    else:
        trainer = Trainer(config, config.model, folder, data, compute, reporter, start)
    with closing(trainer):
        stopped_by = trainer.fit()
        if stopped_by is None:
            try:
                evaluations = trainer.evaluate_best()
            except KeyboardInterrupt:  # training itself is saved
                stopped_by = signal.SIGINT
        if stopped_by is not None:
            if folder.results() is None:  # else it has not come as far as to replace the finished run
                folder.write_results(results_of(config, data, "stopped", trainer.summary()))
            line = trainer.stopped(parent_run or folder.path)
            reporter.info(line)
            raise Stopped(line, EXIT_BASE + stopped_by)
        results = results_of(config, data, "finished", trainer.summary(), evaluations)
        write_results(folder, config, data, results, evaluations, reporter, trainer.log.board)
        if parent_run is None:
            show_next_steps(reporter, folder, data, attends=trainer.attends)
        trainer.show_maps()  # of the best weights
    return results


@contextmanager
def _failure_recorded(config: Config, folder: RunFolder) -> Iterator[None]:
    """An error inside is written to results.json, unless that holds the results of a run that was to be continued."""
    try:
        yield
    except Exception as error:
        if folder.results() is None:
            line = (str(error) or repr(error)).splitlines()[0]
            failed = {"status": "failed", "error": line, "data": config.data.name, "model": config.model.kind}
            with suppress(OSError):  # on a full disk this fails too, and the error to show is the one that came first
                folder.write_results({**failed, "seed": config.seed})
        raise


def _show_data(reporter: Reporter, config: Config, data: TaskData) -> None:
    """Log the rows of each split, and notes; a linear model reads texts whole, so none about cut ones."""
    rows = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    reporter.info(f"data    {config.data.name}: {rows} rows")
    for note in data.notes:
        is_of_cut = note.startswith(CUT)
        if not (is_of_cut and isinstance(config.model, LinearConfig)):
            reporter.info(f"{'warning' if is_of_cut else 'note   '} {note}")


def hash_of(config: Config) -> str:
    """The run's hash on this machine.

    Raises:
        ConfigError: the data's source cannot be used, or the device is not there.
    """
    compute = compute_of(config)
    return run_hash(config, identify_source(config.data), compute.device.type, compute.precision)
