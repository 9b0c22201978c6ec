"""Tokenised data: rows of ids (`Ragged`), a split that makes batches of them (`Split`), a task's splits (`TaskData`).

Rows of different lengths lie in two flat arrays, the form in which they are cached and memory-mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from minitx.batch import BOS, PAD, Batch
from minitx.data.pipeline.tokenizer import Tokenizer

IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]

BLOCK = 2**18
"""Values counted at a time."""


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
        """(B,) int64: lengths of some rows."""
        return np.asarray(self.offsets[rows + 1] - self.offsets[rows])

    def count(self, which: Callable[[IntArray], BoolArray]) -> IntArray:
        """(rows,) int64: how many values of each row `which` is true of; in blocks of rows, for `flat` may be large."""
        counts = np.zeros(len(self), np.int64)
        start = 0
        while start < len(self):
            stop = int(np.searchsorted(self.offsets, self.offsets[start] + BLOCK, side="right")) - 1
            stop = max(stop, start + 1)
            ends = self.offsets[start : stop + 1]
            before = np.cumsum(which(self.flat[ends[0] : ends[-1]]))
            counts[start:stop] = np.diff(np.concatenate([[0], before])[ends - ends[0]])
            start = stop
        return counts

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
    """Strings, stored end to end as UTF-8 bytes."""

    encoded: Ragged

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        """Encode some strings."""
        encoded = [text.encode() for text in texts]
        lengths = np.fromiter((len(e) for e in encoded), np.int64, len(encoded))
        return cls(Ragged(np.frombuffer(b"".join(encoded), np.uint8), offsets_of(lengths)))

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, row: int) -> str:
        return self.encoded[row].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))


Task = Literal["classification", "translation", "masked"]
Metrics = Literal["classification", "bleu", "error_rate", "masked"]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Tokenised examples: source rows are ids + [EOS] in translation, as are targets, and [CLS] + ids elsewhere."""

    src: Ragged
    sentences: Ragged
    """Sentence number of every source token."""
    texts: Texts
    tgt: Ragged | None = None
    """Translation: ids of the first reference."""
    labels: IntArray | None = None
    """Classification: (rows,) int64 class numbers."""
    reference_texts: Texts | None = None
    reference_groups: IntArray | None = None
    """(rows + 1,) int64: references of row i are reference_texts[groups[i]] ... [groups[i + 1] - 1]."""
    n_cut: int = 0
    """Rows of which a side was longer than `max_length` and was cut."""

    def __len__(self) -> int:
        return len(self.src)

    @cached_property
    def lengths(self) -> IntArray:
        """(rows,) int64 tokens of the longer side: what a row costs in a batch."""
        return self.src.lengths if self.tgt is None else np.maximum(self.src.lengths, self.tgt.lengths)

    def text(self, row: int) -> str:
        """The source text as read, not cut."""
        return self.texts[row]

    def references(self, row: int) -> tuple[str, ...]:
        """Accepted translations as read, not cut; () where there are none (other tasks, prediction)."""
        if self.reference_texts is None or self.reference_groups is None:
            return ()
        return tuple(self.reference_texts[i] for i in range(self.reference_groups[row], self.reference_groups[row + 1]))

    def take(self, rows: IntArray) -> Split:
        """Some rows without their targets."""
        texts = Texts(self.texts.encoded.take(rows))
        return Split(src=self.src.take(rows), sentences=self.sentences.take(rows), texts=texts, n_cut=self.n_cut)

    def batch(self, rows: IntArray, *, sentences: bool = True) -> Batch:
        """These rows (at least one), padded on the right with PAD; see `Batch` for shapes.

        sentences=False leaves the sentence numbers out. Without targets (prediction, and before a `Masker` has hidden
        some tokens), `targets` is empty.
        """
        src_BS, real_BS = self.src.gather(rows)
        src_BS[~real_BS] = PAD
        targets_N, index_N, tgt_in_BT = self._targets(rows)
        return Batch(
            rows=torch.from_numpy(rows.astype(np.int64)),
            src=torch.from_numpy(src_BS),
            src_mask=None if real_BS.all() else torch.from_numpy(real_BS),
            sentence=torch.from_numpy(self.sentences.gather(rows)[0]) if sentences else None,
            targets=torch.from_numpy(targets_N),
            tgt_in=None if tgt_in_BT is None else torch.from_numpy(tgt_in_BT),
            target_index=None if index_N is None else torch.from_numpy(index_N),
        )

    def _targets(self, rows: IntArray) -> tuple[IntArray, IntArray | None, IntArray | None]:
        """(N,) targets and, in translation, `target_index` and `tgt_in` as `Batch` describes them."""
        if self.labels is not None:
            return self.labels[rows], None, None
        if self.tgt is None:
            return np.zeros(0, np.int64), None, None
        tgt_BT, real_BT = self.tgt.gather(rows)
        tgt_in_BT = np.full_like(tgt_BT, BOS)
        tgt_in_BT[:, 1:] = tgt_BT[:, :-1]
        tgt_in_BT[~real_BT] = PAD
        return tgt_BT[real_BT], np.flatnonzero(real_BT), tgt_in_BT


class Vocabulary(Protocol):
    """Tokenisers and class names that exist already: those of a trained model, or of a `TaskData` of the same task."""

    @property
    def src_tokenizer(self) -> Tokenizer: ...
    @property
    def tgt_tokenizer(self) -> Tokenizer | None: ...
    @property
    def label_names(self) -> tuple[str, ...] | None: ...


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """A task's data, ready to train on."""

    task: Task
    splits: Mapping[str, Split]
    """`train`, `validation`, `test`."""
    src_tokenizer: Tokenizer
    tgt_tokenizer: Tokenizer | None
    """Translation; the same object as `src_tokenizer` where `joint`."""
    joint: bool
    label_names: tuple[str, ...] | None
    """Classification: the name of each class."""
    metrics: Metrics
    source_fingerprint: str
    """Of what the data was read from, see `identify_source`."""
    notes: tuple[str, ...]
    """What the user should know: splits cut from train, subsets, truncated texts."""
