"""Clocks and processes: what every contestant is timed with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from minitx.bench.flops import count_flops
from minitx.bench.job import Job
from minitx.data import Split
from minitx.data.splits import IntArray


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
