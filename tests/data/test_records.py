"""Tables to examples: labels, and a message for every kind of bad record."""

from typing import Any

import pytest

from minitx.config import DataConfig
from minitx.data.sources.records import Table, check_classes, examples_of
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
    corpus = examples_of(tables(CLASSIFY, [("x", label) for label in labels]), CLASSIFY)
    assert corpus.label_names == names
    assert corpus.splits["train"].labels is not None
    assert corpus.splits["train"].labels.tolist() == numbers


def test_declared_class_names_keep_their_order() -> None:
    corpus = examples_of(tables(CLASSIFY, [("x", 1), ("y", 0)], class_names=("pos", "neg", "rare")), CLASSIFY)
    assert corpus.label_names == ("pos", "neg", "rare")
    assert corpus.splits["train"].labels is not None
    assert corpus.splits["train"].labels.tolist() == [1, 0]


@pytest.mark.parametrize("options", [{"class_names": ("neg", "pos")}, {}], ids=["declared", "plain"])
def test_an_unlabelled_test_split_is_left_out(options: dict[str, Any]) -> None:
    train = [(f"{i}", i % 2) for i in range(40)]
    corpus = examples_of(tables(CLASSIFY, train, test=[("hidden", -1)] * 3, **options), CLASSIFY)
    assert corpus.splits.keys() == {"train", "validation"}
    assert corpus.notes == ("the test split has no labels and is left out",)


def test_labels_of_one_value_have_a_fixed_order() -> None:
    """A set of strings is in another order in each process; class numbers must not be."""
    labels = ["01", "0", "1", " 1", "+1", "001"]
    corpus = examples_of(tables(CLASSIFY, [("x", label) for label in labels]), CLASSIFY)
    assert corpus.label_names == ("0", "+1", "001", "01", "1")


def test_training_pairs_with_an_empty_side_are_dropped() -> None:
    corpus = examples_of(tables(TRANSLATE, [("a", "1"), (" ", "2"), ("c", "")]), TRANSLATE)
    assert corpus.splits["train"].texts == ["a"]
    assert corpus.notes == ("2 of 3 training pairs have an empty side and are dropped",)


def test_blank_texts_are_counted() -> None:
    corpus = examples_of(tables(CLASSIFY, [("a", 0), ("  ", 1)]), CLASSIFY)
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
        examples_of(tables(config, train, **others), config)
    assert "\n" not in str(caught.value)


def test_white_space_around_labels_is_dropped_and_told() -> None:
    rows = [("x", "neg"), ("y", "neg "), ("z", "\tpos")]
    corpus = examples_of(tables(CLASSIFY, rows), CLASSIFY)
    assert corpus.label_names == ("neg", "pos") and corpus.splits["train"].labels is not None
    assert corpus.splits["train"].labels.tolist() == [0, 0, 1]
    assert corpus.notes == ("the train split: white space around 2 labels is dropped",)


def test_a_label_with_half_a_surrogate_pair() -> None:
    with pytest.raises(ConfigError, match="hold valid Unicode; record 2 of the train split has a lone surrogate"):
        examples_of(tables(CLASSIFY, [("x", "a"), ("y", "\ud800")]), CLASSIFY)


def test_training_needs_two_classes() -> None:
    one = examples_of(tables(CLASSIFY, [("a", "x"), ("b", "x")]), CLASSIFY)
    with pytest.raises(ConfigError, match=r"data\.label_column \(label\) must hold at least two classes .* have 'x'"):
        check_classes(one, CLASSIFY)
    check_classes(examples_of(tables(CLASSIFY, GOOD), CLASSIFY), CLASSIFY)
    check_classes(examples_of(tables(TRANSLATE, PAIR), TRANSLATE), TRANSLATE)
