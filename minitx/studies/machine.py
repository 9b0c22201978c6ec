"""The machine that a study runs on: how many cells at a time, the share of each, and the name that timings go under."""

from __future__ import annotations

from collections.abc import Sequence

from minitx.config import TrainerConfig
from minitx.training.device import cpu_name, resolve_compute, resolve_device, usable_cores


def workers_for(asked: int | None, trainers: Sequence[TrainerConfig]) -> int:
    """What was asked for, else as many as keep the cores busy with these trainings.

    One where a training uses a GPU, or has no `trainer.threads` and so takes all cores.
    """
    if asked is not None:
        return asked
    threads = [trainer.threads for trainer in trainers if trainer.threads is not None]
    on_gpu = any(resolve_device(trainer.device).type == "cuda" for trainer in trainers)
    if on_gpu or not threads or len(threads) < len(trainers):
        return 1
    return max(1, usable_cores() // max(threads))


def share_of_machine(workers: int) -> tuple[int | None, float | None]:
    """(CPU threads, share of a GPU's memory) of one of several workers; None where it may have all."""
    if workers == 1:
        return None, None
    import torch

    return max(1, torch.get_num_threads() // workers), 1 / workers if torch.cuda.is_available() else None


def threads_for(trainer: TrainerConfig) -> int:
    """CPU threads that a timing has: it runs alone, so all cores where nothing is said."""
    return trainer.threads or usable_cores()


def machine_name(trainer: TrainerConfig) -> str:
    """Of what a timing depends on: processor, threads, and the GPU where it computes there.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    compute = resolve_compute(trainer)
    gpu = f", {compute.name}" if compute.device.type == "cuda" else ""
    return f"{cpu_name()}, {threads_for(trainer)} threads{gpu}"
