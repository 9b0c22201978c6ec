"""What a source of data is, and the examples it gives.

A source checks the configuration before anything is read, identifies its content cheaply, and reads it. The registry
of all of them is in this package's `__init__`.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from minitx.config import DataConfig
from minitx.data.progress import Report, silent
from minitx.data.sources.columns import pick
from minitx.data.splits import IntArray

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Examples:
    """One split before tokenising: texts with either labels (classification) or references (translation).

    Texts and references of a large set are read from a file where they are asked for.
    """

    texts: Sequence[str]
    labels: IntArray | None = None
    """(rows,) int64 class numbers."""
    references: Sequence[tuple[str, ...]] | None = None
    """Accepted translations of each text, at least one; the first is the target of training and of the loss."""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: IntArray) -> Self:
        """These rows, in this order."""
        return type(self)(
            texts=pick(self.texts, rows),
            labels=None if self.labels is None else self.labels[rows],
            references=None if self.references is None else pick(self.references, rows),
        )

    def read(self, start: int, stop: int) -> Self:
        """The rows from `start` to before `stop`, in memory."""
        return type(self)(
            texts=self.texts[start:stop],
            labels=None if self.labels is None else self.labels[start:stop],
            references=None if self.references is None else self.references[start:stop],
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
    def read(self, config: DataConfig, report: Report = silent) -> Corpus:
        """The examples, every record checked. report: hears of long readings."""


MOST_OFF = 2.0
"""Rows. Published sets of few classes are within it by the simpler order, on which results rest."""


def stratified_order(n_rows: int, labels: IntArray | None, seed: int) -> IntArray:
    """A random order of all rows in which every prefix has each class in its share, to within `MOST_OFF` rows.

    Row number r (0-based, in random order) of a class of n rows is placed at (r + 1/2) / n; sorting by place
    interleaves the classes evenly. Where that leaves a class further off (a large class beside many small ones),
    rows go by deadlines instead, which keep it within one row. `labels` None: one class. A longer prefix contains
    every shorter one.
    """
    shuffled = np.random.default_rng(seed).permutation(n_rows)
    if labels is None:
        return shuffled
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank, size = np.arange(n_rows) - np.repeat(first, counts), np.repeat(counts, counts)
    place = (rank + 0.5) / size
    # lexsort's last key is the main one; random ties keep small prefixes from preferring low class numbers
    tie = np.random.default_rng((seed, 1)).random(n_rows)
    order: IntArray = np.lexsort((tie, place))
    taken = np.arange(n_rows) * size[order] / n_rows  # of a row's class, what should be there before it
    if max(np.max(taken - rank[order]), np.max(rank[order] + 1 - taken - size[order] / n_rows)) > MOST_OFF:
        order = _by_deadline(rank, size, tie)
    return by_class[order]


def _by_deadline(rank: IntArray, size: IntArray, tie: NDArray[np.float64]) -> IntArray:
    """Row numbers such that every class has in every prefix its share, rounded up or down.

    Row r of a class of n among N is due at the earliest at step floor(r N / n), where the class has room for it, and at
    the latest by ceil((r + 1) N / n). Of those that may come, the one that must be first comes first: that meets all
    deadlines (Baruah et al. 1996, "Proportionate progress", for one processor).
    """
    n_rows = len(rank)
    earliest, latest = rank * n_rows // size, -((rank + 1) * n_rows // -size)
    waiting = list(np.lexsort((tie, earliest))[::-1])
    ready: list[tuple[int, float, int]] = []
    order = np.empty(n_rows, np.int64)
    for step in range(n_rows):
        while waiting and earliest[waiting[-1]] <= step:
            row = int(waiting.pop())
            heapq.heappush(ready, (int(latest[row]), float(tie[row]), row))
        order[step] = heapq.heappop(ready)[2]
    return order
