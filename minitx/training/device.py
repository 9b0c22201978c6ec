"""Where a run computes: device and precision, what a process sets up for it, and the memory it takes."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import platform
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from minitx.config import Config, SpeedConfig, TrainerConfig, rule
from minitx.nn.layers import use_fast_dropout, use_onednn

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
        must = f"name a device that is there ({why_no_cuda()})"
        raise rule("trainer.device", wanted, must, "use trainer.device=auto or cpu")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def why_no_cuda() -> str:
    """Where there is none."""
    return "torch was built without CUDA" if torch.version.cuda is None else "no CUDA device is visible"


def resolve_compute(config: TrainerConfig) -> Compute:
    """Turn the `auto` of device and precision into a choice; graphs only where they are asked for.

    Raises:
        ConfigError: device or cuda_graphs ask for a GPU, and there is none.
    """
    device = resolve_device(config.device)
    on_gpu = device.type == "cuda"
    default: Precision = "bf16" if on_gpu or _cpu_multiplies_bf16() else "fp32"
    precision = default if config.precision == "auto" else config.precision
    if config.cuda_graphs == "on" and not on_gpu:
        raise rule("trainer.cuda_graphs", "on", "be off on a CPU", "leave it out, or use trainer.device=cuda")
    return Compute(device, precision, config.compile, config.cuda_graphs == "on")


def compute_of(config: Config) -> Compute:
    """`resolve_compute` of a whole run: the model decides with it whether CUDA graphs are recorded."""
    compute = resolve_compute(config.trainer)
    return replace(compute, graphs=config.records_graphs(compute.device.type == "cuda"))


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


# mallopt's parameter numbers in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_THREADS = torch.get_num_threads()
PRIMITIVES = "128"
"""Compiled products, for one shape each, that oneDNN keeps. Batches differ in shape, and by its own limit of 1,024 a
small model's process grows to many gigabytes (up to 6.8 GB; with 128 of them 1.9 GB over 1,000 steps, no slower)."""


def prepare_process(speed: SpeedConfig, device: torch.device, threads: int | None = None) -> None:
    """Set this process up for training on `device`; all but the allocator's part replaces what an earlier run set.

    threads: of the CPU; None = torch's own choice.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVES)  # read by oneDNN at its first product
    torch.set_num_threads(threads or _THREADS)
    torch.set_flush_denormal(speed.flush_denormals)
    torch.backends.cudnn.allow_tf32 = False  # fp32 means fp32; torch leaves TF32 on for convolutions and LSTMs
    use_fast_dropout(speed.fast_dropout)
    use_onednn(speed.onednn == "on" or (speed.onednn == "auto" and _is_amd()))
    if speed.keep_memory and device.type == "cpu":
        keep_freed_memory()


def keep_freed_memory() -> bool:
    """Let glibc reuse freed buffers of any size, instead of handing each back to the system and faulting it in anew.

    Every step frees and takes the same activations, so the process grows no larger than its largest step. Returns
    whether it could be done; other C libraries have no such switch. It cannot be undone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {_M_MMAP_THRESHOLD: 1 << 30, _M_TRIM_THRESHOLD: (1 << 31) - 1, _M_TOP_PAD: 64 << 20}
    done = [mallopt(ctypes.c_int(key), ctypes.c_int(value)) == 1 for key, value in settings.items()]
    return all(done)


@contextmanager
def frozen_garbage(wanted: bool) -> Iterator[None]:
    """Inside, the garbage collector skips what existed before: many objects, all there to stay."""
    if not wanted:
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _is_amd() -> bool:
    """Their float32 products are the ones that oneDNN was measured to do faster than torch's BLAS."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


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
