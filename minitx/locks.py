"""A lock that one process has at a time, on a file of its own: it holds on local disks, on NFS and on Windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class Taken(Exception):
    """Another process has the lock."""


@contextmanager
def locked(path: Path, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Have the lock in `path`, a file in a folder that exists. The system lets go when a process dies, however it does;
    the file that stays then is locked again by the next one.

    on_wait: called once before another process is waited for; None = do not wait.

    Raises:
        Taken: another process has it, and it is not to be waited for.
        OSError: the file cannot be made, or its file system has no locks.
    """
    # NFS locks a file that is open for writing and no other, so no lock on the folder itself. A marker file, which a
    # file system without locks would get instead, stays after a kill.
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if on_wait is None:
            raise Taken(str(path)) from None
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps a file that is open; who waits for the lock notices that it is gone
            path.unlink()
        lock.release()
