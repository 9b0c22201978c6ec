"""How fast this machine multiplies matrices now: the ceiling that achieved FLOP/s are held against."""

from __future__ import annotations

import statistics
from typing import Any

import torch

from minitx.bench.job import Job
from minitx.bench.timing import now
from minitx.config import TrainerConfig
from minitx.training.device import resolve_compute

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
