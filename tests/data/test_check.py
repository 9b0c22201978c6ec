"""Tables to examples: labels, missing splits, references, and a message for every kind of bad record."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from minitx.config import DataConfig
from minitx.data.pipeline.check import prepare
from minitx.data.sources.files import Table
from minitx.errors import ConfigError

CLASSIFY = DataConfig(source="dataset", task="classification", path="unused")
FILES = DataConfig(source="files", task="classification", path="unused.csv")
TRANSLATE = DataConfig(source="dataset", task="translation", path="unused")


def tables(
    config: DataConfig, train: Any, validation: Any = None, test: Any = None, **options: Any
) -> dict[str, Table]:
    """Splits from lists of (input, target); validation and test are valid ones where not given."""
    default = [train[0]] if train else []
    rows = {"train": train, "validation": validation or default, "test": test or default}
    return {
        name: Table(f"the {name} split", [one for one, _ in pairs], [two for _, two in pairs], **options)
        for name, pairs in rows.items()
    }


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        pytest.param(["b", "a", "b"], ("a", "b"), [1, 0, 1], id="text"),
        pytest.param([10, 9, -1], ("-1", "9", "10"), [2, 1, 0], id="integers in the order of their values"),
        pytest.param(["10", "9", "9"], ("9", "10"), [1, 0, 0], id="integers as text"),
        pytest.param([True, False, True], ("false", "true"), [1, 0, 1], id="bool"),
    ],
)
def test_labels_of_every_kind(labels: list[Any], names: tuple[str, ...], numbers: list[int]) -> None:
    corpus = prepare(tables(CLASSIFY, [("x", label) for label in labels]), CLASSIFY)
    assert corpus.label_names == names
    assert corpus.splits["train"].labels is not None
    assert corpus.splits["train"].labels.tolist() == numbers


def test_declared_class_names_keep_their_order() -> None:
    corpus = prepare(tables(CLASSIFY, [("x", 1), ("y", 0)], class_names=("pos", "neg", "rare")), CLASSIFY)
    assert corpus.label_names == ("pos", "neg", "rare")
    assert corpus.splits["train"].labels is not None
    assert corpus.splits["train"].labels.tolist() == [1, 0]


@pytest.mark.parametrize("options", [{"class_names": ("neg", "pos")}, {}], ids=["declared", "plain"])
def test_an_unlabelled_test_split_is_cut_anew(options: dict[str, Any]) -> None:
    train = [(f"{i}", i % 2) for i in range(40)]
    corpus = prepare(tables(CLASSIFY, train, test=[("hidden", -1)] * 3, **options), CLASSIFY)
    assert len(corpus.splits["test"]) == 4
    assert "hidden" not in corpus.splits["test"].texts
    assert "the test split has no labels and is left out" in corpus.notes


def test_missing_splits_are_cut_from_train() -> None:
    train = [(f"text {i}", "abbb"[i % 4]) for i in range(200)]
    some = {"train": tables(CLASSIFY, train)["train"]}
    config = CLASSIFY.model_copy(update={"validation_size": 0.2, "test_size": 0.1})
    corpus, again = prepare(some, config), prepare(some, config)
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


def test_a_split_that_is_null_is_told_so() -> None:
    config = CLASSIFY.model_copy(update={"validation_split": None})
    train = [(f"text {i}", i % 2) for i in range(40)]
    some = {name: table for name, table in tables(config, train, test=train[:3]).items() if name != "validation"}
    (note,) = prepare(some, config).notes
    assert note == "validation: 4 rows cut from train (data.validation_size 0.1), because data.validation_split is null"


def test_equal_texts_stay_in_one_split_and_classes_keep_their_shares() -> None:
    """Text i stands in i % 3 + 1 rows; every fifth is of class b, but for a second row of each, which is of class c."""
    train = [(f"{i}", "c" if copy == 1 else "abaaa"[i % 5]) for copy in range(3) for i in range(300) if i % 3 >= copy]
    corpus = prepare({"train": tables(CLASSIFY, train)["train"]}, CLASSIFY)
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
    corpus = prepare({"train": tables(TRANSLATE, train)["train"]}, TRANSLATE)
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
    some = {"train": tables(PHRASES, train)["train"]}
    corpus, again = prepare(some, PHRASES), prepare(some, PHRASES)
    assert all(corpus.splits[name].texts == again.splits[name].texts for name in corpus.splits)
    sentences = {name: {text.split(".")[0] for text in part.texts} for name, part in corpus.splits.items()}
    assert sum(map(len, sentences.values())) == 300, "no sentence is in two splits, by itself or by a phrase"
    n_rows = Counter(text.split(".")[0] for text, _ in train)
    assert corpus.splits["train"].texts == [text for text, _ in train if text.split(".")[0] in sentences["train"]]
    for name in ("validation", "test"):
        part = corpus.splits[name]
        assert part.labels is not None
        assert {len(text.split()) for text in part.texts} == {7}, "whole sentences alone"
        assert 105 <= sum(n_rows[sentence] for sentence in sentences[name]) <= 110, "a tenth of 1,050, whole families"
        assert abs(np.sum(part.labels == 1) - len(part) / 3) <= 1
    left_out = sum(n_rows[sentence] - 1 for sentence in sentences["test"])
    assert corpus.notes[0] == (
        f"test: {len(sentences['test'])} rows cut from train (data.test_size 0.1), because the source has none; "
        f"{left_out} phrases of them are in no split (data.keep_together)"
    )


def test_one_family_cannot_be_cut() -> None:
    rows = [("a b c d e", 0), ("a b c d", 1), ("z a b c d", 1)]
    some = {"train": tables(PHRASES, rows)["train"]}
    config = PHRASES.model_copy(update={"test_size": 0.4})
    with pytest.raises(
        ConfigError, match=r"^data\.test_size \(0\.4\) must cut .*; data\.keep_together=text ties fewer"
    ):
        prepare(some, config)


def test_too_small_to_cut() -> None:
    some = {"train": tables(CLASSIFY, [("x", 0), ("y", 1), ("z", 1)])["train"]}
    with pytest.raises(ConfigError, match=r"^data\.test_size \(0\.1\) must cut at least one of 3 training rows and"):
        prepare(some, CLASSIFY)


def test_references_are_grouped() -> None:
    config = TRANSLATE.model_copy(update={"multi_reference": True})
    rows = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "1")]
    corpus = prepare(tables(config, rows, validation=rows, test=rows), config)
    assert corpus.splits["train"].references == [("1",), ("2",), ("3",), ("1",)]
    for name in ("validation", "test"):
        assert corpus.splits[name].texts == ["a", "b"]
        assert corpus.splits[name].references == [("1", "3"), ("2",)]
    plain = prepare(tables(TRANSLATE, rows, validation=rows), TRANSLATE)
    assert plain.splits["validation"].references == [("1",), ("2",), ("3",), ("1",)]


def test_training_pairs_with_an_empty_side_are_dropped() -> None:
    corpus = prepare(tables(TRANSLATE, [("a", "1"), (" ", "2"), ("c", "")]), TRANSLATE)
    assert corpus.splits["train"].texts == ["a"]
    assert corpus.notes == ("2 of 3 training pairs have an empty side and are dropped",)


def test_blank_texts_are_told() -> None:
    corpus = prepare(tables(CLASSIFY, [("a", 0), ("  ", 1)]), CLASSIFY)
    assert corpus.splits["train"].texts == ["a", "  "]
    assert corpus.notes == ("the train split has 1 blank texts",)


GOOD, PAIR = [("a", "x"), ("b", "y")], [("a", "b")]
WRONG = [
    (
        CLASSIFY,
        [*GOOD, (None, "x")],
        {},
        r"data\.text_column \(text\) must hold text .*; record 3 of the train split has none",
    ),
    (
        CLASSIFY,
        [*GOOD, (3, "x")],
        {},
        r"data\.text_column \(text\) must hold text .*; record 3 of the train split has 3",
    ),
    (
        CLASSIFY,
        [*GOOD, ("\ud800", "x")],
        {},
        r"data\.text_column \(text\) must hold valid Unicode; record 3 of .* a lone",
    ),
    (
        FILES,
        [*GOOD, ("", "x")],
        {},
        r"data\.text_column \(text\) must hold text .*; record 3 of the train split has an empty",
    ),
    (CLASSIFY, [*GOOD, ("c", None)], {}, r"data\.label_column \(label\) must hold a label .*; record 3 of .* has none"),
    (CLASSIFY, [*GOOD, ("c", " ")], {}, r"data\.label_column \(label\) must hold a label .*; record 3 of .* has none"),
    (CLASSIFY, [*GOOD, ("c", 0.5)], {}, r"data\.label_column \(label\) must hold text, integers or .* has 0\.5"),
    (
        CLASSIFY,
        GOOD,
        {"test": [("a", "x"), ("a", "z")]},
        r"must hold labels that training has; record 2 of the test split has 'z'",
    ),
    (
        CLASSIFY,
        GOOD,
        {"validation": [("a", "x"), ("a", None)]},
        r"must hold a label .*; record 2 of the validation split",
    ),
    (
        CLASSIFY,
        [("a", "x"), ("b", "x")],
        {},
        r"data\.label_column \(label\) must hold at least two classes .* have 'x'",
    ),
    (CLASSIFY, [], {}, r"data\.path \(unused\) must hold at least one record in each split; the train split has none"),
    (
        TRANSLATE,
        [*PAIR, ("a", None)],
        {},
        r"data\.tgt_column \(tgt\) must hold text .*; record 2 of the train split has none",
    ),
    (
        TRANSLATE,
        PAIR,
        {"test": [*PAIR, ("a", " ")]},
        r"data\.tgt_column \(tgt\) must .* record 2 of the test split has an empty",
    ),
    (
        TRANSLATE,
        PAIR,
        {"test": [("", "b")]},
        r"data\.src_column \(src\) must .* record 1 of the test split has an empty",
    ),
    (
        TRANSLATE,
        [("", "b")],
        {"test": PAIR, "validation": PAIR},
        r"data\.src_column \(src\) must .* record 1 of the train",
    ),
]


@pytest.mark.parametrize(("config", "train", "others", "message"), WRONG)
def test_wrong_records(config: DataConfig, train: Any, others: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        prepare(tables(config, train, **others), config)
    assert "\n" not in str(caught.value)
