"""SIGINT and SIGTERM ask for a stop at the next step's end; a second one leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_BASE = 128
"""A stopped run exits with 128 + signal number, as shells have it: 130 for Ctrl-C, 143 for SIGTERM."""


class StopRequest:
    """Holds the signal that asked for a stop, or None."""

    def __init__(self, quiet: bool = False) -> None:
        self.signal: int | None = None
        self._quiet = quiet

    def __bool__(self) -> bool:
        return self.signal is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(EXIT_BASE + number)
        self.signal = number
        if not self._quiet:
            os.write(2, b"\nstopping after this step and saving; once more to leave at once\n")


@contextmanager
def stop_on_signals(quiet: bool = False) -> Iterator[StopRequest]:
    """Catch both signals inside (in the main thread; elsewhere they are left alone).

    quiet: do not say so at once, as of several processes each would, and when one of them has died, in vain.
    """
    request = StopRequest(quiet)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, request.handle) for kind in kinds}
    try:
        yield request
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
