"""Rows to splits: missing splits are cut from train, text groups stay whole, subsets are nested."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitx.config import DataConfig
from minitx.config.load import load
from minitx.data.pipeline.splitting import (
    LONGEST_PHRASE,
    MIN_SHARED_WORDS,
    cut_missing_splits,
    group_texts,
    merge_references,
    subset_rows,
)
from minitx.data.sources import Corpus, Examples, stratified_order
from minitx.data.sources.records import Table, examples_of
from minitx.data.splits import IntArray
from minitx.errors import ConfigError

CLASSIFY = DataConfig(source="dataset", task="classification", path="unused")
TRANSLATE = DataConfig(source="dataset", task="translation", path="unused")


def table(pairs: list[Any]) -> Table:
    return Table("the train split", [one for one, _ in pairs], [two for _, two in pairs])


def split(tables: dict[str, Table], config: DataConfig) -> Corpus:
    return cut_missing_splits(examples_of(tables, config), config)


def test_cutting_a_large_set_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.data.progress.SECONDS_BETWEEN_LINES", 0.0)
    corpus = examples_of({"train": table([(f"text {i}", "ab"[i % 2]) for i in range(50)])}, CLASSIFY)
    lines: list[str] = []
    cut_missing_splits(corpus, CLASSIFY, lines.append)
    assert len(lines) > 40 and lines[24].startswith("cut: 25 of 50 texts compared, 0:00 left")


def test_missing_splits_are_cut_from_train() -> None:
    train = [(f"text {i}", "abbb"[i % 4]) for i in range(200)]
    some = {"train": table(train)}
    config = CLASSIFY.model_copy(update={"validation_size": 0.2, "test_size": 0.1})
    corpus, again = split(some, config), split(some, config)
    assert corpus.splits.keys() == {"train", "validation", "test"}
    assert {name: len(part) for name, part in corpus.splits.items()} == {"train": 140, "validation": 40, "test": 20}
    assert sorted(text for part in corpus.splits.values() for text in part.texts) == sorted(text for text, _ in train)
    assert all(corpus.splits[name].texts == again.splits[name].texts for name in corpus.splits)
    for part in corpus.splits.values():
        assert part.labels is not None
        assert np.mean(part.labels == 0) == 0.25
    assert corpus.notes == (
        "test: 20 rows cut from train (data.test_size 0.1), because the source has none",
        "validation: 40 rows cut from train (data.validation_size 0.2), because the source has none",
    )
    assert corpus.splits["train"].texts == sorted(corpus.splits["train"].texts, key=lambda text: int(text[5:]))


def test_a_split_that_is_null_is_named() -> None:
    config = CLASSIFY.model_copy(update={"validation_split": None})
    train = [(f"text {i}", i % 2) for i in range(40)]
    some = {"train": table(train), "test": table(train[:3])}
    (note,) = split(some, config).notes
    assert note == "validation: 4 rows cut from train (data.validation_size 0.1), because data.validation_split is null"


def test_equal_texts_stay_in_one_split_and_classes_keep_their_shares() -> None:
    """Text i stands in i % 3 + 1 rows; every fifth is of class b, but for a second row of each, which is of class c."""
    train = [(f"{i}", "c" if copy == 1 else "abaaa"[i % 5]) for copy in range(3) for i in range(300) if i % 3 >= copy]
    corpus = split({"train": table(train)}, CLASSIFY)
    texts = [set(part.texts) for part in corpus.splits.values()]
    assert sum(map(len, texts)) == len(set().union(*texts)) == 300
    for name in ("validation", "test"):
        part = corpus.splits[name]
        assert part.labels is not None
        assert 60 <= len(part) <= 62, "a tenth of 600 rows, and the rest of the last text's"
        first_rows = dict(reversed(list(zip(part.texts, part.labels.tolist(), strict=True))))
        of_b = sum(label == 1 for label in first_rows.values())
        assert abs(of_b - len(first_rows) / 5) <= 1


def test_a_source_text_stays_in_one_split() -> None:
    train = [(f"{i % 50}", f"reading {i}") for i in range(200)]
    corpus = split({"train": table(train)}, TRANSLATE)
    texts = [set(part.texts) for part in corpus.splits.values()]
    assert sum(map(len, texts)) == 50
    assert 20 <= len(corpus.splits["test"]) <= 23, "a tenth, and the rest of the last text's rows"


PHRASES = CLASSIFY.model_copy(update={"keep_together": "phrases"})


def of_sentences_and_phrases() -> list[tuple[str, str]]:
    """300 sentences of 7 words of their own, every third of class b, each with up to 5 phrases of 1 to 5 words."""
    rows = []
    for i in range(300):
        words = [f"w{i}.{j}" for j in range(7)]
        label = "aab"[i % 3]
        rows += [(" ".join(words[j + 1 : 6]), label) for j in range(i % 6)] + [(" ".join(words), label)]
    return rows


def test_phrases_stay_with_their_sentence() -> None:
    train = of_sentences_and_phrases()
    some = {"train": table(train)}
    corpus, again = split(some, PHRASES), split(some, PHRASES)
    assert all(corpus.splits[name].texts == again.splits[name].texts for name in corpus.splits)
    sentences = {name: {text.split(".")[0] for text in part.texts} for name, part in corpus.splits.items()}
    assert sum(map(len, sentences.values())) == 300, "no sentence is in two splits, by itself or by a phrase"
    n_rows = Counter(text.split(".")[0] for text, _ in train)
    assert corpus.splits["train"].texts == [text for text, _ in train if text.split(".")[0] in sentences["train"]]
    for name in ("validation", "test"):
        part = corpus.splits[name]
        assert part.labels is not None
        assert {len(text.split()) for text in part.texts} == {7}, "whole sentences alone"
        assert 105 <= sum(n_rows[sentence] for sentence in sentences[name]) <= 110, "a tenth of 1,050, whole groups"
        assert abs(np.sum(part.labels == 1) - len(part) / 3) <= 1
    left_out = sum(n_rows[sentence] - 1 for sentence in sentences["test"])
    assert corpus.notes[0] == (
        f"test: {len(sentences['test'])} rows cut from train (data.test_size 0.1), because the source has none; "
        f"{left_out} phrases of them are in no split (data.keep_together)"
    )


def test_one_group_cannot_be_cut() -> None:
    rows = [("a b c d e", 0), ("a b c d", 1), ("z a b c d", 1)]
    some = {"train": table(rows)}
    config = PHRASES.model_copy(update={"test_size": 0.4})
    with pytest.raises(
        ConfigError, match=r"^data\.test_size \(0\.4\) must cut .*; data\.keep_together=text ties fewer"
    ):
        split(some, config)


def test_too_small_to_cut() -> None:
    some = {"train": table([("x", 0), ("y", 1), ("z", 1)])}
    with pytest.raises(ConfigError, match=r"^data\.test_size \(0\.1\) must cut at least one of 3 training rows and"):
        split(some, CLASSIFY)


def test_references_are_merged() -> None:
    rows = Examples(["a", "b", "a", "a"], references=[("1",), ("2",), ("3",), ("1",)])
    merged = merge_references(rows)
    assert merged.texts == ["a", "b"]
    assert merged.references == [("1", "3"), ("2",)]


# -------------------------------------------------------------------------------------------------------- text groups

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
    shared = [len(text) >= MIN_SHARED_WORDS for text in words]
    ties = [(row, other) for row in rows for other in holders[row][: None if shared[row] else 1]]
    ties += [(row, other) for row in rows for other in rows if words[row] == words[other]]
    place = {row: i for i, row in enumerate(longest_first)}
    head = list(rows)
    for _ in rows:
        for row, other in ties:
            head[row] = head[other] = min(head[row], head[other], key=lambda row: place[row])
    return head, [not found for found in holders]


@given(some_texts)
def test_groups_are_those_of_all_pairs(texts: list[str]) -> None:
    found = group_texts(texts, "phrases")
    head, whole = by_all_pairs(texts)
    assert found.head.tolist() == head
    assert found.whole.tolist() == whole


@given(some_texts)
def test_text_alone_keeps_equal_texts_together(texts: list[str]) -> None:
    found = group_texts(texts, "text")
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
    assert group_texts(texts, "phrases").head.tolist() == heads


def test_long_texts_are_searched_and_not_looked_for() -> None:
    long = " ".join(f"w{i}" for i in range(LONGEST_PHRASE + 1))
    texts = [long, f"{long} and on", long.removesuffix(f" w{LONGEST_PHRASE}"), "w3 w4"]
    found = group_texts(texts, "phrases")
    assert found.head.tolist() == [1, 1, 1, 1], "the third has as many words as are looked for"
    assert found.whole.tolist() == [True, True, False, False], "the first is not looked for in the second"


def test_repeated_words_end() -> None:
    """Every text is phrases of the one before: a family, and its longest text alone is whole."""
    texts = [" ".join("a" * n) for n in range(1, 53)]
    found = group_texts(texts, "phrases")
    assert Counter(found.head.tolist()) == {51: 52}
    assert np.flatnonzero(found.whole).tolist() == [51]


# ------------------------------------------------------------------------------------------------------------ subsets

some_labels = st.lists(st.integers(0, 4), min_size=1, max_size=101).map(lambda values: np.array(values, np.int64))


@given(some_labels, st.integers(0, 9), st.data())
def test_subsets_are_nested(labels: IntArray, seed: int, data: st.DataObject) -> None:
    large = data.draw(st.integers(1, len(labels)))
    small = data.draw(st.integers(1, large))
    few, many = (subset_rows(len(labels), labels, count, seed) for count in (small, large))
    assert len(few) == small
    assert set(few) <= set(many)
    assert np.array_equal(many, np.sort(many))


@given(some_labels, st.integers(0, 9))
def test_every_prefix_has_each_class_in_its_share(labels: IntArray, seed: int) -> None:
    order = stratified_order(len(labels), labels, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    counts = np.bincount(labels, minlength=5)
    for size in range(1, len(labels) + 1):
        taken = np.bincount(labels[order[:size]], minlength=5)
        # a class is off by its own rounding (1/2) and its share of the others' (five classes, 1/2 each)
        assert np.all(np.abs(taken - size * counts / len(labels)) <= 0.5 + 2.5 * counts / len(labels) + 1e-9)


def test_seeds_differ_and_repeat() -> None:
    one, same, other = (stratified_order(997, None, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    labels = np.arange(997) % 3
    assert not np.array_equal(stratified_order(997, labels, 0), stratified_order(997, labels, 1))


def test_each_row_is_as_likely_as_another() -> None:
    labels = np.array([0] * 8 + [1] * 16)
    drawn = np.zeros(24)
    for seed in range(600):
        drawn[subset_rows(24, labels, 6, seed)] += 1
    # two of 8 and four of 16, each row with chance 1/4: 150 +- 5 standard deviations of 10.6
    assert np.all(np.abs(drawn - 150) < 53)


# -------------------------------------------------------------------------------------------------- many small classes

large_beside_small = np.repeat(np.arange(101), [1000, *[10] * 100])
FIRST_OF_FIVE_CLASSES = [26, 47, 10, 24, 28, 50, 37, 16, 19, 3, 12]


@pytest.mark.parametrize(
    "sizes", [[1000, *[10] * 100], [900, *[1] * 100], [50] * 3 + [7] * 40 + [1] * 31, [2] * 50 + [97]]
)
@pytest.mark.parametrize("seed", [0, 3])
def test_small_classes_are_in_every_prefix_too(sizes: list[int], seed: int) -> None:
    """A large class beside many small ones: interleaved by place alone, the first 50 of 2,000 are all of the large."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    order = stratified_order(len(labels), labels, seed)
    assert np.array_equal(np.sort(order), np.arange(len(labels)))
    taken = np.cumsum(labels[order][:, None] == np.arange(len(sizes)), axis=0)
    due = np.arange(1, len(labels) + 1)[:, None] * np.array(sizes) / len(labels)
    assert np.abs(taken - due).max() <= 1.0


