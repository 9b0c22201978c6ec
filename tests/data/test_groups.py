"""Families of rows against all pairs of rows, compared word by word."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.data.pipeline.groups import LONGEST_PHRASE, TYING, families

SENTENCE, OTHER = "the film is a very good one", "here the film is a bore"
some_texts = st.lists(st.lists(st.sampled_from("abc"), max_size=11).map(" ".join), min_size=1, max_size=17)


def holds(text: list[str], phrase: list[str]) -> bool:
    """Whether the phrase's words stand in a text of more words."""
    starts = range(len(text) - len(phrase) + 1)
    return 0 < len(phrase) < len(text) and any(text[i : i + len(phrase)] == phrase for i in starts)


def by_all_pairs(texts: list[str]) -> tuple[list[int], list[bool]]:
    """(head, whole) of every row: rows are tied pair by pair, and ties followed until nothing changes."""
    words = [text.split() for text in texts]
    rows = range(len(texts))
    longest_first = sorted(rows, key=lambda row: (-len(words[row]), row))
    holders = [[other for other in longest_first if holds(words[other], words[row])] for row in rows]
    ties = [(row, other) for row in rows for other in holders[row][: None if len(words[row]) >= TYING else 1]]
    ties += [(row, other) for row in rows for other in rows if words[row] == words[other]]
    place = {row: i for i, row in enumerate(longest_first)}
    head = list(rows)
    for _ in rows:
        for row, other in ties:
            head[row] = head[other] = min(head[row], head[other], key=lambda row: place[row])
    return head, [not found for found in holders]


@given(some_texts)
def test_families_are_those_of_all_pairs(texts: list[str]) -> None:
    found = families(texts, "phrases")
    head, whole = by_all_pairs(texts)
    assert found.head.tolist() == head
    assert found.whole.tolist() == whole


@given(some_texts)
def test_text_alone_keeps_equal_texts_together(texts: list[str]) -> None:
    found = families(texts, "text")
    assert found.head.tolist() == [texts.index(text) for text in texts]
    assert found.whole.all()


@pytest.mark.parametrize(
    ("texts", "heads"),
    [
        pytest.param(["film", "good film", SENTENCE, "good"], [2, 1, 2, 2], id="a short phrase: the longest holder"),
        pytest.param(["b a", "c b", "b"], [0, 1, 0], id="the first of two as long"),
        pytest.param([OTHER, "the film is a", SENTENCE], [2, 2, 2], id="a long phrase ties all that hold it"),
        pytest.param([OTHER, "the film is", SENTENCE], [0, 2, 2], id="a word less does not"),
        pytest.param(["c d e f g h", "a b c d", "x a b c d e f", "c d e f"], [2, 2, 2, 2], id="by way of others"),
        pytest.param(["a  b\n", "b", " a b"], [0, 0, 0], id="white space"),
        pytest.param(["a bc", "a b", "bc"], [0, 1, 0], id="whole words"),
        pytest.param(["a x b", "a b"], [0, 1], id="words that are apart"),
        pytest.param(["", "a", " "], [0, 1, 0], id="nothing stands in nothing"),
    ],
)
def test_who_belongs_together(texts: list[str], heads: list[int]) -> None:
    assert families(texts, "phrases").head.tolist() == heads


def test_long_texts_are_searched_and_not_looked_for() -> None:
    long = " ".join(f"w{i}" for i in range(LONGEST_PHRASE + 1))
    texts = [long, f"{long} and on", long.removesuffix(f" w{LONGEST_PHRASE}"), "w3 w4"]
    found = families(texts, "phrases")
    assert found.head.tolist() == [1, 1, 1, 1], "the third has as many words as are looked for"
    assert found.whole.tolist() == [True, True, False, False], "the first is not looked for in the second"


def test_repeated_words_end() -> None:
    """Every text is phrases of the one before: a family, and its longest text alone is whole."""
    texts = [" ".join("a" * n) for n in range(1, 53)]
    found = families(texts, "phrases")
    assert Counter(found.head.tolist()) == {51: 52}
    assert np.flatnonzero(found.whole).tolist() == [51]
