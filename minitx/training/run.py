"""One run from configuration to results.json; `python train.py`, sweeps and studies all come here.

configuration -> run folder, locked -> data -> model -> fit -> best weights on validation and test -> results.json

Under torchrun several processes come here together (see `minitx.distributed`): the first one has the folder.
"""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from minitx.config import Config, LinearConfig, NetConfig, rule
from minitx.config.load import flat
from minitx.data import TaskData, identify_source, load_data
from minitx.distributed import World, current
from minitx.errors import Stopped, first_line
from minitx.metrics.evaluate import Evaluation
from minitx.training.console import Reporter
from minitx.training.device import Compute, compute_of, prepare_process, resolve_device
from minitx.training.linear import LinearTrainer
from minitx.training.pretrain import check_pretraining, find_start
from minitx.training.results import results_of, show_next_steps, write_results
from minitx.training.run_folder import RunFolder, finished_before, run_hash
from minitx.training.signals import EXIT_BASE
from minitx.training.trainer import Trainer

OF_TOKENS = ("data.max_length", "data.tokenizer", "data.tgt_tokenizer")
"""How warnings begin, of cut texts and of tokens that are unlike those in training."""


def run(config: Config, path: Path, quiet: bool = False, parent_run: Path | None = None) -> dict[str, Any]:
    """Train in folder `path`, or continue what it holds when `trainer.resume` says so; returns results.json.

    `quiet` leaves the console to the caller, but for the live progress line; train.log has it all. parent_run: the run
    that this one is the pretraining of.

    Raises:
        ConfigError: the configuration or the data cannot be used.
        CheckpointError: the checkpoint to continue from is damaged.
        TrainingError: the loss became non-finite.
        ProcessLost: another process of the run has ended.
        Stopped: SIGINT or SIGTERM came; everything is saved.
    """
    world = current()
    world.run = world.run if parent_run else path
    config = _for_processes(config, world.size)
    compute = compute_of(config)
    fingerprint, folder = identify_source(config.data), RunFolder(path)
    _check_alike(world, config, f"{fingerprint} {compute.device.type} {compute.precision} {path}")
    with ExitStack() as opened:
        results = world.from_first(lambda: _open(config, folder, fingerprint, compute, opened))
        if results is None:
            with _reporter(world, folder, quiet) as reporter, _failure_recorded(world, config, folder):
                return _train(config, folder, fingerprint, compute, reporter, world, quiet, parent_run)
    if world.is_first and not quiet and parent_run is None:
        longer = "; raise trainer.max_epochs, max_steps, max_minutes or patience to go on"
        print(f"already finished: {path}/results.json{longer if isinstance(config.model, NetConfig) else ''}")
    return results


