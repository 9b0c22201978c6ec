"""Memory and time of one training step of a small encoder against the length of its one row."""

from __future__ import annotations

import resource
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minitx.bench.job import Job
from minitx.bench.timing import now
from minitx.config import AttentionConfig, TransformerConfig
from minitx.nn.stacks import Encoder

FIRST_LENGTH = 64
"""A step this long comes first: it loads libraries and starts threads, which belong to no length."""
LEAST_REPETITIONS, MOST_REPETITIONS = 3, 200


def memory(job: Job) -> dict[str, Any]:
    """{"bytes": {length: highest use during the step, less what was in use before it}}.

    GPU: as torch's allocator counts. CPU: as the kernel counts the process's resident memory; freed memory goes back to
    the system, as it does unless training is told otherwise.
    """
    device = _begin(job)
    _step(_encoder(job, FIRST_LENGTH, device), _states(job, FIRST_LENGTH, device), job)
    measure = _gpu_bytes if device.type == "cuda" else _cpu_bytes
    return {"bytes": {str(length): measure(job, length, device) for length in job.lengths}}


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


def _gpu_bytes(job: Job, length: int, device: torch.device) -> int:
    encoder, states = _encoder(job, length, device), _states(job, length, device)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _step(encoder, states, job)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _cpu_bytes(job: Job, length: int, device: torch.device) -> int:
    encoder, states = _encoder(job, length, device), _states(job, length, device)
    _forget_peak()
    before = _status("VmRSS")
    _step(encoder, states, job)
    return max(0, _status("VmHWM") - before)


def _forget_peak() -> None:
    """Let the kernel count the highest use from here on (proc(5), clear_refs); else start-up would hide short rows."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _status(key: str) -> int:
    """Bytes resident now (VmRSS) or at most so far (VmHWM); elsewhere than on Linux the latter for both."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))
