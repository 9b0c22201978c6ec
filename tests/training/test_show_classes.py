"""A classifier's report as people meet it: 80 columns, nothing obeyed that came from data."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from minitx.metrics.calibration import calibrate, ece
from minitx.metrics.class_report import ClassReport, HardExample, class_scores, most_confused
from minitx.metrics.evaluate import Evaluation
from minitx.metrics.scores import confusion_matrix
from minitx.training.console import Reporter
from minitx.training.display import FEW_CLASSES, calibration_line, show_classes, show_on_board
from minitx.training.tensorboard import Board


def report(n_classes: int, long: int = 0) -> ClassReport:
    rng = np.random.default_rng(2)
    log_probs = np.log(rng.dirichlet(np.ones(n_classes), 53))
    labels = rng.integers(0, n_classes, 53)
    names = tuple(f"name_{c}{'_long' * long}" for c in range(n_classes))
    confusion = confusion_matrix(log_probs.argmax(1), labels, n_classes)
    found = Evaluation(loss=1.0, metrics={"ece": ece(log_probs, labels)}, main="ece", rows=labels, predictions=[],
                       log_probs=log_probs.astype(np.float32), labels=labels)  # fmt: skip
    nasty = HardExample(
        row=41, text="[red]bold[/red] \x1b[31mred\x07 | <b> " + "語" * 70, true=names[0], p_true=0.012,
        predicted=names[1], p_predicted=0.9,
    )  # fmt: skip
    return ClassReport(
        evaluation=found, names=names, confusion=confusion, classes=class_scores(confusion, names),
        confused=most_confused(confusion, names), calibration=calibrate(log_probs, labels), hardest=(nasty,) * 4,
    )  # fmt: skip


def printed(found: ClassReport, log: Path | None = None, most: int = 5) -> list[str]:
    stream = io.StringIO()
    reporter = Reporter(log, stream=stream)
    show_classes(reporter, found, "test", most=most, n_hardest=3, all_of_them="--per-class")
    reporter.close()
    return stream.getvalue().splitlines()


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("long", [0, 9])
def test_few_classes_are_all_shown_a_line_each(long: int) -> None:
    lines = printed(report(FEW_CLASSES, long))
    assert sum(line.startswith("│ name_") for line in lines) == FEW_CLASSES
    assert not any("more classes" in line for line in lines) and max(map(len, lines)) <= 80
    assert ("…" in "".join(lines[:15])) == (long > 0)


def test_of_many_classes_the_worst_are_shown_and_the_others_named(tmp_path: Path) -> None:
    found = report(FEW_CLASSES + 1)
    lines = printed(found, tmp_path / "log")
    shown = [line.split()[1] for line in lines if line.startswith("│ name_")]
    assert shown == [score.name for score in found.worst(5)]
    assert "6 more classes: see --per-class" in lines and "more classes" in (tmp_path / "log").read_text()
    assert sum(line.startswith("│ name_") for line in printed(found, most=11)) == 11


def test_text_from_data_is_neither_markup_nor_control() -> None:
    lines = [line for line in printed(report(3)) if line.startswith("│ 41 ")]
    assert len(lines) == 3 and "[red]bold[/red] \\x1b[31mred" in lines[0]
    assert "1.2 %" in lines[0] and "90.0 %" in lines[0] and "…" in lines[0]


def test_a_share_of_nothing_is_a_dash() -> None:
    found = report(2)
    lines = printed(replace(found, classes=class_scores(np.array([[0, 0], [2, 0]]), "ab")))
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith(("│ a", "│ b"))]
    assert cells == [["a", "0", "0.0 %", "–", "0.0 %", "", ""], ["b", "2", "–", "0.0 %", "0.0 %", "a", "2"]]


def test_the_line_on_calibration() -> None:
    found = replace(report(2), calibration=calibrate(np.log([[0.9, 0.1]] * 40), [0] * 20 + [1] * 20))
    value = 100 * found.evaluation.metrics["ece"].value
    assert calibration_line(found) == f"calibration: says 90.0 %, right in 50.0 %: over-confident; ECE {value:.1f} %"


def test_tensorboard_gets_pictures_and_tables(tmp_path: Path) -> None:
    board = Board(tmp_path)
    show_on_board(board, report(3), 7)
    board.close()
    events = EventAccumulator(str(tmp_path), {"images": 0, "tensors": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {"whole_test/confusion", "whole_test/reliability"}
    texts = {
        name: events.Tensors(f"whole_test/{name}/text_summary")[0].tensor_proto.string_val[0].decode()
        for name in ("classes", "most_confused", "hardest", "surest")
    }
    assert texts["classes"].count("\n") == 1 + 3 and "| name\\_0 |" in texts["classes"]
    assert "\\[red\\]bold" in texts["hardest"] and "\\| \\<b\\>" in texts["hardest"]
