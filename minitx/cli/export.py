"""`minitx export`: a run as a folder for the hub, programs of torch or ONNX, or arrays."""

from __future__ import annotations

import argparse
from pathlib import Path

from minitx.cli.shared import Commands, add_command, print_lines

FORMS = ("hub", "torch", "onnx", "numpy")


def add_parser(commands: Commands) -> None:
    """Register the command and its options."""
    summary = "a run as a folder for the hub, with programs of torch or ONNX, or with arrays for numpy"
    parser = add_command(commands, "export", run, summary, "minitx export RUN -o my_model --to onnx")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--to", choices=FORMS, default="hub", help="hub: any run; torch and onnx: nets; numpy: model=linear"
    )
    parser.add_argument("--push", metavar="USER/NAME", help="upload the folder to the hub under this name")


def run(options: argparse.Namespace) -> None:
    """Write the folder, and upload it where that is asked for; print the files written."""
    from minitx.export.hub import push
    from minitx.export.write import export_run

    print_lines([str(path) for path in export_run(options.run, options.output, options.to)])
    if options.push is not None:
        print_lines([push(options.output, options.push)])
