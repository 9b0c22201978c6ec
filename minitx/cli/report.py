"""`minitx report`: the verdicts of a folder of studies, as a page, Markdown and JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from minitx.cli.shared import Commands, add_command, print_lines


def add_parser(commands: Commands) -> None:
    """Register the command and its options."""
    summary = "verdicts of a folder of studies: a page, Markdown and claims.json"
    parser = add_command(commands, "report", run, summary, "minitx report outputs/studies")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of all studies, e.g. outputs/studies")
    parser.add_argument("--language", choices=("en", "zh"), default="en", help="of the report: English or Chinese")
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="where to write (default: FOLDER/report)")


def run(options: argparse.Namespace) -> None:
    """Write the report; print the verdicts, then the files written."""
    from minitx.report import read_ledger, write_report
    from minitx.report.phrases import speaking
    from minitx.report.write import print_ledger
    from minitx.training.console import Reporter

    ledger = read_ledger(options.folder)
    with speaking(options.language):
        written = write_report(ledger, options.output or options.folder / "report")
        print_ledger(Reporter(), ledger)
    print_lines([str(path) for path in written])
