"""Columns of text that need not fit into memory: what `Examples` hold of a large set."""

from __future__ import annotations

import mmap
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, TypeVar, overload

from minitx.config import rule
from minitx.data.splits import IntArray

T = TypeVar("T")

IN_MEMORY = 64 * 2**20
"""Bytes of text from which a column is kept in a file."""


class _Rows(Sequence[T]):
    """A sequence by row number; subclasses have `_row` and `__len__`."""

    def _row(self, row: int) -> T:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        rows = range(len(self))[index]
        return self._row(rows) if isinstance(rows, int) else [self._row(row) for row in rows]


class Column(_Rows[Any]):
    """The values of a column, appended once and then read. Text lies end to end as UTF-8, from `IN_MEMORY` bytes on in
    a file without a name, which goes with the process; what is no text (None, a number, half a surrogate pair) beside.
    """

    def __init__(self, folder: Path) -> None:
        """folder: where the file is, made where it is absent; on a disk with room for the text."""
        self._folder = folder
        self._text: bytearray | mmap.mmap = bytearray()
        self._offsets = array("q", [0])
        self._other: dict[int, Any] = {}
        self._file: IO[bytes] | None = None
        self._in_file = 0

    def append(self, value: Any) -> None:
        """One more row.

        Raises:
            ConfigError: there is no room in the folder.
        """
        assert isinstance(self._text, bytearray), "a column that has been read is complete"
        text = _utf8(value)
        if text is None:
            self._other[len(self)] = value
        else:
            self._text += text
        self._offsets.append(self._in_file + len(self._text))
        if len(self._text) >= IN_MEMORY:
            self._write()

    def _write(self) -> None:
        """Move what is in memory to the file."""
        try:
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed once it is mapped
            self._in_file += self._file.write(self._text)
            self._file.flush()
        except OSError as error:
            must = "be a folder with room for a copy of the texts"
            raise rule("data.cache_dir", self._folder, must, str(error.strerror)) from None
        self._text = bytearray()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def _row(self, row: int) -> Any:
        if self._file is not None:  # the first row that is read
            self._write()
            self._text = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            self._file.close()
            self._file = None
        if row in self._other:
            return self._other[row]
        return self._text[self._offsets[row] : self._offsets[row + 1]].decode()


def _utf8(value: Any) -> bytes | None:
    """None of what is no text, or none that UTF-8 can spell."""
    try:
        return value.encode() if isinstance(value, str) else None
    except UnicodeEncodeError:
        return None


class Picked(_Rows[T]):
    """Some rows of a sequence, read when they are asked for."""

    def __init__(self, of: Sequence[T], rows: IntArray) -> None:
        self._of, self._rows = of, rows

    def __len__(self) -> int:
        return len(self._rows)

    def _row(self, row: int) -> T:
        return self._of[int(self._rows[row])]


class Singles(_Rows[tuple[T, ...]]):
    """Each row of a sequence by itself in a tuple."""

    def __init__(self, of: Sequence[T]) -> None:
        self._of = of

    def __len__(self) -> int:
        return len(self._of)

    def _row(self, row: int) -> tuple[T, ...]:
        return (self._of[row],)


def pick(column: Sequence[T], rows: IntArray) -> Sequence[T]:
    """These rows, in this order: a list of a list, and of other sequences what reads them when they are asked for."""
    return [column[row] for row in rows] if isinstance(column, list) else Picked(column, rows)
