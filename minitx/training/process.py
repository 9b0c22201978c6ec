"""What a training process does to itself, and only when it trains: the allocator keeps what it has."""

from __future__ import annotations

import ctypes

# mallopt's parameter numbers in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Let glibc reuse freed buffers of any size, instead of handing each back to the system and faulting it in anew.

    Every step frees and takes the same activations, so the process grows no larger than its largest step. Returns
    whether it could be done; other C libraries have no such switch.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    settings = {_M_MMAP_THRESHOLD: 1 << 30, _M_TRIM_THRESHOLD: (1 << 31) - 1, _M_TOP_PAD: 64 << 20}
    done = [mallopt(ctypes.c_int(key), ctypes.c_int(value)) == 1 for key, value in settings.items()]
    return all(done)
