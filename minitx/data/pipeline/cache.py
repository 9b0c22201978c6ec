"""Prepared data on disk: one folder per content key, complete or absent, safe to share between processes.

An entry is made beside its place, in shards, and renamed into it. A kill leaves a `.partial` folder, and the next
process on that machine that needs the entry goes on after the last shard in it; it is removed after a day. One process
of a machine makes an entry and the others wait for it. Two machines that share the folder each make their own, and end
with one of the two equal results, so that nothing rests on locks between machines. Every file has a checksum, and
reading verifies it as `data.verify` says: an entry that is damaged is rebuilt like an absent one.
"""

from __future__ import annotations

import errno
import io
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from minitx.config import rule
from minitx.data.progress import Report, silent
from minitx.data.sources.digests import Digests
from minitx.locks import locked

Meta = dict[str, Any]
Arrays = Mapping[str, NDArray[Any]]

SUMS, META, PROGRESS = "checksums.json", "meta.json", "progress.json"
STALE_SECONDS = 24 * 3600
RACES = 10
"""Times to try again when other processes replace the same damaged entry."""


@dataclass(frozen=True)
class Entry:
    """One prepared set of arrays and facts about them."""

    meta: Meta
    arrays: Arrays
    """Memory-mapped, read-only."""


class Builder:
    """An entry in the making: its arrays grow shard by shard, and what `commit` has kept outlives a kill."""

    def __init__(self, folder: Path) -> None:
        """folder: the partial one, which may hold shards already."""
        self.folder = folder
        self.state: dict[str, Any] = {}
        """What the last commit was given; empty at the beginning."""
        self._dtypes: dict[str, np.dtype[Any]] = {}
        with _disk(folder):
            self._go_on()

    def _go_on(self) -> None:
        """Go back to the last commit, or to nothing."""
        try:
            kept = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
            arrays = {name: (size, np.dtype(kind)) for name, (size, kind) in kept["arrays"].items()}
            if any(self._file(name).stat().st_size < size for name, (size, _) in arrays.items()):
                raise ValueError("a file has lost its end")
            self.state = dict(kept["state"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            arrays = {}
        for path in list(self.folder.iterdir()):
            if path.name != PROGRESS and path.stem not in arrays:
                path.unlink()
        for name, (size, _) in arrays.items():
            os.truncate(self._file(name), size)
        self._dtypes = {name: dtype for name, (_, dtype) in arrays.items()}

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def append(self, arrays: Arrays) -> None:
        """More values at the end of arrays of one dimension; each keeps the type that it began with."""
        with _disk(self.folder):
            for name, array in arrays.items():
                if self._dtypes.setdefault(name, array.dtype) != array.dtype:
                    raise TypeError(f"{name}: {array.dtype} after {self._dtypes[name]}")
                with self._file(name).open("ab") as file:
                    if file.tell() == 0:
                        file.write(self._header(name, 0))
                    file.write(np.ascontiguousarray(array).data)

    def _header(self, name: str, count: int) -> bytes:
        """numpy's own, which has one length for every count."""
        header = io.BytesIO()
        descr = npy.dtype_to_descr(self._dtypes[name])
        npy.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": (count,)})
        return header.getvalue()

    def commit(self, state: Mapping[str, Any]) -> None:
        """Keep what has been appended, and `state` (for JSON), which says what that is."""
        with _disk(self.folder):
            sizes = {}
            for name, dtype in self._dtypes.items():
                with self._file(name).open("rb+") as file:
                    os.fsync(file.fileno())
                    sizes[name] = [file.seek(0, os.SEEK_END), dtype.str]
            beside = self.folder / f"{PROGRESS}.new"
            _write_json(beside, {"arrays": sizes, "state": dict(state)})
            os.replace(beside, self.folder / PROGRESS)
        self.state = dict(state)

    def arrays(self) -> Arrays:
        """All that has been appended, memory-mapped."""
        with _disk(self.folder):
            for name, dtype in self._dtypes.items():
                with self._file(name).open("rb+") as file:
                    size = file.seek(0, os.SEEK_END) - len(self._header(name, 0))
                    file.seek(0)
                    file.write(self._header(name, size // dtype.itemsize))
        return {name: _mapped(self._file(name)) for name in self._dtypes}

    def finish(self, meta: Meta, digests: Digests) -> None:
        """Write what makes an entry of the arrays."""
        self.arrays()
        with _disk(self.folder):
            _write_json(self.folder / META, meta)
            for name in self._dtypes:
                with self._file(name).open("rb+") as file:
                    os.fsync(file.fileno())
            paths = [self.folder / META, *map(self._file, self._dtypes)]
            _write_json(self.folder / SUMS, {path.name: digests[path] for path in sorted(paths)})
            (self.folder / PROGRESS).unlink(missing_ok=True)


@contextmanager
def _disk(partial: Path) -> Iterator[None]:
    """An OSError inside is a ConfigError: the disk of the cache is full, or has another fault."""
    try:
        yield
    except OSError as error:
        raise rule("data.cache_dir", partial.parent, "have room for the prepared data", str(error)) from error


Make = Callable[[Builder], Meta]
"""Fills the arrays of an entry, from the builder's state on, and returns the facts about them."""


def fetch(folder: Path, make: Make, report: Report = silent, *, full: bool = False) -> Entry:
    """The entry in `folder`, made first where it is absent or damaged; while another process makes it, waits for it.

    full: verify large files by their content too.

    Raises:
        ConfigError: the folder cannot be written, or the disk is full.
    """
    digests = Digests(folder.parent, full)
    entry = read(folder, digests)
    if entry is None:
        name = f".{folder.name}.{re.sub(r'[^A-Za-z0-9-]', '_', platform.node())}"
        with _only_builder(folder.with_name(f"{name}.lock"), folder.name, report):
            entry = read(folder, digests)
            if entry is None:
                _make(folder, folder.with_name(f"{name}.partial"), make, digests)
                entry = read(folder, digests)
    if entry is None:
        raise OSError(f"{folder}: the cache entry is damaged right after it was written; check the disk")
    return entry


def read(folder: Path, digests: Digests | None = None) -> Entry | None:
    """The entry, or None where it is absent or damaged. digests: None = computed of every file."""
    digests = digests or Digests(folder.parent, full=True)
    try:
        files = json.loads((folder / SUMS).read_text(encoding="utf-8"))
        there = {path.name for path in folder.iterdir()} - {SUMS}
        if not isinstance(files, dict) or files.keys() != there or any(digests[folder / n] != files[n] for n in there):
            return None
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        return Entry(meta, {name.removesuffix(".npy"): _mapped(folder / name) for name in files if name != META})
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None


def _mapped(path: Path) -> NDArray[Any]:
    """A memory map costs its subclass's overhead at every indexing; a plain view of it does not."""
    return np.asarray(np.load(path, mmap_mode="r"))


@contextmanager
def _only_builder(path: Path, entry: str, report: Report) -> Iterator[None]:
    """No other process of this machine makes the entry meanwhile. path: of the lock file."""
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(path, lambda: report(f"waiting for another process, which prepares {entry}")))
        except OSError as error:
            why = error.strerror or str(error)
            raise rule("data.cache_dir", path.parent, "be a folder that can be written", why) from None
        yield


def _make(folder: Path, partial: Path, make: Make, digests: Digests) -> None:
    """Put a complete entry in place, or keep the one that another machine has put there in the meantime."""
    _remove_stale(folder.parent)
    with _disk(partial):
        partial.mkdir(exist_ok=True)
    try:
        builder = Builder(partial)
        builder.finish(make(builder), digests)
        with _disk(partial):
            _move(partial, folder)
    finally:
        if not (partial / PROGRESS).exists():  # nothing to go on with
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
        if away.is_file():
            away.unlink()
        shutil.rmtree(away, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    """Remove what killed processes left behind."""
    for left in parent.glob(".*.partial"):
        with suppress(FileNotFoundError):  # another process has removed it
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _write_json(path: Path, value: object) -> None:
    """On the disk when it returns."""
    with path.open("wb") as file:
        file.write(json.dumps(value, ensure_ascii=False, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())
