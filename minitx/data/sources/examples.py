"""Examples as plain Python values, between reading and tokenising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from minitx.data.splits import IntArray

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Examples:
    """One split: texts with either labels (classification) or references (translation)."""

    texts: list[str]
    labels: IntArray | None = None
    """(rows,) int64 class numbers."""
    references: list[tuple[str, ...]] | None = None
    """Accepted translations of each text, at least one; the first is the target of training and of the loss."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: IntArray) -> Self:
        """These rows, in this order."""
        return type(self)(
            texts=[self.texts[row] for row in rows],
            labels=None if self.labels is None else self.labels[rows],
            references=None if self.references is None else [self.references[row] for row in rows],
        )


@dataclass(frozen=True)
class Corpus:
    """What a source gives: three splits, the class names, and lines for the user."""

    splits: dict[str, Examples]
    """`train`, `validation`, `test`, all there and none empty."""
    label_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
