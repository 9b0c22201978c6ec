"""A classifier's report on the console and in TensorBoard: each class, calibration, the hardest examples."""

from __future__ import annotations

from matplotlib.figure import Figure

from minitx.evaluation.class_report import ClassReport, ClassScore, HardExample
from minitx.evaluation.confusion_figure import confusion_figure
from minitx.evaluation.reliability_figure import reliability_figure
from minitx.training.board import Board
from minitx.training.console import Reporter

FEW_CLASSES = 10
"""Up to here the console shows every class."""
CLASS_COLUMNS = ("class", "n", "precision", "recall", "F1", "mostly taken for", "times")
CONFUSED_COLUMNS = ("true", "predicted", "n", "of the true class")
HARD_COLUMNS = ("row", "true", "p", "predicted", "p", "text")
NAMES = ("class", "mostly taken for", "true", "predicted", "text")


def say_classes(
    reporter: Reporter, report: ClassReport, split: str, *, most: int, n_hardest: int, all_of_them: str
) -> None:
    """The table of classes, a line on calibration, and the hardest examples.

    Of more than `FEW_CLASSES` classes the `most` worst are shown, and `all_of_them` says where the others are.
    """
    n_classes = len(report.classes)
    if n_classes <= max(FEW_CLASSES, most):
        scores, title = report.classes, f"{split} rows by class"
    else:
        scores, title = report.worst(most), f"{split} rows: the {most} worst of {n_classes} classes, by F1"
    reporter.table(title, CLASS_COLUMNS, [class_cells(score) for score in scores], NAMES)
    if len(scores) < n_classes:
        reporter.say(f"{n_classes - len(scores)} more classes: see {all_of_them}")
    reporter.say(calibration_line(report))
    hardest = [hard_cells(example) for example in report.hardest[:n_hardest]]
    reporter.table(f"hardest {split} rows", HARD_COLUMNS, hardest, NAMES)


def calibration_line(report: ClassReport) -> str:
    """How sure against how often right, in words, and the expected calibration error."""
    found, ece = report.calibration, report.evaluation.metrics["ece"]
    says = f"says {100 * found.confidence:.1f} %, right in {100 * found.accuracy:.1f} %"
    return f"calibration: {says}: {found.verdict}; ECE {100 * ece.value:.1f} %"


def class_cells(score: ClassScore) -> tuple[str, ...]:
    """One row under `CLASS_COLUMNS`; a share of nothing is a dash."""
    shares = ("–" if x is None else f"{100 * x:.1f} %" for x in (score.precision, score.recall, score.f1))
    taken = ("", "") if score.taken_for is None else (score.taken_for, f"{score.n_taken:,}")
    return (score.name, f"{score.n:,}", *shares, *taken)


def hard_cells(example: HardExample) -> tuple[str, ...]:
    """One row under `HARD_COLUMNS`."""
    p_true, p_predicted = (f"{100 * p:.1f} %" for p in (example.p_true, example.p_predicted))
    return (str(example.row), example.true, p_true, example.predicted, p_predicted, example.text)


def figures(report: ClassReport) -> dict[str, Figure]:
    """The pictures of a report, by name."""
    return {
        "confusion": confusion_figure(report.confusion, report.names),
        "reliability": reliability_figure(report.calibration, report.evaluation.metrics["ece"]),
    }


def show_on_board(board: Board, report: ClassReport, step: int) -> None:
    """Two pictures and three tables under `test/`."""
    for name, figure in figures(report).items():
        board.figure(f"test/{name}", figure, step)
    board.table("test/classes", [class_cells(score) for score in report.classes], CLASS_COLUMNS, step)
    pairs = [(c.true, c.predicted, f"{c.n:,}", f"{100 * c.share:.1f} %") for c in report.confused]
    board.table("test/most_confused", pairs, CONFUSED_COLUMNS, step)
    board.table("test/hardest", [hard_cells(example) for example in report.hardest], HARD_COLUMNS, step)
