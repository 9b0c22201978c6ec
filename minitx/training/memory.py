"""The most memory that a piece of work takes, on the CPU and on a GPU."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Callable
from pathlib import Path

import torch


def peak_bytes(device: torch.device, work: Callable[[], object]) -> int:
    """Highest use while `work` runs, less what was in use before it.

    GPU: as torch's allocator counts. CPU: as the kernel counts the process's resident memory; what was freed before
    goes back to the system only where training has not told it otherwise (see `keep_freed_memory`).
    """
    if device.type == "cuda":
        return _cuda_peak(device, work)
    _forget_peak()
    before = _status("VmRSS")
    work()
    return max(0, _status("VmHWM") - before)


def tensor_peak_bytes(device: torch.device, work: Callable[[], object]) -> int:
    """The same by torch's own count of what tensors take, on the CPU too: whatever the process has kept from earlier
    work, equal work gives equal numbers. What a library takes for itself is not in it. CPU: the work becomes slow."""
    if device.type == "cuda":
        return _cuda_peak(device, work)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    assert profile.profiler is not None
    recorded = profile.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in recorded if event.name() == "[memory]")
    return int(max(itertools.accumulate((change for _, change in changes), initial=0)))


def _cuda_peak(device: torch.device, work: Callable[[], object]) -> int:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _forget_peak() -> None:
    """Let the kernel count the highest use from here on (proc(5), clear_refs); else earlier work would hide small."""
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
