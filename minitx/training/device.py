"""Where a run computes and in which precision."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from minitx.config import TrainerConfig, rule

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Compute:
    """A resolved choice: nothing in it is `auto`."""

    device: torch.device
    precision: Precision
    """fp32 | bf16 (autocast with float32 weights)."""
    compiled: bool
    graphs: bool = False
    """A step is replayed as CUDA graphs."""

    @property
    def bf16(self) -> bool:
        return self.precision == "bf16"

    @property
    def name(self) -> str:
        """For people: the GPU's name, or the CPU with its threads."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return f"cpu ({torch.get_num_threads()} threads)"


def resolve_device(wanted: str) -> torch.device:
    """auto = a GPU where there is one.

    Raises:
        ConfigError: cuda was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        why = "torch was built without CUDA" if torch.version.cuda is None else "no CUDA device is visible"
        raise rule("trainer.device", wanted, f"name a device that is there ({why})", "use trainer.device=auto or cpu")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def resolve_compute(config: TrainerConfig) -> Compute:
    """Turn the `auto` of device and precision into a choice.

    Raises:
        ConfigError: device or cuda_graphs ask for a GPU, and there is none.
    """
    device = resolve_device(config.device)
    on_gpu = device.type == "cuda"
    default: Precision = "bf16" if on_gpu or _cpu_multiplies_bf16() else "fp32"
    precision = default if config.precision == "auto" else config.precision
    if config.cuda_graphs and not on_gpu:
        raise rule("trainer.cuda_graphs", True, "be false on a CPU", "leave it out, or use trainer.device=cuda")
    return Compute(device, precision, config.compile, config.cuda_graphs)


def _cpu_multiplies_bf16() -> bool:
    """True where the processor has bf16 products of its own; emulated ones are slower than float32."""
    capabilities: dict[str, object] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # newer than the oldest torch that we accept
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def usable_cores() -> int:
    """Those of this machine that the process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
