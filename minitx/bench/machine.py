"""On what it was measured: the machine, its load, and the versions of everything that computes."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from minitx.bench.job import Job
from minitx.training.device import cpu_name, usable_cores
from minitx.training.run_folder import git_commit, versions

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
