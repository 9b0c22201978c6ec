"""Processes that train one run together, as torchrun starts them, but forked from a server that has torch loaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import TCPStore

from minitx import distributed
from minitx.config.load import load
from minitx.sweeps.hydra_plugin import errors_in_one_line
from minitx.training import loop
from minitx.training import run as session

PRELOADED = [
    "minitx.training.run", "minitx.sweeps.hydra_plugin",
    "torch.utils.tensorboard", "torch._dynamo", "matplotlib.figure",
]  # fmt: skip

ENDED_BY_THEN = 240
"""Seconds, far more than any run here takes."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Runs to train one after the other, by processes that are started once."""

    runs: Sequence[tuple[Mapping[str, Any], Path]]
    """Raw configuration and folder of each."""
    double: bool = False
    """In float64."""
    signalled: tuple[int, int, int] | None = None
    """The process with this rank sends itself, after this step, this signal."""
    by_rank: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Further keys of `trainer` in some of the processes."""


def fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def train_together(server: ForkServerContext, size: int, job: Job, errors: Path | None = None) -> list[int]:
    """Exit codes by rank. errors: the file that takes what all processes write to standard error."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0,
    }  # fmt: skip
    processes = [server.Process(target=_member, args=({**shared, "RANK": r}, job, errors)) for r in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(ENDED_BY_THEN)
    late = [process for process in processes if process.exitcode is None]
    for process in late:
        process.kill()
    assert not late, "a process waits for ever"
    return [process.exitcode or 0 for process in processes]


def _member(environment: Mapping[str, object], job: Job, errors: Path | None) -> None:
    os.environ.update({key: str(value) for key, value in environment.items()}, LOCAL_RANK=str(environment["RANK"]))
    if errors is not None:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    distributed.PULSE_EVERY, distributed.LOST_AFTER = 0.5, 6.0  # so that tests wait less
    torch.set_num_threads(1)
    if job.double:
        torch.set_default_dtype(torch.float64)
    with errors_in_one_line():
        world = distributed.join()
        if job.signalled is not None and job.signalled[0] == world.rank:
            _signal_after(*job.signalled[1:])
        for raw, folder in job.runs:
            trainer = {**raw["trainer"], **job.by_rank.get(world.rank, {})}
            session.run(load({**raw, "trainer": trainer}), folder, quiet=True)
        distributed.leave()


def _signal_after(step: int, number: int) -> None:
    original = loop.Loop._train_step

    def stepped(self: loop.Loop) -> None:
        original(self)
        if self.counters.step == step:
            os.kill(os.getpid(), number)

    pytest.MonkeyPatch().setattr(loop.Loop, "_train_step", stepped)


KILLED = -signal.SIGKILL
