"""Rows of different lengths in two flat arrays: the form in which token ids and texts are cached and memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Ragged:
    """`flat[offsets[i] : offsets[i + 1]]` is row i; `flat` may be a memory map."""

    flat: IntArray
    offsets: IntArray
    """(rows + 1,) int64, from 0 to len(flat)."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], dtype: type[np.integer[Any]]) -> Ragged:
        """Rows end to end."""
        lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
        return cls(np.fromiter(chain.from_iterable(rows), dtype, int(lengths.sum())), offsets_of(lengths))

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of all parts, one part after another (at least one)."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.flat for part in parts]), offsets_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> IntArray:
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> IntArray:
        """(rows,) int64."""
        return np.diff(self.offsets)

    def lengths_of(self, rows: IntArray) -> IntArray:
        """(B,) int64: those of some rows."""
        return np.asarray(self.offsets[rows + 1] - self.offsets[rows])

    def take(self, rows: IntArray) -> Ragged:
        """These rows (at least one), one after another."""
        return Ragged(np.concatenate([self[row] for row in rows]), offsets_of(self.lengths_of(rows)))

    def gather(self, rows: IntArray) -> tuple[IntArray, BoolArray]:
        """(B, L) int64 values of `rows` and (B, L) bool mask, True = real; L is the longest of them.

        Past its end a row repeats its last value: callers overwrite it or, for sentence numbers, want exactly that.
        Rows must not be empty.
        """
        starts, lengths = self.offsets[rows], self.lengths_of(rows)
        position = np.arange(lengths.max())
        index = starts[:, None] + np.minimum(position, lengths[:, None] - 1)
        return self.flat[index].astype(np.int64), position < lengths[:, None]


def offsets_of(lengths: IntArray) -> IntArray:
    """(n,) lengths -> (n + 1,) int64 offsets."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


@dataclass(frozen=True)
class Texts:
    """Strings as one run of UTF-8 bytes."""

    encoded: Ragged

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        encoded = [text.encode() for text in texts]
        lengths = np.fromiter((len(e) for e in encoded), np.int64, len(encoded))
        return cls(Ragged(np.frombuffer(b"".join(encoded), np.uint8), offsets_of(lengths)))

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: int) -> str:
        return self.encoded[row].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))
