"""Which rows a cut must not divide: those of one text, or whole texts with the phrases that stand in them.

A set like SST-2 holds sentences and the phrases of each. Cut at random, it leaves phrases of nearly every held-out text
in training, and scores say how well those are remembered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minitx.config import KeepTogether
from minitx.data.splits import BoolArray, IntArray

Words = tuple[str, ...]

TYING = 4
"""Words of a phrase that ties together all the texts that hold it. Shorter ones stand in texts that have nothing else
in common: those of two words tie 42,063 of the 67,349 rows of SST-2 together, those of four at most 195."""
LONGEST_PHRASE = 100
"""Words. Longer texts are searched for phrases but looked for in no others: the tree of their words fills memories."""


@dataclass(frozen=True)
class TextGroups:
    """Rows in families, by row number."""

    head: IntArray
    """(rows,) int64: one row of the family, the same for all of it: the longest in words, the first of several."""
    whole: BoolArray
    """(rows,) False where another row holds all the row's words, in order and adjacent, and more."""


def families(texts: Sequence[str], keep_together: KeepTogether) -> TextGroups:
    """text: the rows of one text are a family, its head the first; all rows are whole.

    phrases: a family is the texts that share a phrase of at least `TYING` words, directly or by way of others, with all
    their phrases; a shorter phrase goes with the longest text that holds it, of several the first. A phrase is a row of
    at most `LONGEST_PHRASE` words that stands in another. Words end at white space; how much of it is no difference.
    """
    if keep_together == "text":
        first: dict[str, int] = {}
        head = np.array([first.setdefault(text, row) for row, text in enumerate(texts)], np.int64)
        return TextGroups(head, np.ones(len(texts), np.bool_))
    words = [tuple(text.split()) for text in texts]
    longest_first = sorted(dict.fromkeys(words), key=len, reverse=True)
    root, whole = _roots(longest_first)
    rank = {text: i for i, text in enumerate(longest_first)}
    rank_of_row = np.array([rank[text] for text in words], np.int64)
    first_row = np.unique(rank_of_row, return_index=True)[1]
    return TextGroups(first_row[root[rank_of_row]], whole[rank_of_row])


def _roots(longest_first: list[Words]) -> tuple[IntArray, BoolArray]:
    """(texts,) the smallest rank of each text's family, and (texts,) whether no other text holds it.

    What a phrase holds, the text around the phrase holds too: only whole texts are searched.
    """
    tree = _Tree(longest_first)
    parent = list(range(len(longest_first)))
    whole = np.ones(len(longest_first), np.bool_)
    for rank, text in enumerate(longest_first):
        if not whole[rank]:
            continue
        for phrase in tree.phrases(text):
            if whole[phrase] or len(longest_first[phrase]) >= TYING:
                a, b = _root(parent, rank), _root(parent, phrase)
                parent[max(a, b)] = min(a, b)
            whole[phrase] = False
    return np.array([_root(parent, rank) for rank in parent], np.int64), whole


def _root(parent: list[int], rank: int) -> int:
    while parent[rank] != rank:
        parent[rank] = parent[parent[rank]]
        rank = parent[rank]
    return rank


class _Tree:
    """Texts as paths from a common root, a word a step: from any place in a text it takes few steps to see that no
    other text stands there."""

    def __init__(self, texts: list[Words]) -> None:
        self.step: dict[tuple[int, str], int] = {}
        """(place, word) -> the next place; the root is 0."""
        self.text_at: dict[int, int] = {}
        """place -> number of the text that ends there."""
        for number, text in enumerate(texts):
            if len(text) > LONGEST_PHRASE:
                continue
            place = 0
            for word in text:
                place = self.step.setdefault((place, word), len(self.step) + 1)
            self.text_at[place] = number

    def phrases(self, text: Words) -> Iterator[int]:
        """Numbers of the texts that stand in this one, itself apart; as often as they do."""
        for start in range(len(text)):
            place = 0
            for end in range(start, len(text)):
                place = self.step.get((place, text[end]), -1)
                if place == -1:
                    break
                if place in self.text_at and end - start + 1 < len(text):
                    yield self.text_at[place]
