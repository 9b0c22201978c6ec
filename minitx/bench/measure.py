"""What every contestant is measured with: operations, clocks, the machine's peak, and the machine itself.

    training = 3 x forward                               (the backward pass computes two products per forward one)
    forward  = 2 x (weights of a matrix) x (tokens that pass through it)
             + 4 x layers x sum over rows of T_q x T_k x H K         (scores, and their product with the values)

with real tokens only: what anybody spends on padding is not counted. Token tables cost nothing, the output projection
counts 2 x D x V per target, and norms, softmax, dropout, biases and the optimiser are left out. Causal attention counts
every pair, as is usual. With `first_only` the last encoder layer counts keys and values of all positions, and all else
of the first position alone.

Letters: S source and T target tokens of a row, D model width, H heads, K head width, F feed-forward width, V outputs.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from minitx.bench.jobs import Job, Size
from minitx.config import TrainerConfig
from minitx.data import Split
from minitx.data.splits import IntArray
from minitx.training.device import cpu_name, resolve_compute, usable_cores
from minitx.training.run_folder import git_commit, versions

FORMULA = (
    "training = 3 x forward; forward = 2 x matrix weights x real tokens + 4 x layers x sum(T_q x T_k) x H K; "
    "token tables 0, output 2 x D x outputs x targets; cls pooling with first_only: the last encoder layer counts "
    "queries, output and feed-forward of the first position alone"
)
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Flops:
    """Forward operations by part."""

    encoder: float
    decoder: float
    attention: float
    """Scores and weighted sums, of all layers."""
    output: float
    """The output projection, or pooling and head of a classifier."""

    @property
    def forward(self) -> float:
        return self.encoder + self.decoder + self.attention + self.output

    @property
    def training(self) -> float:
        return 3 * self.forward

    def to_json(self) -> dict[str, float]:
        return {**asdict(self), "training": self.training}


def count_flops(
    size: Size, src: Ints, tgt: Ints | None = None, *, first_only: bool = False, pooler: bool = False
) -> Flops:
    """Operations of one forward pass over rows of `src` (R,) and, for a translator, `tgt` (R,) real tokens.

    first_only: the last encoder layer computes the first position alone. pooler: a further D x D matrix before the
    head, as BERT has.
    """
    width, rows = size.d_model, len(src)
    tokens = float(src.sum())
    square, wide = 2.0 * width * width, 4.0 * width * size.d_ff
    full = size.n_layers - first_only
    encoder = full * (4 * square + wide) * tokens
    attention = 4.0 * width * full * float((src**2).sum())
    if first_only:
        encoder += 2 * square * tokens + (2 * square + wide) * rows
        attention += 4.0 * width * tokens
    if tgt is None:
        head = 2.0 * width * size.n_classes * rows + (square * rows if pooler else 0.0)
        return Flops(encoder, 0.0, attention, head)
    targets = float(tgt.sum())
    decoder = size.n_layers * ((6 * square + wide) * targets + 2 * square * tokens)
    attention += 4.0 * width * size.n_layers * float((tgt**2).sum() + (tgt * src).sum())
    return Flops(encoder, decoder, attention, 2.0 * width * size.vocab * targets)


def now(device: torch.device | None = None) -> float:
    """Seconds; with a GPU `device`, after all that it was given is done."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class StepClock:
    """The beginnings of the counted steps and the end of the last, seconds.

    The device is waited for at the first and the last only, so that a GPU is kept busy in between as in training.
    """

    def __init__(self, warmup: int, steps: int, device: torch.device) -> None:
        self.warmup, self.last, self.device = warmup, warmup + steps, device
        self.times: list[float] = []

    def before_step(self, step: int) -> bool:
        """Called once before each step, counted from 0; False when enough were done."""
        if step >= self.warmup:
            self.times.append(now(self.device if step in (self.warmup, self.last) else None))
        return step < self.last


def training_result(
    job: Job,
    clock: StepClock,
    split: Split,
    batches: Sequence[IntArray],
    model: nn.Module,
    *,
    first_only: bool = False,
    pooler: bool = False,
) -> dict[str, Any]:
    """What a training measurement leaves. batches: rows of each counted step."""
    rows = np.concatenate(batches)
    src = split.src.lengths[rows]
    tgt = None if split.tgt is None else split.tgt.lengths[rows]
    flops = count_flops(job.size, src, tgt, first_only=first_only, pooler=pooler)
    seconds = clock.times[-1] - clock.times[0]
    tokens = int((src if tgt is None else tgt).sum())
    padded = sum(len(batch) * int(split.lengths[batch].max()) for batch in batches)
    return {
        "seconds": seconds,
        "steps": len(batches),
        "step_seconds": [round(b - a, 6) for a, b in zip(clock.times, clock.times[1:], strict=False)],
        "tokens": tokens,
        "tokens_per_step": tokens / len(batches),
        "rows_per_step": len(rows) / len(batches),
        "padding": 1 - float(split.lengths[rows].sum()) / padded,
        "tokens_per_second": tokens / seconds,
        "flops": flops.to_json(),
        "flops_per_second": flops.training / seconds,
        "first_only": first_only,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


MOST = 50
"""Repetitions at most."""


def peak(job: Job) -> dict[str, Any]:
    """Median speed of a square product in float32, and in bfloat16 where the device multiplies that itself."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    found: dict[str, Any] = {"edge": job.edge, "fp32": _speed(job, torch.float32)}
    if resolve_compute(TrainerConfig(device=job.device)).bf16:
        found["bf16"] = _speed(job, torch.bfloat16)
    return found


def _speed(job: Job, dtype: torch.dtype) -> dict[str, Any]:
    """`gflops` (10^9 operations per second) and every timing, seconds, after three that are not counted."""
    device = torch.device(job.device)
    a, b = (torch.randn(job.edge, job.edge, device=device, dtype=dtype) for _ in range(2))
    timings: list[float] = []
    for repetition in range(MOST):
        start = now(device)
        torch.mm(a, b)
        taken = now(device) - start
        if repetition >= 3:
            timings.append(taken)
        if len(timings) >= 3 and sum(timings) >= job.seconds:
            break
    return {"gflops": 2e-9 * job.edge**3 / statistics.median(timings), "seconds": [round(t, 7) for t in timings]}


PACKAGES = ("transformers", "accelerate")


def machine(job: Job) -> dict[str, Any]:
    """Looked up in a worker, so that the suite itself never holds the GPU."""
    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "gpu": None,
        "versions": {**versions(), **{name: _version(name) for name in PACKAGES}},
        "git": git_commit(),
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "niceness": os.nice(0),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