def _for_processes(config: Config, size: int) -> Config:
    """The configuration as so many processes can train it: CUDA graphs that nobody has asked for are off.

    Raises:
        ConfigError: they cannot.
    """
    trainer, these = config.trainer, f"{size} processes"
    if size == 1:
        return config
    if isinstance(config.model, LinearConfig):
        raise rule("model", "linear", f"be a net to be trained by {these}", "leave torchrun out: python train.py ...")
    if trainer.accumulate % size:
        must = f"be a multiple of the number of processes ({size}), which share the batches of a step"
        more = -(-trainer.accumulate // size) * size
        remedy = f"add trainer.accumulate={more}, and a smaller trainer.batch_tokens for steps of the same size"
        raise rule("trainer.accumulate", trainer.accumulate, must, remedy)
    if trainer.cuda_graphs == "on":
        raise rule("trainer.cuda_graphs", "on", f"be off with {these}", "leave it out")
    on_gpu = resolve_device(trainer.device).type == "cuda"
    local_size, there = int(os.environ.get("LOCAL_WORLD_SIZE", size)), torch.cuda.device_count()
    if on_gpu and local_size > there:
        must = f"be at most the number of GPUs ({there})"
        raise rule("--nproc-per-node", local_size, must, "or add trainer.device=cpu")
    if not config.records_graphs(on_gpu):
        return config
    return config.model_copy(update={"trainer": trainer.model_copy(update={"cuda_graphs": "off"})})


def _check_alike(world: World, config: Config, surroundings: str) -> None:
    """That all processes are about to train the same run. surroundings: what else has to be the same.

    Raises:
        ConfigError: they are not.
    """
    first, *others = world.gather({**flat(config.model_dump(mode="json")), "data and device": surroundings})
    for rank, other in enumerate(others, 1):
        found = [f"{key} {first[key]}, not {other[key]}" for key in first if first[key] != other.get(key)]
        if found:
            must = f"train the same run as process 0 ({'; '.join(found[:3])})"
            raise rule("process", rank, must, "start all of them by one line")


def _open(
    config: Config, folder: RunFolder, fingerprint: str, compute: Compute, opened: ExitStack
) -> dict[str, Any] | None:
    """Check and lock the folder until `opened` ends; the results of this very run where it has finished."""
    if not folder.has_checkpoint():  # later on nothing is read from `pretrain.run`, which may be gone
        check_pretraining(config, fingerprint)
    folder.create()
    opened.enter_context(folder.locked())
    return finished_before(config, folder, fingerprint, compute.device.type, compute.precision)


def _reporter(world: World, folder: RunFolder, quiet: bool) -> closing[Reporter]:
    """Of the first process; the others have nothing to report that it has not."""
    return closing(Reporter(folder.log, quiet=quiet) if world.is_first else Reporter(stream=io.StringIO(), quiet=True))


def _train(
    config: Config,
    folder: RunFolder,
    fingerprint: str,
    compute: Compute,
    reporter: Reporter,
    world: World,
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
    data = load_data(config.data, fingerprint=fingerprint, report=reporter.info)
    _show_data(reporter, config, data)
    trainer: Trainer | LinearTrainer
    if isinstance(config.model, LinearConfig):
        trainer = LinearTrainer(config, config.model, folder, data, reporter)
    else:
        trainer = Trainer(config, config.model, folder, data, compute, reporter, world, start)
    with closing(trainer):
        stopped_by = trainer.fit()
        if stopped_by is None:
            try:
                evaluations = trainer.evaluate_best()
            except KeyboardInterrupt:  # training itself is saved
                stopped_by = signal.SIGINT
        if stopped_by is not None:
            if world.is_first and folder.results() is None:  # else nothing has replaced the finished run yet
                folder.write_results(results_of(config, data, "stopped", trainer.summary()))
            line = trainer.stopped(parent_run or folder.path)
            reporter.info(line)
            raise Stopped(line, EXIT_BASE + stopped_by)
        return world.from_first(lambda: _finish(config, folder, data, trainer, evaluations, reporter, parent_run))


def _finish(
    config: Config,
    folder: RunFolder,
    data: TaskData,
    trainer: Trainer | LinearTrainer,
    evaluations: Mapping[str, Evaluation],
    reporter: Reporter,
    parent_run: Path | None,
) -> dict[str, Any]:
    """Write and show what a run has come to."""
    assert trainer.log is not None, "the first process logs"
    results = results_of(config, data, "finished", trainer.summary(), evaluations)
    write_results(folder, config, data, results, evaluations, reporter, trainer.log.board)
    if parent_run is None:
        show_next_steps(reporter, folder, data, attends=trainer.attends)
    trainer.show_weights()  # the best ones
    return results


@contextmanager
def _failure_recorded(world: World, config: Config, folder: RunFolder) -> Iterator[None]:
    """An error inside is written to results.json, unless that holds the results of a run that was to be continued."""
    try:
        yield
    except Exception as error:
        if world.is_first and folder.results() is None:
            of_run = {"data": config.data.name, "model": config.model.kind, "seed": config.seed}
            with suppress(OSError):  # on a full disk this fails too, and the error to show is the one that came first
                folder.write_results({"status": "failed", "error": first_line(error), **of_run})
        raise


def _show_data(reporter: Reporter, config: Config, data: TaskData) -> None:
    """Log the rows of each split, and notes; a linear model reads texts, so none about tokens."""
    rows = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    reporter.info(f"data    {config.data.name}: {rows} rows")
    for note in data.notes:
        is_of_tokens = note.startswith(OF_TOKENS)
        if not (is_of_tokens and isinstance(config.model, LinearConfig)):
            reporter.info(f"{'warning' if is_of_tokens else 'note   '} {note}")


def hash_of(config: Config) -> str:
    """The run's hash on this machine.

    Raises:
        ConfigError: the data's source cannot be used, or the device is not there.
    """
    config = _for_processes(config, current().size)
    compute = compute_of(config)
    return run_hash(config, identify_source(config.data), compute.device.type, compute.precision)
