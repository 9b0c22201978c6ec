"""The machine that cells run on: how many run at a time, the share of each, and the lock under which timings run."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

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
    """CPU threads that a timing uses: all cores where trainer.threads is null, because it runs alone."""
    return trainer.threads or usable_cores()


def machine_name(trainer: TrainerConfig) -> str:
    """What a timing depends on: processor, threads, and the GPU where it computes there.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    compute = resolve_compute(trainer)
    gpu = f", {compute.name}" if compute.device.type == "cuda" else ""
    return f"{cpu_name()}, {threads_for(trainer)} threads{gpu}"


WAITS = "waiting for another study on this machine, because timings run alone"


class TimingLock:
    """`with TimingLock() as lock: if lock.admits(...): ...`: trainings share the machine, a timing has it alone.

    On flock itself, unlike `minitx.locks`: many have it at once, and it is of this machine, in its temporary folder.
    What filelock offers for that is a database.
    """

    def __init__(self) -> None:
        self._gate, self._work = _open("gate"), _open("work")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._gate)
        os.close(self._work)

    def admits(self, *, training: bool, idle: bool) -> bool:
        """Whether a training, else a timing, may begin; to be asked until it may. idle: no cell of ours runs."""
        if idle:  # the gate stays locked between two timings of a study, so that no other process gets in
            fcntl.flock(self._work, fcntl.LOCK_UN)
        if not training:
            return _take(self._gate, fcntl.LOCK_EX) and _take(self._work, fcntl.LOCK_EX)
        if not _take(self._gate, fcntl.LOCK_SH):
            return False
        admitted = _take(self._work, fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        return admitted


def _open(name: str) -> int:
    path = Path(tempfile.gettempdir()) / f"minitx-studies-{os.getuid()}.{name}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _take(handle: int, how: int) -> bool:
    """Without waiting."""
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
