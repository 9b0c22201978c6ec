"""Memory and time of one training step of a small encoder against the length of its one row."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor

from minitx.bench.job import Job
from minitx.bench.timing import now
from minitx.config import AttentionConfig, TransformerConfig
from minitx.nn.transformer import Encoder
from minitx.training.device import peak_bytes

FIRST_LENGTH = 64
"""A step this long comes first: it loads libraries and starts threads, which belong to no length."""
LEAST_REPETITIONS, MOST_REPETITIONS = 3, 200


def memory(job: Job) -> dict[str, Any]:
    """{"bytes": {length: highest use during the step, less what was in use before it}}.

    Freed memory goes back to the system, as it does unless training is told otherwise.
    """
    device = _begin(job)
    _step(_encoder(job, FIRST_LENGTH, device), _states(job, FIRST_LENGTH, device), job)
    taken = {}
    for length in job.lengths:
        encoder, states = _encoder(job, length, device), _states(job, length, device)
        taken[str(length)] = peak_bytes(device, lambda: _step(encoder, states, job))  # noqa: B023  (called at once)
    return {"bytes": taken}


def cost(job: Job) -> dict[str, Any]:
    """{"seconds": {length: median}, "timings": {length: every one}}, after one step that is not counted."""
    device = _begin(job)
    timings: dict[str, list[float]] = {}
    for length in job.lengths:
        encoder, states = _encoder(job, length, device), _states(job, length, device)
        _step(encoder, states, job)
        taken: list[float] = []
        while len(taken) < LEAST_REPETITIONS or (sum(taken) < job.seconds and len(taken) < MOST_REPETITIONS):
            start = now(device)
            _step(encoder, states, job)
            taken.append(now(device) - start)
        timings[str(length)] = taken
    return {"seconds": {length: statistics.median(t) for length, t in timings.items()}, "timings": timings}


def _begin(job: Job) -> torch.device:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    return torch.device(job.device)


def _encoder(job: Job, length: int, device: torch.device) -> Encoder:
    size = job.size
    if job.backend == "window":
        attention = AttentionConfig(span="window", window=job.window)
    else:
        attention = AttentionConfig(backend=job.backend)
    config = TransformerConfig(
        d_model=size.d_model, n_layers=size.n_layers, n_heads=size.n_heads, d_ff=size.d_ff, dropout=0.0,
        activation=size.activation, attention=attention,
    )  # fmt: skip
    return Encoder(config, length).to(device)


def _states(job: Job, length: int, device: torch.device) -> Tensor:
    return torch.randn(1, length, job.size.d_model, device=device, requires_grad=True)


def _step(encoder: Encoder, states: Tensor, job: Job) -> None:
    """Forward and backward; the gradients are dropped, so that every step finds the same memory."""
    with torch.autocast(states.device.type, torch.bfloat16, enabled=job.precision == "bf16"):
        loss = encoder(states).float().square().mean()
    torch.autograd.backward(loss)
    encoder.zero_grad(set_to_none=True)
    states.grad = None
