"""The end of a run: results.json, a classifier's evaluation.json, HParams, and the last lines on the console."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from minitx.config import Config, DecodeConfig
from minitx.config.base import keys_with_role
from minitx.config.load import flat
from minitx.data import TaskData
from minitx.data.splits import Split
from minitx.metrics.class_report import ClassReport, report_classes
from minitx.metrics.evaluate import Evaluation
from minitx.training.console import Reporter
from minitx.training.display import (
    HARDEST,
    show_classes,
    show_on_board,
    show_translations,
    shown_decoding,
    shown_metric,
)
from minitx.training.run_folder import EVALUATION, RunFolder, git_commit, versions, write_json
from minitx.training.tensorboard import Board

WORST_CLASSES = 5
"""Of a classifier, on the console."""
_NOT_COMPARED = tuple(f"{key}." for key in keys_with_role(Config, "source", "place", "machine", "logging"))


def results_of(
    config: Config,
    data: TaskData,
    status: str,
    summary: Mapping[str, Any],
    evaluations: Mapping[str, Evaluation] | None = None,
) -> dict[str, Any]:
    """results.json. summary: of the model and its training, as `summary` of a trainer gives it."""
    evaluations = evaluations or {}
    results: dict[str, Any] = {
        "status": status,
        "data": config.data.name,
        "model": config.model.kind,
        "seed": config.seed,
        "source": data.source_fingerprint,
        **summary,
        "metrics": {
            split: {name: interval.to_json() for name, interval in e.metrics.items()}
            for split, e in evaluations.items()
        },
        "loss": {split: e.loss for split, e in evaluations.items()},
    }
    if data.task == "translation":
        results["decode"] = config.decode.model_dump()
        results["cut_off"] = {split: e.n_cut_off for split, e in evaluations.items()}
    return {**results, "versions": versions(), "git": git_commit()}


def validation_score(results: Mapping[str, Any]) -> float:
    """The main metric on validation of a finished run, by which its best checkpoint was chosen: the first metric."""
    main = next(iter(results["metrics"]["validation"].values()))
    return float(main["value"])


def write_results(
    folder: RunFolder,
    config: Config,
    data: TaskData,
    results: Mapping[str, Any],
    evaluations: Mapping[str, Evaluation],
    reporter: Reporter,
    board: Board,
) -> None:
    """A finished run's files, its end in TensorBoard, and its report on the console."""
    report = None
    if data.label_names is not None:
        report = report_classes(evaluations["test"], data.splits["test"], data.label_names)
        write_json(folder.path / EVALUATION, report.to_json("test"))
    folder.write_results(results)  # the last, for it says that the run has finished
    folder.write_config(config)  # of a finished run that was only evaluated anew, and had kept its own until now
    if report is not None:
        show_on_board(board, report, results["best_step"])
    if data.task == "translation":
        by_symbol = data.metrics == "error_rate"
        show_translations(board, evaluations["test"], data.splits["test"], by_symbol, results["best_step"])
    metrics = {f"{split}/{name}": i.value for split, e in evaluations.items() for name, i in e.metrics.items()}
    board.hparams(_hparams(config), {f"whole_{k}": v for k, v in metrics.items()})
    board.flush()
    _show_results(reporter, folder, results, evaluations, report)


def _hparams(config: Config) -> dict[str, Any]:
    """What one compares runs by, as dotted keys; the data set by its name alone, paths and logging left out."""
    unread = set() if config.data.source == "probe" else {"probe"}
    tree = config.model_dump(include={"data", "model", "optim", "trainer", "seed"}, exclude={"data": unread})
    keys = {key: value for key, value in flat(tree).items() if not f"{key}.".startswith(_NOT_COMPARED)}
    return {**keys, "pretrain.kind": config.pretrain.kind}


def _show_results(
    reporter: Reporter,
    folder: RunFolder,
    results: Mapping[str, Any],
    evaluations: Mapping[str, Evaluation],
    report: ClassReport | None,
) -> None:
    """One table (metrics with intervals, size, speed, place), a classifier's classes and hardest examples on test."""
    names = list(evaluations["test"].metrics)
    rows = [[name, *(shown_metric(evaluations[split], name) for split in ("validation", "test"))] for name in names]
    how = f", {shown_decoding(DecodeConfig(**results['decode']))}" if "decode" in results else ""
    reporter.table(f"best checkpoint{how}, 95 % bootstrap intervals", ["", "validation", "test"], rows)
    for note in evaluations["test"].notes:
        reporter.warning(note)
    if report is not None:
        place = f"{folder.path}/{EVALUATION}"
        show_classes(reporter, report, "test", most=WORST_CLASSES, n_hardest=HARDEST, all_of_them=place)
    reporter.info(f"{results['n_params']:,} parameters, {_shown_effort(results)}")
    reporter.info(f"results {folder.path}/results.json")


def _shown_effort(results: Mapping[str, Any]) -> str:
    """Steps, time and speed in words; a linear model has tries in place of steps."""
    took, speed = f"in {results['seconds']:.0f} s", results["tokens_per_second"]
    if "c" in results:
        return f"best of {results['steps']} by model.c={results['c']:g}, {took}"
    of_speed = f", {speed:,.0f} tokens/s" if speed else ""
    return f"{results['steps']:,} steps {took}{of_speed}, best at step {results['best_step']:,}"


def show_next_steps(reporter: Reporter, folder: RunFolder, data: TaskData, *, attends: bool) -> None:
    """What to type next. attends: there is something to inspect."""
    reporter.info("\nnext:")
    reporter.info(f"  tensorboard --logdir {folder.path.parent}")
    run = shlex.quote(str(folder.path))
    if data.task == "masked":
        reporter.info(f"  minitx evaluate {run}")
        reporter.info(f"  python train.py data=... pretrain=masked pretrain.run={run}")
        return
    example = shlex.quote(_example(data.splits["test"]))
    reporter.info(f"  minitx predict {run} {example}")
    if attends:
        reporter.info(f"  minitx inspect {run} {example}")


def _example(split: Split) -> str:
    """A text to try the run on, in one line: the longest of the first few that fits on a command line."""
    texts = [" ".join(split.text(row).split()) for row in range(min(50, len(split)))]
    return max((t for t in texts if len(t) <= 60 and '"' not in t), key=len, default=texts[0][:60])
