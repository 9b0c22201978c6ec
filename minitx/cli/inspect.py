"""`minitx inspect`: attention maps of texts as one HTML page, and all heads in numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.cli.shared import Commands, add_command, add_run_options, count, load_predictor
from minitx.errors import ConfigError

if TYPE_CHECKING:
    from minitx.predictor import Predictor


def add_parser(commands: Commands) -> None:
    """Register the command and its options."""
    summary = "one HTML page with every layer and head of a text's attention"
    parser = add_command(commands, "inspect", run, summary, "minitx inspect RUN 'attention' -o attention.html")
    add_run_options(parser)
    parser.add_argument("text", nargs="*", help="one or more; may be left out with --heads")
    parser.add_argument("-o", "--output", type=Path, help="where to write it (default: RUN/inspect.html)")
    beside = "another run of the same task: its maps and probabilities beside RUN's"
    parser.add_argument("--against", metavar="RUN", help=beside)
    parser.add_argument("--heads", action="store_true", help="a table of all heads, and heads.json beside the page")
    parser.add_argument("--split", default="validation", choices=["train", "validation", "test"], help="for --heads")
    parser.add_argument("--rows", type=count, default=256, metavar="N", help="rows for --heads (default 256)")


def run(options: argparse.Namespace) -> None:
    """Write the page, the statistics of heads, or both, and print where they are."""
    if not options.text and not options.heads:
        raise ConfigError("inspect must be given a text, or --heads, or both")
    if options.against is not None and not options.text:
        raise ConfigError("--against must be given with a text, because only maps of texts stand side by side")
    output = options.output or Path(options.run) / "inspect.html"
    predictor = load_predictor(options)
    page = None
    if options.text:
        from minitx.predictor import Predictor

        other = options.against and Predictor.from_run(options.against, options.device, options.checkpoint)
        page = predictor.inspect(*options.text, against=other)
    try:
        if options.heads:
            _write_heads(predictor, output.with_name("heads.json"), options)
        if page is not None:
            output.write_text(page, encoding="utf-8")
            print(output)
    except OSError as error:
        raise ConfigError(f"--output ({output}) must be a file that can be written ({error.strerror})") from None


def _write_heads(predictor: Predictor, file: Path, options: argparse.Namespace) -> None:
    from minitx.training.console import Reporter
    from minitx.training.display import show_heads
    from minitx.training.run_folder import write_json

    report = predictor.head_statistics(options.split, options.rows)
    write_json(file, {"split": options.split, **report.to_json()})
    show_heads(Reporter(), report, f"{report.n_rows:,} {options.split} rows")
    print(file)
