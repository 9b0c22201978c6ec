"""The entry of the `minitx` command: its arguments, and a user's mistake as one line. Each command is a file here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from minitx.cli import bench, doctor, evaluate, export, inspect, match, predict, report, score, serve, tour
from minitx.errors import ConfigError, RunError, memory_line
from minitx.openmp import bound_waiting

COMMANDS = (predict, score, evaluate, inspect, serve, export, match, report, bench, tour, doctor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. A user's mistake is one line on the error stream."""
    bound_waiting()
    options = _parse(arguments)
    try:
        options.command(options)
    except (ConfigError, RunError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except (RuntimeError, MemoryError) as error:
        line = memory_line(error)
        if line is None:
            raise
        print(line, file=sys.stderr)
        sys.exit(RunError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        sys.stderr.close()
        sys.exit(0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """argparse stops collecting positional arguments at the first option; those that come later are added here."""
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
        if any("\ud800" <= char <= "\udfff" for argument in many for char in argument):
            parser.error("texts must be UTF-8")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minitx",
        description="Use a trained run: predict, score, evaluate, inspect, serve, export. Report on studies: report. "
        "Measure this machine: bench. Describe it, for a report of a bug: doctor. New here: tour.",
        epilog="Training is `python train.py`. `minitx COMMAND --help` shows a command's options and an example.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser
