"""`minitx predict`: label or translate texts."""

from __future__ import annotations

import argparse
import json
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
    parser.add_argument("--json", action="store_true", help="a JSON object a line, with the answer as it is")


def run(options: argparse.Namespace) -> None:
    """One line per text, or `n_best` of them; texts and outputs that were cut are counted in warnings at the end.

    A line break inside an answer is written as \\n, so that answers and lines agree.
    """
    predictor = shared.load_predictor(options)
    predictor.check_predicts()
    progress, n_cut, n_cut_off = shared.LineProgress(silent=bool(options.text)), 0, 0
    for chunk in shared.chunks(options.text or shared.read_lines(), shared.chunk_size(predictor.decode.beam)):
        if options.n_best is None:
            answers = predictor.answers(chunk)
            n_cut_off += sum(answer.cut_off for answer in answers)
            lines = [_answer(answer.text, options.json) for answer in answers]
        else:
            candidates = predictor.n_best(chunk, options.n_best)
            n_cut_off += sum(best[0].cut_off for best in candidates if best)
            found = enumerate(candidates, start=progress.n_lines + 1)
            lines = [_candidate(number, c.score, c.text, options.json) for number, best in found for c in best]
        shared.print_lines(lines)
        n_cut += predictor.n_cut(chunk)
        progress.advance(len(chunk))
    progress.close()
    if n_cut:
        from minitx.data.pipeline.encode import KEPT

        limit = f"data.max_length ({predictor.processor.max_length} tokens)"
        kept = f"of them the {KEPT[predictor.processor.truncate]} tokens were read"
        print(f"warning: {n_cut:,} of {progress.n_lines:,} texts are longer than {limit}; {kept}", file=sys.stderr)
    if n_cut_off:
        was = "outputs were cut off at the limit on their length, before the model had ended them"
        print(f"warning: {n_cut_off:,} of {progress.n_lines:,} {was}", file=sys.stderr)


def _answer(text: str, as_json: bool) -> str:
    return json.dumps({"text": text}, ensure_ascii=False) if as_json else one_line(text)


def _candidate(number: int, score: float, text: str, as_json: bool) -> str:
    if as_json:
        return json.dumps({"line": number, "score": score, "text": text}, ensure_ascii=False)
    return f"{number}\t{score:.4f}\t{one_line(text)}"


def one_line(text: str) -> str:
    """An answer with its line breaks written as \\n and \\r."""
    return text.replace("\n", "\\n").replace("\r", "\\r")
