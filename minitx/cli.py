"""The `minitx` command: what one does with a trained run. Training itself is `python train.py`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from minitx.errors import ConfigError, RunError

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
    parser = argparse.ArgumentParser(prog="minitx", description="Use a trained run: predict, evaluate, inspect.")
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
    return parser


def _common(parser: argparse.ArgumentParser, command: object) -> None:
    parser.set_defaults(command=command)
    parser.add_argument("run", metavar="RUN", help="a run folder, e.g. outputs/runs/<date>/<time>-...")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--checkpoint", default="best", choices=["best", "last"])


def _predict(options: argparse.Namespace) -> None:
    from minitx.predictor import Predictor

    predictor = Predictor.from_run(options.run, options.device, options.checkpoint)
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
    from minitx.predictor import Predictor
    from minitx.training.console import Reporter
    from minitx.training.show import shown_metric

    predictor = Predictor.from_run(options.run, options.device, options.checkpoint)
    evaluation = predictor.evaluate(options.split, options.overrides)
    rows = [[name, shown_metric(evaluation, name)] for name in evaluation.metrics]
    title = f"{options.run}, {options.checkpoint} checkpoint, {len(evaluation.rows):,} {options.split} rows"
    reporter = Reporter()
    reporter.table(title, ["metric", "value [95 % interval]"], [*rows, ["loss", f"{evaluation.loss:.4f}"]])
    for name, interval in evaluation.metrics.items():
        if interval.signature:
            reporter.say(f"{name} signature: {interval.signature}")


def _inspect(options: argparse.Namespace) -> None:
    from minitx.predictor import Predictor

    output = options.output or Path(options.run) / "inspect.html"
    page = Predictor.from_run(options.run, options.device, options.checkpoint).inspect(options.text)
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--output ({output}) must be a file that can be written ({error.strerror})") from None
    print(output)


if __name__ == "__main__":
    main()
