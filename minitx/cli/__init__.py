"""The `minitx` command: what one does with a trained run. Training itself is `python train.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.cli.lines import LineProgress, chunks, read_lines
from minitx.errors import ConfigError, RunError

if TYPE_CHECKING:
    from minitx.metrics.class_report import ClassReport
    from minitx.metrics.evaluate import Evaluation
    from minitx.predictor import Predictor
    from minitx.training.console import Reporter

CHUNK_LINES = 2048
"""Lines of standard input answered together; fewer with a beam, so that answers keep coming."""
MIN_CHUNK_LINES = 256
WORST_CLASSES = 10
"""Classes shown of a classifier of many."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; a user's mistake is one line on the error stream."""
    options = _options(arguments)
    try:
        options.command(options)
    except (ConfigError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        sys.exit(0)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """argparse takes the positional arguments before the first option for all there are; what comes later is more."""
    parser = _parser()
    options, later = parser.parse_known_args(arguments)
    lists = [value for name, value in vars(options).items() if name in ("text", "pair", "overrides")]
    many = next((value for value in lists if isinstance(value, list)), None)
    # What argparse itself would take for an option: a dash and no space.
    unknown = [a for a in later if a.startswith("-") and a not in ("-", "--") and " " not in a]
    if later and (many is None or (unknown and "--" not in later[: later.index(unknown[0])])):
        parser.error(f"unrecognized arguments: {' '.join(later)}")
    if many is not None:
        many.extend(argument for argument in later if argument != "--")
        if any(not _spellable(argument) for argument in many):
            parser.error("texts must be UTF-8")
    return options


def _spellable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minitx",
        description="Use a trained run: predict, score, evaluate, inspect. Judge studies: report. "
        "Measure this machine: bench.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", help="label or translate texts")
    _common(predict, _predict)
    _ensemble(predict)
    _decoding(predict)
    predict.add_argument("text", nargs="*", help="texts; without any, the lines of standard input")
    predict.add_argument(
        "--n-best", type=_count, metavar="N", help="the N best of each, as line number, score and text; widens the beam"
    )

    score = commands.add_parser("score", help="log probability of given translations, and their numbers of tokens")
    _common(score, _score)
    _ensemble(score)
    score.add_argument(
        "pair", nargs="*", help="a text and its translation; without, tab-separated pairs from standard input"
    )

    evaluate = commands.add_parser("evaluate", help="metrics of the best checkpoint, with intervals")
    _common(evaluate, _evaluate)
    _ensemble(evaluate)
    _decoding(evaluate)
    evaluate.add_argument("overrides", nargs="*", help="other data: data.* keys, e.g. data.path=other/folder")
    evaluate.add_argument("--split", default="test", choices=["train", "validation", "test"])
    evaluate.add_argument(
        "--against", metavar="RUN", help="another run, judged on the same rows: a paired test of each metric"
    )
    evaluate.add_argument("--per-class", action="store_true", help="every class, also of a classifier of many")
    evaluate.add_argument("--hardest", type=_count, metavar="N", help="a classifier's N hardest examples (default 3)")
    evaluate.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="of a classifier: evaluation.json and two pictures there"
    )

    inspect = commands.add_parser("inspect", help="one HTML page with every layer and head of a text's attention")
    _common(inspect, _inspect)
    inspect.add_argument("text", nargs="*", help="one or more; may be left out with --heads")
    inspect.add_argument("-o", "--output", type=Path, help="where to write it (default: RUN/inspect.html)")
    inspect.add_argument("--heads", action="store_true", help="a table of all heads, and heads.json beside the page")
    inspect.add_argument("--split", default="validation", choices=["train", "validation", "test"], help="for --heads")
    inspect.add_argument("--rows", type=_count, default=256, metavar="N", help="rows for --heads (default 256)")

    match = commands.add_parser("match", help="the inner width at which another model has the size of a run")
    match.set_defaults(command=_match)
    match.add_argument("model", metavar="MODEL", help="transformer, cnn or lstm")
    match.add_argument("--like", required=True, type=Path, metavar="RUN", help="a run folder, or a config.yaml")
    match.add_argument("overrides", nargs="*", help="other keys of MODEL, e.g. model.n_layers=4")

    report = commands.add_parser("report", help="judge a folder of studies: a page, Markdown and claims.json")
    report.set_defaults(command=_report)
    report.add_argument("folder", type=Path, metavar="FOLDER", help="of all studies, e.g. outputs/studies")
    report.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write (default: FOLDER/report)")

    _add_bench(commands.add_parser("bench", help="speed and memory beside torch's layers and transformers"))
    return parser


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.set_defaults(command=_bench)
    bench.add_argument("--suite", default="cpu", choices=["cpu", "gpu"])
    bench.add_argument("--only", nargs="+", default=[], metavar="PART", help="some parts of the suite, not all")
    bench.add_argument("--rounds", type=_count, help="rounds in which contestants take turns (default 3)")
    bench.add_argument("--steps", type=_count, help="counted steps per measurement (default 20, on a GPU 200)")
    bench.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto: as the suite says")
    bench.add_argument("--imdb", metavar="PATH", help="hub id or folder of IMDb; without, ids are generated")
    bench.add_argument("--multi30k", metavar="PATH", help="hub id or folder of Multi30k; without, ids are generated")
    bench.add_argument("-o", "--output", type=Path, help="folder (default: outputs/bench/<date>-<time>)")
    bench.add_argument("--dry-run", action="store_true", help="walk through everything, tiny, in seconds")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _common(parser: argparse.ArgumentParser, command: object) -> None:
    parser.set_defaults(command=command)
    parser.add_argument("run", metavar="RUN", help="a run folder, e.g. outputs/runs/<date>/<time>-...")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--checkpoint", default="best", choices=["best", "last"])


