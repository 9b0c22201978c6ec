"""A few early steps under torch.profiler: a trace of when what ran, and a table of what took longest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from minitx.training.tensorboard import Board

SKIPPED, WARM_UP, RECORDED = 5, 2, 3
"""Steps. The first ones allocate memory and compile, the next ones start the profiler."""
TRACE = "steps.pt.trace.json"
"""Under the run's tensorboard/: a name that its profiler plugin reads too."""
N_OPERATIONS = 25
COLUMNS = ("operation", "calls", "CPU ms", "GPU ms", "share")


@contextmanager
def profiled(folder: Path, board: Board) -> Iterator[Callable[[], None]]:
    """Gives a function to be called after each step, which records the steps that are due; steps before and after are
    left alone."""

    def write(found: profile) -> None:
        found.export_chrome_trace(str(folder / TRACE))
        board.table("view_profile", operations(found), COLUMNS, found.step_num)

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    plan = schedule(wait=SKIPPED, warmup=WARM_UP, active=RECORDED, repeat=1)
    with profile(activities=activities, schedule=plan, on_trace_ready=write) as recorder:
        yield recorder.step


def operations(found: profile) -> list[tuple[str, ...]]:
    """Rows under `COLUMNS`: the operations that took most by themselves, where there is a GPU of its time, a step's."""
    averages = found.key_averages()
    on_gpu = any(one.self_device_time_total for one in averages)

    def own(one: torch.autograd.profiler_util.FunctionEventAvg) -> float:
        return float(one.self_device_time_total if on_gpu else one.self_cpu_time_total)

    total = sum(map(own, averages)) or 1.0
    longest = sorted(averages, key=own, reverse=True)[:N_OPERATIONS]
    return [
        (
            str(one.key),
            f"{one.count / RECORDED:.0f}",
            f"{one.self_cpu_time_total / 1000 / RECORDED:.2f}",
            f"{one.self_device_time_total / 1000 / RECORDED:.2f}",
            f"{100 * own(one) / total:.1f} %",
        )
        for one in longest
    ]
