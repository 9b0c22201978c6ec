"""`minitx tour`: half a minute of training, and Q, K and V explained on one attention map, in the terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from minitx.cli.shared import Commands, add_command, count

SECONDS = 25


def add_parser(commands: Commands) -> None:
    """Register the command and its options."""
    summary = "a first tour: train on handwritten digits, and see what Q, K and V are"
    parser = add_command(commands, "tour", run, summary, "minitx tour --language zh")
    parser.add_argument("--language", choices=["en", "zh"], default="en")
    parser.add_argument("--seconds", type=count, default=SECONDS, help=f"of training (default {SECONDS})")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("outputs/tour"), metavar="FOLDER",
        help="the run's folder; a tour that was there before is not trained again (default: outputs/tour)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> None:
    """Train and tell."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        "注意力".encode(encoding if options.language == "zh" else "utf-8")
    except UnicodeEncodeError:
        from minitx.config import rule

        must = f"be one that this terminal can show (its encoding is {encoding})"
        raise rule("--language", options.language, must, "set PYTHONIOENCODING=utf-8, or leave it out") from None
    from minitx.tour import tour

    tour(options.output, options.language, options.seconds, lambda text: print(text, flush=True))
