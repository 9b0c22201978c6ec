"""What a source of data is, and the examples it gives.

A source checks the configuration before anything is read, identifies its content cheaply, and reads it. The registry
of all of them is in this package's `__init__`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np

from minitx.config import DataConfig
from minitx.data.splits import IntArray

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Examples:
    """One split before tokenising: texts with either labels (classification) or references (translation)."""

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
    """What a source gives: its splits, the class names, and notes for the user."""

    splits: dict[str, Examples]
    """`train`, and `validation` and `test` where the source has them; none is empty."""
    label_names: tuple[str, ...] | None = None
    """Classification: the name of each class."""
    notes: tuple[str, ...] = ()


class Source(ABC):
    """One value of `data.source`."""

    task: Literal["classification", "translation"] | None = None
    """The only task it serves; None = any."""
    symbols: bool = False
    """Its texts are symbols between spaces, so that a `word` tokeniser must not split off punctuation."""
    metrics: Literal["bleu", "error_rate"] = "bleu"
    """What `data.metrics=auto` stands for in translation."""

    @abstractmethod
    def check(self, config: DataConfig) -> None:
        """Raise a ConfigError for all that can be known to be wrong before data is read."""

    @abstractmethod
    def fingerprint(self, config: DataConfig) -> str:
        """Identifies the content without interpreting it."""

    @abstractmethod
    def read(self, config: DataConfig) -> Corpus:
        """The examples, every record checked."""


def hash_files(files: Mapping[str, Path]) -> str:
    """SHA-256 over names and contents."""
    total = hashlib.sha256()
    for name in sorted(files):
        with files[name].open("rb") as file:
            total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return total.hexdigest()


def stratified_order(n_rows: int, labels: IntArray | None, seed: int) -> IntArray:
    """A random order of all rows in which every prefix has each class in its share, to within about one row.

    Row number r (0-based, in random order) of a class of n rows is placed at (r + 1/2) / n; sorting by place
    interleaves the classes evenly. `labels` None: one class. A longer prefix contains every shorter one.
    """
    shuffled = np.random.default_rng(seed).permutation(n_rows)
    if labels is None:
        return shuffled
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(n_rows) - np.repeat(first, counts)
    place = (rank + 0.5) / np.repeat(counts, counts)
    # lexsort's last key is the main one; random ties keep small prefixes from preferring low class numbers
    tie = np.random.default_rng((seed, 1)).random(n_rows)
    return by_class[np.lexsort((tie, place))]
