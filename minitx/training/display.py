"""What a run shows beside numbers: samples, attention maps, tables and HParams, and the report at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure

from minitx.analysis.attention_maps import inspect_texts
from minitx.analysis.figures import attention_figure, confusion_figure, reliability_figure
from minitx.analysis.head_maps import HeadStats, LayerId
from minitx.analysis.head_statistics import HeadReport, LayerHeads, head_stats, sample_batches
from minitx.analysis.receptive_field import HELD
from minitx.config import DecodeConfig, MaskingConfig, TrainerConfig
from minitx.data.splits import Split, TaskData
from minitx.decoding.text import TextProcessor
from minitx.metrics.class_report import ClassReport, ClassScore, HardExample
from minitx.metrics.comparison import Comparison
from minitx.metrics.evaluate import Evaluation
from minitx.metrics.ranking import ranked_outputs
from minitx.metrics.scores import in_points
from minitx.nn.build import Model
from minitx.nn.capture import attentions, head_attentions
from minitx.nn.masked import MaskedModel
from minitx.training.console import Reporter
from minitx.training.tensorboard import Board

N_SAMPLES = 8
LONGEST_MAP = 48
"""Tokens a mapped example may have, so that its labels can be read."""
HARDEST = 3
"""Rows of a classifier, on the console."""


class ExampleDisplay:
    """The same few validation examples from beginning to end, so that one can watch them change."""

    def __init__(
        self,
        board: Board,
        model: Model,
        data: TaskData,
        processor: TextProcessor,
        device: torch.device,
        trainer: TrainerConfig,
        masking: MaskingConfig,
    ) -> None:
        """trainer: how much is shown."""
        self.board, self.model, self.data, self.processor, self.device = board, model, data, processor, device
        split = data.splits["validation"]
        order = np.random.default_rng(0).permutation(len(split))
        self.sample_rows = order[:N_SAMPLES]
        short = [int(row) for row in order if split.lengths[row] <= LONGEST_MAP]
        n_maps = trainer.attention_maps if attentions(model) else 0
        wanted = trainer.head_statistics and head_attentions(model)
        self.sample_batches = (
            sample_batches(model, split, data, device=device, rows=trainer.head_statistics, masking=masking)
            if wanted
            else []
        )
        self.map_texts = [split.text(row) for row in (short or [int(order[0])])[:n_maps]]

    def after_validation(self, evaluation: Evaluation, number: int, step: int) -> None:
        """Samples and what heads look at, at every validation; maps at validations 1, 2, 4, 8, ...: they change most
        early on."""
        split = self.data.splits["validation"]
        place = {int(row): i for i, row in enumerate(evaluation.rows)}
        rows = [int(row) for row in self.sample_rows if int(row) in place]
        cells = [(split.text(r), " / ".join(split.references(r)), evaluation.predictions[place[r]]) for r in rows]
        self.board.table("samples", cells, ("text", "wanted", "predicted"), step)
        if self.sample_batches:
            self.board.scalars("view_heads", head_stat_scalars(head_stats(self.model, self.sample_batches)), step)
        if number & (number - 1) == 0:
            self.maps(step, every_kind=False)

    def maps(self, step: int, every_kind: bool = True) -> None:
        """Images with layers down and heads across: each example's most telling kind (cross-attention, or a
        classifier's own), and every kind of the first example. None of a masked model: it makes nothing of a text.

        Each takes about a third of a second to draw, so on the way there are the most telling ones alone.
        """
        if isinstance(self.model, MaskedModel):
            return
        for number, shown in enumerate(inspect_texts(self.model, self.map_texts, self.processor, device=self.device)):
            for view in shown.views if number == 0 and every_kind else shown.views[:1]:
                title = f"{shown.text}  →  {shown.output}"
                self.board.figure(f"view_{view.kind}/example_{number + 1}", attention_figure(view, title), step)


def shown_metric(evaluation: Evaluation, name: str) -> str:
    """Value and interval for people, fractions in per cent."""
    interval = evaluation.metrics[name]
    if in_points(name):
        return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{100 * interval.value:.2f} % [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def shown_difference(name: str, difference: Comparison) -> tuple[str, str]:
    """A difference in the unit of `shown_metric` (percentage points, or points), and its p-value."""
    scale = 1 if in_points(name) else 100
    value, low, high = (f"{scale * x + 0.0:+.2f}" for x in (difference.difference, difference.low, difference.high))
    return f"{value} [{low}, {high}]", f"{difference.p_value:.4f}"


def shown_decoding(decode: DecodeConfig) -> str:
    """How a translator writes, in words."""
    return "greedy" if decode.beam == 1 else f"beam {decode.beam}, length penalty {decode.length_penalty:g}"


FEW_CLASSES = 10
"""Up to here the console shows every class."""
CLASS_COLUMNS = ("class", "n", "precision", "recall", "F1", "mostly taken for", "times")
CONFUSED_COLUMNS = ("true", "predicted", "n", "of the true class")
HARD_COLUMNS = ("row", "true", "p", "predicted", "p", "text")
NAMES = ("class", "mostly taken for", "true", "predicted", "text")


def show_classes(
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
        reporter.info(f"{n_classes - len(scores)} more classes: see {all_of_them}")
    reporter.info(calibration_line(report))
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
    """Two pictures, four tables and a precision-recall curve of each class (of many, the worst) under `whole_test/`."""
    for name, figure in figures(report).items():
        board.figure(f"whole_test/{name}", figure, step)
    board.table("whole_test/classes", [class_cells(score) for score in report.classes], CLASS_COLUMNS, step)
    pairs = [(c.true, c.predicted, f"{c.n:,}", f"{100 * c.share:.1f} %") for c in report.confused]
    board.table("whole_test/most_confused", pairs, CONFUSED_COLUMNS, step)
    board.table("whole_test/hardest", [hard_cells(example) for example in report.hardest], HARD_COLUMNS, step)
    board.table("whole_test/surest", [hard_cells(example) for example in report.surest], HARD_COLUMNS, step)
    found = report.evaluation
    assert found.log_probs is not None and found.labels is not None, "a classifier's evaluation has both"
    drawn = {score.name for score in report.worst(FEW_CLASSES) if score.n}
    for number, name in enumerate(report.names):
        if name in drawn:
            p_N = np.exp(found.log_probs[:, number])
            board.precision_recall(f"whole_test/{name}", found.labels == number, p_N, step)


TRANSLATED_COLUMNS = ("row", "text", "wanted", "predicted", "edits")
N_TRANSLATED = 50


def show_translations(board: Board, evaluation: Evaluation, split: Split, by_symbol: bool, step: int) -> None:
    """The worst and the best outputs on test, as tables under `whole_test/`. by_symbol: what white space separates is
    edited as one; else characters are."""
    found = ranked_outputs(evaluation, split, by_symbol)
    rows = [
        (str(o.row), split.text(o.row), " / ".join(split.references(o.row)), o.text, f"{100 * o.edits:.0f} %")
        for o in found
    ]
    board.table("whole_test/worst", rows[:N_TRANSLATED], TRANSLATED_COLUMNS, step)
    board.table("whole_test/best", rows[::-1][:N_TRANSLATED], TRANSLATED_COLUMNS, step)


COLUMNS = ("layer", "head", "entropy", "spread", "distance", "importance", "loss without", "accuracy without", "rank")
LEGEND = (
    "entropy: of a query's weights, nats; spread: the same over its largest value; distance: tokens (cross: share of "
    "the length, from the diagonal); importance: |d loss / d gate|; without the head: change of loss, and of accuracy "
    "in points; rank: effective rank of what it writes"
)


def head_stat_scalars(stats: Mapping[LayerId, HeadStats]) -> dict[str, float]:
    """`encoder_L1/H2/entropy` and so on, layers and heads counted from 1."""
    return {
        f"{layer_id}/H{head + 1}/{name}": values[head]
        for layer_id, of_layer in stats.items()
        for name, values in _shown(of_layer).items()
        for head in range(len(values))
    }


def _shown(stats: HeadStats) -> dict[str, tuple[float, ...]]:
    """Cross-attention has no distance in tokens."""
    far = {"relative_distance": stats.relative_distance} if stats.distance is None else {"distance": stats.distance}
    return {"entropy": stats.entropy, "spread": stats.spread, **far}


def show_heads(reporter: Reporter, report: HeadReport, what: str) -> None:
    """The table of heads, a line on each layer's similarity, and one on the receptive field.

    what: the rows, in words.
    """
    whole = report.performance
    if report.layers:
        title = f"{what}: loss {whole.loss:.4f}, accuracy {100 * whole.accuracy:.2f} %"
        reporter.table(title, COLUMNS, [row for layer in report.layers for row in _rows(layer)])
        reporter.info(LEGEND)
    for layer in report.layers:
        maps, outputs, width = layer.maps.mean, layer.outputs.mean, f"joint rank {layer.joint_rank:.1f}"
        if len(layer.rank) > 1:
            reporter.info(
                f"{layer.layer_id}: similarity of heads {_share(maps)} in maps, {_share(outputs)} in outputs; {width}"
            )
    seen = report.receptive_field
    width = f"{100 * HELD:.0f} % of the gradient within {seen.width:,} positions"
    reporter.info(f"receptive field: {width}; farthest that is read {seen.farthest:,}")


def _rows(layer: LayerHeads) -> list[tuple[str, ...]]:
    stats, effects = layer.stats, layer.effects
    return [
        (
            str(layer.layer_id),
            str(head + 1),
            f"{stats.entropy[head]:.3f}",
            _share(stats.spread[head]),
            f"{stats.distance[head]:.2f}" if stats.distance is not None else f"{stats.relative_distance[head]:.3f}",
            f"{effects.importance[head]:.4f}",
            f"{effects.loss_without[head]:+.4f}",
            f"{100 * effects.accuracy_without[head]:+.2f}",
            f"{layer.rank[head]:.1f}",
        )
        for head in range(len(layer.rank))
    ]


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
