"""Nested, seeded, stratified subsets: one random order per seed, of which every size takes a prefix."""

from __future__ import annotations

import numpy as np

from minitx.data.splits import IntArray


def subset_order(n_rows: int, labels: IntArray | None, seed: int) -> IntArray:
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


def subset_rows(n_rows: int, labels: IntArray | None, count: int, seed: int) -> IntArray:
    """The first `count` rows of the order, sorted back into the set's own order."""
    return np.sort(subset_order(n_rows, labels, seed)[:count])
