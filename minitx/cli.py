"""The `minitx` command: what one does with a trained run. Training itself is `python train.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.errors import ConfigError, RunError

if TYPE_CHECKING:
    from minitx.predictor import Predictor

CHUNK_LINES = 2048
"""Lines of standard input translated together."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; a user's mistake is one line on the error stream."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (ConfigError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except UnicodeDecodeError as error:
        print(f"standard input must be UTF-8 text; byte {error.start} is not", file=sys.stderr)
        sys.exit(ConfigError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minitx", description="Use a trained run: predict, evaluate, inspect. Measure this machine: bench."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    predict = commands.add_parser("predict", help="label or translate texts")
    _common(predict, _predict)
    predict.add_argument("text", nargs="*", help="texts; without any, the lines of standard input")

    evaluate = commands.add_parser("evaluate", help="metrics of the best checkpoint, with intervals")
    _common(evaluate, _evaluate)
    evaluate.add_argument("overrides", nargs="*", help="other data or settings, e.g. data.path=other/folder")
    evaluate.add_argument("--split", default="test", choices=["train", "validation", "test"])

    inspect = commands.add_parser("inspect", help="one HTML page with every layer and head of a text's attention")
    _common(inspect, _inspect)
    inspect.add_argument("text")
    inspect.add_argument("-o", "--output", type=Path, help="where to write it (default: RUN/inspect.html)")

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


def _predictor(options: argparse.Namespace) -> Predictor:
    """The run, in a process that is set up as for training."""
    from minitx.predictor import Predictor
    from minitx.training.process import prepare_process

    predictor = Predictor.from_run(options.run, options.device, options.checkpoint)
    prepare_process(predictor.config.trainer.speed, predictor.device, predictor.config.trainer.threads)
    return predictor


def _predict(options: argparse.Namespace) -> None:
    predictor = _predictor(options)
    texts = options.text or (line.rstrip("\r\n") for line in sys.stdin)
    for chunk in _chunks(texts, CHUNK_LINES):
        for prediction in predictor.predict(chunk):
            print(prediction)
        sys.stdout.flush()


def _chunks(items: Iterable[str], size: int) -> Iterable[list[str]]:
    chunk: list[str] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _evaluate(options: argparse.Namespace) -> None:
    from minitx.training.console import Reporter
    from minitx.training.show import shown_metric

    predictor = _predictor(options)
    evaluation = predictor.evaluate(options.split, options.overrides)
    rows = [[name, shown_metric(evaluation, name)] for name in evaluation.metrics]
    title = f"{options.run}, {options.checkpoint} checkpoint, {len(evaluation.rows):,} {options.split} rows"
    reporter = Reporter()
    reporter.table(title, ["metric", "value [95 % interval]"], [*rows, ["loss", f"{evaluation.loss:.4f}"]])
    for name, interval in evaluation.metrics.items():
        if interval.signature:
            reporter.say(f"{name} signature: {interval.signature}")


def _inspect(options: argparse.Namespace) -> None:
    output = options.output or Path(options.run) / "inspect.html"
    page = _predictor(options).inspect(options.text)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output ({output}) must be a file that can be written ({error.strerror})") from None
    print(output)


def _bench(options: argparse.Namespace) -> None:
    from minitx.bench.plan import Options
    from minitx.bench.suite import run_suite

    chosen = {key: value for key, value in vars(options).items() if key != "command"}
    run_suite(Options(**{**chosen, "only": tuple(options.only)}))


if __name__ == "__main__":
    main()