def _ensemble(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ensemble",
        action="append",
        default=[],
        metavar="RUN",
        help="one more run (may be repeated); the mean of all probabilities decides",
    )


def _decoding(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--beam", type=_count, help="unfinished translations kept (default: the run's decode.beam)")
    parser.add_argument(
        "--length-penalty",
        type=float,
        help="candidates of a beam are ranked by log probability / tokens ** this (default: the run's)",
    )


def _predictor(options: argparse.Namespace) -> Predictor:
    """The run, in a process that is set up as for training."""
    from minitx.predictor import Predictor
    from minitx.training.device import prepare_process

    ensemble = getattr(options, "ensemble", [])
    predictor = Predictor.from_run(options.run, options.device, options.checkpoint, ensemble)
    prepare_process(predictor.config.trainer.speed, predictor.device, predictor.config.trainer.threads)
    return _decoding_as_asked(predictor, options)


def _decoding_as_asked(predictor: Predictor, options: argparse.Namespace) -> Predictor:
    asked = {key: getattr(options, key, None) for key in ("beam", "length_penalty", "n_best")}
    given = [f"--{key.replace('_', '-')} ({value})" for key, value in asked.items() if value is not None]
    if given and predictor.codec.task != "translation":
        raise ConfigError(f"{given[0]} must be left out, because {options.run} is no translator; drop it")
    changes = {key: value for key, value in asked.items() if value is not None and key != "n_best"}
    return predictor.with_decoding(**changes)


def _predict(options: argparse.Namespace) -> None:
    predictor = _predictor(options)
    predictor.check_answers()
    progress, n_cut = LineProgress(silent=bool(options.text)), 0
    for chunk in chunks(options.text or read_lines(), _chunk_size(predictor.decode.beam)):
        if options.n_best is None:
            answers = predictor.predict(chunk)
        else:
            found = enumerate(predictor.n_best(chunk, options.n_best), start=progress.n_lines + 1)
            answers = [f"{number}\t{c.score:.4f}\t{c.text}" for number, best in found for c in best]
        _print_lines(answers)
        n_cut += predictor.n_cut(chunk)
        progress.advance(len(chunk))
    progress.close()
    if n_cut:
        from minitx.data.pipeline.encode import KEPT

        limit = f"data.max_length ({predictor.codec.max_length} tokens)"
        kept = f"of them the {KEPT[predictor.codec.truncate]} tokens were read"
        print(f"warning: {n_cut:,} of {progress.n_lines:,} texts are longer than {limit}; {kept}", file=sys.stderr)


def _chunk_size(beam: int) -> int:
    """One line where a person types, who waits for its answer."""
    return 1 if sys.stdin.isatty() else max(MIN_CHUNK_LINES, CHUNK_LINES // beam)


def _print_lines(lines: Sequence[str]) -> None:
    print("".join(f"{line}\n" for line in lines), end="", flush=True)


def _score(options: argparse.Namespace) -> None:
    predictor = _predictor(options)
    if predictor.codec.task != "translation":
        raise ConfigError(f"RUN ({options.run}) must be a translator, its task is {predictor.codec.task}")
    if len(options.pair) not in (0, 2):
        raise ConfigError(f"score ({len(options.pair)} texts) must be given a text and its translation; quote each")
    pairs = [(options.pair[0], options.pair[1])] if options.pair else map(_pair, enumerate(read_lines(), start=1))
    progress = LineProgress(silent=bool(options.pair))
    for chunk in chunks(pairs, _chunk_size(1)):
        texts, translations = zip(*chunk, strict=True)
        scored = predictor.score(texts, translations, first=progress.n_lines + 1)
        _print_lines([f"{s.log_prob:.6f}\t{s.n_tokens}" for s in scored])
        progress.advance(len(chunk))
    progress.close()


def _pair(numbered: tuple[int, str]) -> tuple[str, str]:
    number, line = numbered
    text, tab, translation = line.partition("\t")
    if not tab:
        raise ConfigError(f"line {number:,} ({line:.40}) must be a text, a tab and its translation")
    return text, translation


def _evaluate(options: argparse.Namespace) -> None:
    from minitx.metrics.class_report import N_HARDEST
    from minitx.training.console import Reporter
    from minitx.training.display import HARDEST, say_classes, shown_metric

    predictor = _predictor(options)
    _check_detail(predictor, options)
    if options.against is not None:
        _compare(predictor, options)
        return
    report = None
    if predictor.codec.task == "classification":
        report = predictor.report(options.split, options.overrides, max(N_HARDEST, options.hardest or 0))
    evaluation = report.evaluation if report else predictor.evaluate(options.split, options.overrides)
    rows = [[name, shown_metric(evaluation, name)] for name in evaluation.metrics]
    reporter = Reporter()
    columns = ["metric", "value [95 % interval]"]
    title = f"{_described(predictor, options)}, {len(evaluation.rows):,} {options.split} rows"
    reporter.table(title, columns, [*rows, ["loss", f"{evaluation.loss:.4f}"]])
    _say_signatures(reporter, evaluation)
    if report is not None:
        most = len(report.classes) if options.per_class else WORST_CLASSES
        n_hardest = options.hardest or HARDEST
        say_classes(reporter, report, options.split, most=most, n_hardest=n_hardest, all_of_them="--per-class")
        if options.output is not None:
            _write_report(report, options)


def _check_detail(predictor: Predictor, options: argparse.Namespace) -> None:
    """What is asked of one classifier alone is not asked of others, nor of two runs."""
    asked = {"--per-class": options.per_class, "--hardest": options.hardest, "--output": options.output}
    given = [name if value is True else f"{name} ({value})" for name, value in asked.items() if value]
    if given and predictor.codec.task != "classification":
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
    other = _decoding_as_asked(other, options)
    mine, theirs, differences = predictor.compare(other, options.split, options.overrides)
    reporter = Reporter()
    scores = [[name, shown_metric(mine, name), shown_metric(theirs, name)] for name in differences]
    title = f"{len(mine.rows):,} {options.split} rows of {predictor.config.data.name}"
    reporter.table(title, ["metric", "A [95 % interval]", "B [95 % interval]"], scores)
    rows = [[name, *shown_difference(mine, name, difference)] for name, difference in differences.items()]
    reporter.table("paired comparison", ["metric", "A - B [95 % interval]", "p"], rows)
    reporter.say(f"A: {_described(predictor, options)}\nB: {_described(other, options)}")
    reporter.say("intervals: bootstrap over rows, the difference's paired; p: paired randomisation test, two-sided")
    if predictor.codec.task == "classification":
        found = mcnemar(mine, theirs)
        alone = f"A alone right: {found.a_alone:,} rows, B alone right: {found.b_alone:,} rows"
        reporter.say(f"{alone}; McNemar's exact test, two-sided: p {found.p_value:.4f}")
    _say_signatures(reporter, mine)


def _described(predictor: Predictor, options: argparse.Namespace) -> str:
    """Which runs, which checkpoint, and how they write."""
    from minitx.training.display import shown_decoding

    runs = " + ".join([str(predictor.folder.path), *(options.ensemble if len(predictor.models) > 1 else [])])
    what = [runs, f"{options.checkpoint} checkpoint"]
    if predictor.codec.task == "translation":
        what.append(shown_decoding(predictor.decode))
    return ", ".join(what)


def _say_signatures(reporter: Reporter, evaluation: Evaluation) -> None:
    for name, interval in evaluation.metrics.items():
        if interval.signature:
            reporter.say(f"{name} signature: {interval.signature}")


def _inspect(options: argparse.Namespace) -> None:
    if not options.text and not options.heads:
        raise ConfigError("inspect must be given a text, or --heads, or both")
    output = options.output or Path(options.run) / "inspect.html"
    predictor = _predictor(options)
    page = predictor.inspect(*options.text) if options.text else None
    try:
        if options.heads:
            _inspect_heads(predictor, output.with_name("heads.json"), options)
        if page is not None:
            output.write_text(page, encoding="utf-8")
            print(output)
    except OSError as error:
        raise ConfigError(f"--output ({output}) must be a file that can be written ({error.strerror})") from None


def _inspect_heads(predictor: Predictor, file: Path, options: argparse.Namespace) -> None:
    from minitx.training.console import Reporter
    from minitx.training.display import say_heads
    from minitx.training.run_folder import write_json

    report = predictor.lens(options.split, options.rows)
    write_json(file, {"split": options.split, **report.to_json()})
    say_heads(Reporter(), report, f"{report.n_rows:,} {options.split} rows")
    print(file)


def _match(options: argparse.Namespace) -> None:
    from minitx.cli.match import match_run

    found = match_run(options.model, options.like, options.overrides)
    print(" ".join(found.overrides))
    sizes = f"{found.size:,} non-embedding parameters, {found.target:,} in {options.like}"
    print(f"# {sizes}: {100 * found.difference:+.2f} %")


def _report(options: argparse.Namespace) -> None:
    from minitx.report import read_ledger, write_report
    from minitx.report.write import say_ledger
    from minitx.training.console import Reporter

    ledger = read_ledger(options.folder)
    written = write_report(ledger, options.output or options.folder / "report")
    say_ledger(Reporter(), ledger)
    _print_lines([str(path) for path in written])


def _bench(options: argparse.Namespace) -> None:
    from minitx.bench.plan import Options
    from minitx.bench.suite import run_suite

    chosen = {key: value for key, value in vars(options).items() if key != "command"}
    run_suite(Options(**{**chosen, "only": tuple(options.only)}))


if __name__ == "__main__":
    main()