def test_a_cut_has_small_classes_too() -> None:
    train = [(f"text {i}", f"{label}") for i, label in enumerate(large_beside_small)]
    corpus = split({"train": table(train)}, CLASSIFY)
    for name in ("validation", "test"):
        labels = corpus.splits[name].labels
        assert labels is not None and len(labels) == 200
        assert 90 <= np.sum(labels == (corpus.label_names or ()).index("0")) <= 110


def test_subsets_of_few_classes_are_those_they_always_were() -> None:
    """Committed results rest on them. Written down before rows went by deadlines anywhere."""
    labels = np.arange(53) % 5
    assert stratified_order(53, labels, seed=7)[:11].tolist() == FIRST_OF_FIVE_CLASSES


# -------------------------------------------------------------------------------------------------- variants, targets


def test_texts_that_differ_in_case_or_spaces_stay_together() -> None:
    train = [(text, "ab"[i % 2]) for i in range(150) for text in (f"some text {i}", f"  Some TEXT\t{i} ")]
    corpus = split({"train": table(train)}, CLASSIFY)
    folded = [{" ".join(text.lower().split()) for text in part.texts} for part in corpus.splits.values()]
    assert sum(map(len, folded)) == len(set().union(*folded)) == 150


def test_blank_texts_are_not_tied_together() -> None:
    config = CLASSIFY.model_copy(update={"validation_size": 0.2})
    train = [(" " * i, "ab"[i % 2]) for i in range(100)]
    assert len(split({"train": table(train)}, config).splits["validation"].texts) == 20


