"""`minitx evaluate`: metrics of a checkpoint with intervals, a classifier in detail, or two runs compared."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.cli import shared
from minitx.errors import ConfigError

if TYPE_CHECKING:
    from minitx.metrics.class_report import ClassReport
    from minitx.metrics.evaluate import Evaluation
    from minitx.predictor import Predictor
    from minitx.training.console import Reporter

WORST_CLASSES = 10
"""Classes shown of a classifier of many."""


def add_parser(commands: shared.Commands) -> None:
    """Register the command and its options."""
    summary = "metrics of the best checkpoint, with intervals"
    parser = shared.add_command(commands, "evaluate", run, summary, "minitx evaluate RUN --against OTHER_RUN")
    shared.add_run_options(parser, ensemble=True, decoding=True)
    parser.add_argument("overrides", nargs="*", help="other data: data.* keys, e.g. data.path=other/folder")
    parser.add_argument("--split", default="test", choices=["train", "validation", "test"])
    parser.add_argument(
        "--against", metavar="RUN", help="another run, evaluated on the same rows: a paired test of each metric"
    )
    parser.add_argument("--per-class", action="store_true", help="every class, also of a classifier of many")
    parser.add_argument(
        "--hardest", type=shared.count, metavar="N", help="a classifier's N hardest examples (default 3)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="of a classifier: evaluation.json and two pictures there"
    )


def run(options: argparse.Namespace) -> None:
    """A table of metrics; of a classifier also its classes, its calibration and its hardest examples."""
    from minitx.metrics.class_report import N_HARDEST
    from minitx.training.console import Reporter
    from minitx.training.display import HARDEST, show_classes, shown_metric

    predictor = shared.load_predictor(options)
    _check_options(predictor, options)
    if options.against is not None:
        _compare(predictor, options)
        return
    report = None
    if predictor.processor.task == "classification":
        report = predictor.report(options.split, options.overrides, max(N_HARDEST, options.hardest or 0))
    evaluation = report.evaluation if report else predictor.evaluate(options.split, options.overrides)
    rows = [[name, shown_metric(evaluation, name)] for name in evaluation.metrics]
    reporter = Reporter()
    columns = ["metric", "value [95 % interval]"]
    title = f"{_described(predictor, options)}, {len(evaluation.rows):,} {options.split} rows"
    reporter.table(title, columns, [*rows, ["loss", f"{evaluation.loss:.4f}"]])
    for note in evaluation.notes:
        reporter.warning(note)
    _print_signatures(reporter, evaluation)
    if report is not None:
        most = len(report.classes) if options.per_class else WORST_CLASSES
        n_hardest = options.hardest or HARDEST
        show_classes(reporter, report, options.split, most=most, n_hardest=n_hardest, all_of_them="--per-class")
        if options.output is not None:
            _write_report(report, options)


def _check_options(predictor: Predictor, options: argparse.Namespace) -> None:
    """Refuse options of one classifier where the run is none, or where two runs are compared."""
    asked = {"--per-class": options.per_class, "--hardest": options.hardest, "--output": options.output}
    given = [name if value is True else f"{name} ({value})" for name, value in asked.items() if value]
    if given and predictor.processor.task != "classification":
        raise ConfigError(f"{given[0]} must be left out, because {options.run} is no classifier; drop it")
    if given and options.against is not None:
        raise ConfigError(f"{given[0]} must be left out with --against; evaluate each run by itself")


def _write_report(report: ClassReport, options: argparse.Namespace) -> None:
    """evaluation.json, confusion.png and reliability.png in the folder asked for."""
    from minitx.training.display import figures
    from minitx.training.run_folder import EVALUATION, write_json

    try:
        options.output.mkdir(parents=True, exist_ok=True)
        write_json(options.output / EVALUATION, report.to_json(options.split))
        for name, figure in figures(report).items():
            figure.savefig(options.output / f"{name}.png", dpi=110)
    except OSError as error:
        must = f"be a folder that can be written ({error.strerror})"
        raise ConfigError(f"--output ({options.output}) must {must}") from None
    print(options.output)


def _compare(predictor: Predictor, options: argparse.Namespace) -> None:
    """Two runs on the same rows: both scores and their difference with interval and p-value."""
    from minitx.metrics.comparison import mcnemar
    from minitx.predictor import Predictor
    from minitx.training.console import Reporter
    from minitx.training.display import shown_difference, shown_metric

    other = Predictor.from_run(options.against, options.device, options.checkpoint)
    other = shared.with_decoding_options(other, options)
    mine, theirs, differences = predictor.compare(other, options.split, options.overrides)
    reporter = Reporter()
    scores = [[name, shown_metric(mine, name), shown_metric(theirs, name)] for name in differences]
    title = f"{len(mine.rows):,} {options.split} rows of {predictor.config.data.name}"
    reporter.table(title, ["metric", "A [95 % interval]", "B [95 % interval]"], scores)
    rows = [[name, *shown_difference(name, difference)] for name, difference in differences.items()]
    reporter.table("paired comparison", ["metric", "A - B [95 % interval]", "p"], rows)
    reporter.info(f"A: {_described(predictor, options)}\nB: {_described(other, options)}")
    reporter.info("intervals: bootstrap over rows, the difference's paired; p: paired randomisation test, two-sided")
    if predictor.processor.task == "classification":
        found = mcnemar(mine, theirs)
        alone = f"A alone right: {found.a_alone:,} rows, B alone right: {found.b_alone:,} rows"
        reporter.info(f"{alone}; McNemar's exact test, two-sided: p {found.p_value:.4f}")
    _print_signatures(reporter, mine)


def _described(predictor: Predictor, options: argparse.Namespace) -> str:
    """Which runs, which checkpoint, and how they decode."""
    from minitx.training.display import shown_decoding

    runs = " + ".join([str(predictor.folder.path), *(options.ensemble if predictor.n_models > 1 else [])])
    what = [runs, f"{options.checkpoint} checkpoint"]
    if predictor.processor.task == "translation":
        what.append(shown_decoding(predictor.decode))
    return ", ".join(what)


def _print_signatures(reporter: Reporter, evaluation: Evaluation) -> None:
    for name, interval in evaluation.metrics.items():
        if interval.signature:
            reporter.info(f"{name} signature: {interval.signature}")
