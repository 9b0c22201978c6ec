"""Scores by class against scikit-learn; pairs, hardest examples and JSON against what is known by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from minitx.data import TaskData
from minitx.metrics.class_report import (
    LONGEST_TEXT,
    ClassReport,
    class_scores,
    most_confused,
    report_classes,
    shortened,
)
from minitx.metrics.evaluate import evaluate_classes
from minitx.metrics.scores import confusion_matrix, macro_f1


def outcome(n: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(predicted, labels), classes of different sizes, the last one in neither."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes - 1, n) * rng.integers(0, 2, n)
    return np.where(rng.random(n) < 0.6, labels, rng.integers(0, n_classes - 1, n)), labels


@pytest.mark.parametrize(("n", "n_classes"), [(211, 7), (5, 11), (1, 2)])
def test_scores_agree_with_sklearn(n: int, n_classes: int) -> None:
    predicted, labels = outcome(n, n_classes, seed=1)
    names = [f"class {c}" for c in range(n_classes)]
    scores = class_scores(confusion_matrix(predicted, labels, n_classes), names)
    wanted = precision_recall_fscore_support(labels, predicted, labels=range(n_classes), zero_division=np.nan)
    assert [s.name for s in scores] == names and [s.n for s in scores] == wanted[3].tolist()
    for found, expected in ([[s.precision for s in scores], wanted[0]], [[s.recall for s in scores], wanted[1]]):
        np.testing.assert_allclose(np.array(found, dtype=float), expected)
    seen = [s.n > 0 or s.precision is not None for s in scores]
    assert [s.f1 is not None for s in scores] == seen and not all(seen)
    f1 = np.array([s.f1 for s in scores], dtype=float)
    np.testing.assert_allclose(f1[seen], np.nan_to_num(wanted[2])[seen])
    assert np.nanmean(f1) == pytest.approx(macro_f1(predicted, labels, n_classes).value)


CONFUSION = np.array([[5, 0, 2, 1], [3, 7, 0, 0], [0, 0, 0, 0], [0, 0, 0, 11]])


def test_what_a_class_is_taken_for() -> None:
    scores = class_scores(CONFUSION, "abcd")
    assert [(s.taken_for, s.n_taken) for s in scores] == [("c", 2), ("a", 3), (None, 0), (None, 0)]


def test_most_confused_pairs_by_hand() -> None:
    found = [(c.true, c.predicted, c.n, c.share) for c in most_confused(CONFUSION, "abcd")]
    assert found == [("b", "a", 3, 0.3), ("a", "c", 2, 0.25), ("a", "d", 1, 0.125)]
    assert [c.n for c in most_confused(CONFUSION, "abcd", most=2)] == [3, 2]


def report(data: TaskData, rows: list[int], n_hardest: int = 3) -> tuple[ClassReport, np.ndarray]:
    chances = np.random.default_rng(5).dirichlet(np.ones(7), len(rows))
    split = data.splits["test"]
    assert data.label_names is not None
    found = evaluate_classes(np.log(chances), np.array(rows), split, data)
    return report_classes(found, split, data.label_names, n_hardest), chances


def test_hardest_are_the_rows_of_the_highest_loss(beginning: TaskData) -> None:
    rows, split = [9, 2, 11, 4, 12, 7], beginning.splits["test"]
    found, chances = report(beginning, rows)
    assert split.labels is not None and beginning.label_names is not None
    p_true = {row: chances[i, split.labels[row]] for i, row in enumerate(rows)}
    expected = sorted(rows, key=lambda row: p_true[row])[:3]
    assert [e.row for e in found.hardest] == expected
    for example in found.hardest:
        best = chances[rows.index(example.row)].argmax()
        assert example.text == split.text(example.row)
        assert example.true == beginning.label_names[split.labels[example.row]]
        assert example.predicted == beginning.label_names[best]
        assert example.p_true == pytest.approx(p_true[example.row], rel=1e-5)
        assert example.p_predicted == pytest.approx(chances[rows.index(example.row), best], rel=1e-5)


def test_equally_hard_rows_keep_their_order_and_more_than_there_are_is_all(beginning: TaskData) -> None:
    rows = np.array([5, 3, 8])
    even = evaluate_classes(np.full((3, 7), -np.log(7)), rows, beginning.splits["test"], beginning)
    assert beginning.label_names is not None
    found = report_classes(even, beginning.splits["test"], beginning.label_names)
    assert [e.row for e in found.hardest] == [5, 3, 8]


def test_texts_are_one_short_line() -> None:
    assert shortened(" a\n\tb  c ") == "a b c"
    exact, long = "x" * LONGEST_TEXT, "y" * (LONGEST_TEXT + 1)
    assert shortened(exact) == exact
    assert shortened(long) == "y" * (LONGEST_TEXT - 1) + "…" == shortened(long * 1000)


def test_worst_classes(beginning: TaskData) -> None:
    found = replace(report(beginning, [0, 1])[0], classes=class_scores(CONFUSION, "abcd"))
    f1 = {"a": 10 / 16, "b": 14 / 17, "c": 0.0, "d": 22 / 23}
    assert [s.name for s in found.worst(3)] == sorted(f1, key=f1.__getitem__)[:3]
    nowhere = class_scores(np.array([[0, 0], [0, 3]]), "ab")
    assert [s.name for s in replace(found, classes=nowhere).worst(2)] == ["b", "a"]


def test_json_holds_all_of_it(beginning: TaskData) -> None:
    found, _ = report(beginning, list(range(13)), n_hardest=5)
    shown = json.loads(json.dumps(found.to_json("validation"), allow_nan=False))
    assert list(shown) == [
        "split", "n", "loss", "metrics", "classes", "confusion", "most_confused", "calibration", "hardest",
    ]  # fmt: skip
    assert (shown["split"], shown["n"], shown["loss"]) == ("validation", 13, found.evaluation.loss)
    assert set(shown["metrics"]) == {"accuracy", "macro_f1", "ece"}
    matrix = np.array(shown["confusion"]["rows_true_columns_predicted"])
    assert shown["confusion"]["labels"] == list(found.names) and matrix.shape == (7, 7) and matrix.sum() == 13
    assert matrix.trace() / 13 == pytest.approx(shown["metrics"]["accuracy"]["value"])
    assert [c["n"] for c in shown["classes"]] == matrix.sum(1).tolist()
    assert sum(b["n"] for b in shown["calibration"]["bins"]) == 13
    assert [e["row"] for e in shown["hardest"]] == [e.row for e in found.hardest] and len(shown["hardest"]) == 5


def test_one_row_of_one_class(beginning: TaskData) -> None:
    """Warnings are errors here; six classes have no row, five no prediction."""
    found, _ = report(beginning, [3])
    assert len(found.hardest) == 1 and sum(s.n for s in found.classes) == 1
    assert json.dumps(found.to_json("test"), allow_nan=False)
