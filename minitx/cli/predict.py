"""`minitx predict`: label or translate texts."""

from __future__ import annotations

import argparse
import sys

from minitx.cli import shared


def add_parser(commands: shared.Commands) -> None:
    """Register the command and its options."""
    parser = shared.add_command(commands, "predict", run, "label or translate texts", "minitx predict RUN 'attention'")
    shared.add_run_options(parser, ensemble=True, decoding=True)
    parser.add_argument("text", nargs="*", help="texts; without any, the lines of standard input")
    parser.add_argument(
        "--n-best",
        type=shared.count,
        metavar="N",
        help="the N best of each, as line number, score and text; widens the beam",
    )


def run(options: argparse.Namespace) -> None:
    """One line per text, or `n_best` of them; texts that were cut are counted in a warning at the end."""
    predictor = shared.load_predictor(options)
    predictor.check_predicts()
    progress, n_cut = shared.LineProgress(silent=bool(options.text)), 0
    for chunk in shared.chunks(options.text or shared.read_lines(), shared.chunk_size(predictor.decode.beam)):
        if options.n_best is None:
            lines = predictor.predict(chunk)
        else:
            found = enumerate(predictor.n_best(chunk, options.n_best), start=progress.n_lines + 1)
            lines = [f"{number}\t{c.score:.4f}\t{c.text}" for number, best in found for c in best]
        shared.print_lines(lines)
        n_cut += predictor.n_cut(chunk)
        progress.advance(len(chunk))
    progress.close()
    if n_cut:
        from minitx.data.pipeline.encode import KEPT

        limit = f"data.max_length ({predictor.processor.max_length} tokens)"
        kept = f"of them the {KEPT[predictor.processor.truncate]} tokens were read"
        print(f"warning: {n_cut:,} of {progress.n_lines:,} texts are longer than {limit}; {kept}", file=sys.stderr)
