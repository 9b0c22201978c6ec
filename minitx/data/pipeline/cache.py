"""Prepared data on disk: one folder per content key, complete or absent, safe to share between processes.

An entry is written beside its place, synced, and renamed into it, so that a kill leaves at most a `.partial` folder
(removed after a day) and two processes that build the same entry end with one of the two equal results. Every file has
a checksum, and reading verifies it (about 1 GB/s): an entry that is damaged in any way is rebuilt like an absent one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from minitx.config import rule

Meta = dict[str, Any]
Arrays = Mapping[str, NDArray[Any]]

SUMS, META = "checksums.json", "meta.json"
STALE_SECONDS = 24 * 3600
RACES = 10
"""Times to try again when other processes replace the same damaged entry."""


@dataclass(frozen=True)
class Entry:
    """One prepared set of arrays and facts about them."""

    meta: Meta
    arrays: Arrays
    """Memory-mapped, read-only."""


def fetch(folder: Path, make: Callable[[], tuple[Meta, Arrays]]) -> Entry:
    """The entry in `folder`, made first where it is absent or damaged."""
    entry = read(folder)
    if entry is None:
        write(folder, *make())
        entry = read(folder)
    if entry is None:
        raise OSError(f"{folder}: the cache entry is damaged right after it was written; check the disk")
    return entry


def read(folder: Path) -> Entry | None:
    """The entry, or None where it is absent or damaged."""
    try:
        files = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        there = {path.name for path in folder.iterdir()} - {SUMS}
        if not isinstance(files, dict) or files.keys() != there or any(_digest(folder / n) != files[n] for n in there):
            return None
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        # a memory map costs its subclass's overhead at every indexing; a plain view of it does not
        arrays = {
            name.removesuffix(".npy"): np.asarray(np.load(folder / name, mmap_mode="r"))
            for name in files
            if name != META
        }
        return Entry(meta, arrays)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def write(folder: Path, meta: Meta, arrays: Arrays) -> None:
    """Put a complete entry in place, or keep the one that another process has put there in the meantime."""
    partial = folder.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise rule("data.cache_dir", folder.parent, "be a folder that can be written", str(error.strerror)) from None
    _remove_stale(folder.parent)
    try:
        for name, array in arrays.items():
            with _synced(partial / f"{name}.npy") as file:
                np.save(file, array, allow_pickle=False)
        _write_json(partial / META, meta)
        _write_json(partial / SUMS, {path.name: _digest(path) for path in sorted(partial.iterdir())})
        _move(partial, folder)
    except OSError as error:  # numpy's has no number: it says how much it has written
        raise rule("data.cache_dir", folder.parent, "have room for the prepared data", str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move(partial: Path, folder: Path) -> None:
    """Rename into place; a folder cannot be renamed over a full one, so a damaged one is moved away first."""
    for _ in range(RACES):
        try:
            partial.rename(folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if read(folder) is not None:
            return
        away = partial.with_name(f".{uuid.uuid4().hex}.partial")
        with suppress(FileNotFoundError):  # another process has just moved it
            folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    """Remove what killed processes left behind."""
    for left in parent.glob(".*.partial"):
        with suppress(FileNotFoundError):  # another process has removed it
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _synced(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, on the disk when the block ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _write_json(path: Path, value: object) -> None:
    with _synced(path) as file:
        file.write(json.dumps(value, ensure_ascii=False, indent=1).encode())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
