"""SHA-256 of files: of a large one once, and then by its size and time, as `data.verify` says."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minitx.config import DataConfig

LARGE = 64 * 2**20
"""Bytes from which a file is hashed once; hashing takes about a second per GB."""
MEMORY = ".digests.json"
"""In the cache folder: path -> [size, time of the last change in ns, SHA-256]."""
YOUNG_SECONDS = 2.0
"""A file that has just changed can change again without its time showing it."""


@dataclass(frozen=True)
class Digests:
    """The SHA-256 of files, with those of large files remembered."""

    folder: Path
    """The cache folder."""
    full: bool = False
    """Hash every file, whatever is remembered."""

    @classmethod
    def of(cls, config: DataConfig) -> Digests:
        return cls(Path(config.cache_dir), full=config.verify == "full")

    def __getitem__(self, path: Path) -> str:
        """Of the file's content, in hex; remembered where the file is large and has not just changed."""
        before = path.stat()
        stamp = [before.st_size, before.st_mtime_ns]
        if before.st_size < LARGE:
            return _sha256(path)
        remembered = self._remembered().get(str(path.resolve()))
        if not self.full and remembered is not None and remembered[:2] == stamp:
            return str(remembered[2])
        old_enough = before.st_mtime < time.time() - YOUNG_SECONDS
        digest, after = _sha256(path), path.stat()
        if old_enough and [after.st_size, after.st_mtime_ns] == stamp:
            self._remember({str(path.resolve()): [*stamp, digest]})
        return digest

    def _remembered(self) -> dict[str, list[int | str]]:
        try:
            found = json.loads((self.folder / MEMORY).read_text(encoding="utf-8"))
            return {path: entry for path, entry in found.items() if len(entry) == 3}
        except (OSError, ValueError, AttributeError, TypeError):  # absent or damaged: everything is hashed again
            return {}

    def _remember(self, new: Mapping[str, list[int | str]]) -> None:
        """Of two processes at once one's digest may be lost, and is computed again."""
        there = {path: entry for path, entry in self._remembered().items() if Path(path).is_file()}
        beside = self.folder / f".{uuid.uuid4().hex}.partial"
        with suppress(OSError):  # a cache that cannot be written has an error of its own, or is not to be
            self.folder.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps({**there, **new}, indent=1), encoding="utf-8")
            os.replace(beside, self.folder / MEMORY)


def hash_files(files: Mapping[str, Path], digests: Digests) -> str:
    """SHA-256 over names and contents."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{digests[files[name]]}\0".encode())
    return total.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
