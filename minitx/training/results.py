"""What every kind of run does around its training: says what it is about to do, and writes what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minitx.config import Config
from minitx.data import TaskData
from minitx.metrics.class_report import report_classes
from minitx.metrics.evaluate import Evaluation
from minitx.training.console import Reporter
from minitx.training.display import final_report, show_at_end
from minitx.training.run_folder import EVALUATION, RunFolder, git_commit, versions, write_json
from minitx.training.tensorboard import Board

TRAIN_EVALUATED = "train_evaluated"
"""Split of the lines of metrics.jsonl, and of the curves, of training rows that are evaluated as validation is."""
CUT = "data.max_length"
"""How a note on cut texts begins."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a model is and what its training took."""

    n_params: int
    n_params_non_embedding: int
    steps: int
    best_step: int
    seconds: float
    device: str
    precision: str
    tokens_per_second: float | None


def show_data(reporter: Reporter, config: Config, data: TaskData, *, cut: bool = True) -> None:
    """Rows of each split and what else there is to know. cut: the model reads texts up to `data.max_length` alone."""
    rows = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    reporter.info(f"data    {config.data.name}: {rows} rows")
    for note in data.notes:
        if cut or not note.startswith(CUT):
            reporter.info(f"{'warning' if note.startswith(CUT) else 'note   '} {note}")


def results_of(
    config: Config,
    data: TaskData,
    status: str,
    effort: Effort,
    evaluations: Mapping[str, Evaluation],
    pretrained: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """results.json. pretrained: what came of an earlier stage."""
    results: dict[str, Any] = {
        "status": status,
        "data": config.data.name,
        "model": config.model.kind,
        "seed": config.seed,
        "source": data.source_fingerprint,
        "n_params": effort.n_params,
        "n_params_non_embedding": effort.n_params_non_embedding,
        "n_train": len(data.splits["train"]),
        "steps": effort.steps,
        "best_step": effort.best_step,
        "seconds": round(effort.seconds, 3),
        "device": effort.device,
        "precision": effort.precision,
        "tokens_per_second": effort.tokens_per_second,
        "metrics": {
            split: {name: interval.to_json() for name, interval in e.metrics.items()}
            for split, e in evaluations.items()
        },
        "loss": {split: e.loss for split, e in evaluations.items()},
    }
    if data.task == "translation":
        results["decode"] = config.decode.model_dump()
    if pretrained is not None:
        results["pretrain"] = pretrained
    return {**results, "versions": versions(), "git": git_commit()}


def finish(
    folder: RunFolder,
    config: Config,
    data: TaskData,
    results: Mapping[str, Any],
    evaluations: Mapping[str, Evaluation],
    reporter: Reporter,
    board: Board,
) -> None:
    """A finished run's files, its end in TensorBoard, and its report on the console."""
    test, report = data.splits["test"], None
    if data.label_names is not None:
        report = report_classes(evaluations["test"], test, data.label_names)
        write_json(folder.path / EVALUATION, report.to_json("test"))
    folder.write_results(results)  # the last, for it says that the run has finished
    show_at_end(board, config, evaluations, report, results["best_step"])
    final_report(reporter, folder, results, evaluations, report)