def pairs_with_common_targets() -> dict[str, Table]:
    """300 sources, of which each third one is translated by one of ten common targets, in varying case."""
    return {
        "train": table([(f"source {i}", f"{'Yy'[i % 2]}es {i % 10}" if i % 3 == 0 else f"t {i}") for i in range(300)])
    }


def test_targets_that_training_has_too_are_counted() -> None:
    corpus = split(pairs_with_common_targets(), TRANSLATE)
    known = {references[0].lower() for references in corpus.splits["train"].references or []}
    for name in ("validation", "test"):
        n = sum(references[0].lower() in known for references in corpus.splits[name].references or [])
        assert n > 3
        assert f"{name}: {n} of 30 targets occur in training too, with other sources" in " ".join(corpus.notes)


def test_both_sides_can_be_kept_apart() -> None:
    """The held-out rows are those of `text`; training goes without the pairs that have one of their targets."""
    plain = split(pairs_with_common_targets(), TRANSLATE)
    corpus = split(pairs_with_common_targets(), TRANSLATE.model_copy(update={"keep_together": "both"}))
    assert corpus.splits["test"].texts == plain.splits["test"].texts
    targets = {
        name: {references[0].lower() for references in part.references or []} for name, part in corpus.splits.items()
    }
    assert not targets["train"] & (targets["validation"] | targets["test"])
    assert not targets["validation"] & targets["test"]
    assert not [note for note in corpus.notes if "occur" in note]
    left = 300 - sum(map(len, corpus.splits.values()))
    dropped = [
        int(found) for note in corpus.notes for found in re.findall(r"(\d+) pairs with a target of theirs", note)
    ]
    assert sum(dropped) == left > 0


def test_both_is_for_translation() -> None:
    with pytest.raises(
        ConfigError, match=r"data.keep_together \(both\) must be text or phrases, because data.task is c"
    ):
        load({"data": {**CLASSIFY.model_dump(), "keep_together": "both"}})
