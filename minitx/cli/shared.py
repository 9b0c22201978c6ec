"""What several commands share: options of a trained run, loading it, and standard input as lines of text."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from minitx.errors import ConfigError

if TYPE_CHECKING:
    from minitx.predictor import Predictor

Commands = Any
"""What `argparse.ArgumentParser.add_subparsers` returns; its class has no public name."""
Item = TypeVar("Item")

CHUNK_LINES = 2048
"""Lines of standard input that go through the model together; fewer with a beam, so that output keeps coming."""
MIN_CHUNK_LINES = 256
SECONDS_BETWEEN_LINES = 10.0
"""Of progress, where no live line can be shown."""


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], None], summary: str, example: str
) -> argparse.ArgumentParser:
    """A subcommand `name`, which calls `run`; its help ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def count(text: str) -> int:
    """An argument that must be a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def add_run_options(parser: argparse.ArgumentParser, *, ensemble: bool = False, decoding: bool = False) -> None:
    """RUN, --device and --checkpoint; and --ensemble; and how a translator decodes."""
    parser.add_argument("run", metavar="RUN", help="a run folder, e.g. outputs/runs/<date>/<time>-...")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--checkpoint", default="best", choices=["best", "last"])
    if ensemble:
        more = "one more run (may be repeated); the mean of all probabilities decides"
        parser.add_argument("--ensemble", action="append", default=[], metavar="RUN", help=more)
    if decoding:
        kept = "unfinished translations kept (default: the run's decode.beam)"
        ranked = "candidates of a beam are ranked by log probability / tokens ** this (default: the run's)"
        parser.add_argument("--beam", type=count, help=kept)
        parser.add_argument("--length-penalty", type=float, help=ranked)


def load_predictor(options: argparse.Namespace) -> Predictor:
    """The run, in a process that is set up as for training."""
    from minitx.predictor import Predictor
    from minitx.training.device import prepare_process

    ensemble = getattr(options, "ensemble", [])
    predictor = Predictor.from_run(options.run, options.device, options.checkpoint, ensemble)
    prepare_process(predictor.config.trainer.speed, predictor.device, predictor.config.trainer.threads)
    return with_decoding_options(predictor, options)


def with_decoding_options(predictor: Predictor, options: argparse.Namespace) -> Predictor:
    """The same run, decoding as the options ask."""
    asked = {key: getattr(options, key, None) for key in ("beam", "length_penalty", "n_best")}
    given = [f"--{key.replace('_', '-')} ({value})" for key, value in asked.items() if value is not None]
    if given and predictor.processor.task != "translation":
        raise ConfigError(f"{given[0]} must be left out, because {options.run} is no translator; drop it")
    changes = {key: value for key, value in asked.items() if value is not None and key != "n_best"}
    return predictor.with_decoding(**changes)


def read_lines() -> Iterator[str]:
    """Lines of standard input without their ends; one that is not UTF-8 is a ConfigError, whatever the locale."""
    for number, raw in enumerate(sys.stdin.buffer, start=1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"line {number:,} of standard input must be UTF-8 text; {error.reason}") from None


def print_lines(lines: Sequence[str]) -> None:
    """Lines on standard output, at once."""
    print("".join(f"{line}\n" for line in lines), end="", flush=True)


def chunk_size(beam: int = 1) -> int:
    """Lines that go through the model together; one where a person types, who waits for its output."""
    return 1 if sys.stdin.isatty() else max(MIN_CHUNK_LINES, CHUNK_LINES // beam)


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


class LineProgress:
    """Number of lines done and their speed, on the error stream: one live line in a terminal whose output goes
    elsewhere, else a new line now and then."""

    def __init__(self, silent: bool = False) -> None:
        self.n_lines, self.silent = 0, silent
        self._live = sys.stderr.isatty() and not sys.stdout.isatty()
        self._start = self._last = time.monotonic()

    def advance(self, n_lines: int) -> None:
        """Count `n_lines` more."""
        self.n_lines += n_lines
        now = time.monotonic()
        if self.silent or not (self._live or now - self._last >= SECONDS_BETWEEN_LINES):
            return
        self._last = now
        line = f"{self.n_lines:,} lines answered, {self.n_lines / max(now - self._start, 1e-9):,.0f} per second"
        print(f"\r{line}" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the live line."""
        if self._live and not self.silent and self.n_lines:
            print(file=sys.stderr)
