"""While a study measures time, no other study of the user works on the same machine.

Two locks, which the system frees when a process dies, however it does:

    gate   a timing keeps it from when it begins to wait; a training only looks in, and begins where it is free
    work   trainings hold it together, a timing alone

So a timing waits for the trainings that run, and for none that would begin after it. Trainings outside studies
(`python train.py`) and other users' processes take no part in this.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

WAITS = "waits for another study on this machine, for timings run alone"


class Quiet:
    """`with Quiet() as quiet: if quiet.admits(...): ...`; what is held is let go at the end."""

    def __init__(self) -> None:
        self._gate, self._work = _open("gate"), _open("work")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._gate)
        os.close(self._work)

    def admits(self, *, training: bool, idle: bool) -> bool:
        """Whether a training, else a timing, may begin; asked again until it may. idle: nothing of this study runs."""
        if idle:  # between two timings of a study the gate is kept, so nobody comes in
            fcntl.flock(self._work, fcntl.LOCK_UN)
        if not training:
            return _take(self._gate, fcntl.LOCK_EX) and _take(self._work, fcntl.LOCK_EX)
        if not _take(self._gate, fcntl.LOCK_SH):
            return False
        admitted = _take(self._work, fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        return admitted


def _open(name: str) -> int:
    path = Path(tempfile.gettempdir()) / f"minitx-studies-{os.getuid()}.{name}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _take(handle: int, how: int) -> bool:
    """Without waiting."""
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
