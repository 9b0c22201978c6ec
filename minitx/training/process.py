"""What a process does to itself when it trains, or predicts by command: allocator, denormals, collector, kernels."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from minitx.config import SpeedConfig
from minitx.nn.dropout import use_fast_dropout
from minitx.nn.linear import use_onednn

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
