"""`minitx score`: how probable a translator finds given translations."""

from __future__ import annotations

import argparse

from minitx.cli import shared
from minitx.errors import ConfigError


def add_parser(commands: shared.Commands) -> None:
    """Register the command and its options."""
    summary = "log probability of given translations, and their numbers of tokens"
    parser = shared.add_command(commands, "score", run, summary, "minitx score RUN 'bad' 'B AE D'")
    shared.add_run_options(parser, ensemble=True)
    parser.add_argument(
        "pair", nargs="*", help="a text and its translation; without, tab-separated pairs from standard input"
    )


def run(options: argparse.Namespace) -> None:
    """A line per pair: log probability, tab, number of tokens."""
    predictor = shared.load_predictor(options)
    if predictor.processor.task != "translation":
        raise ConfigError(f"RUN ({options.run}) must be a translator, its task is {predictor.processor.task}")
    if len(options.pair) not in (0, 2):
        raise ConfigError(f"score ({len(options.pair)} texts) must be given a text and its translation; quote each")
    pairs = (
        [(options.pair[0], options.pair[1])] if options.pair else map(_pair, enumerate(shared.read_lines(), start=1))
    )
    progress = shared.LineProgress(silent=bool(options.pair))
    for chunk in shared.chunks(pairs, shared.chunk_size()):
        texts, translations = zip(*chunk, strict=True)
        scored = predictor.score(texts, translations, first=progress.n_lines + 1)
        shared.print_lines([f"{s.log_prob:.6f}\t{s.n_tokens}" for s in scored])
        progress.advance(len(chunk))
    progress.close()


def _pair(numbered: tuple[int, str]) -> tuple[str, str]:
    number, line = numbered
    text, tab, translation = line.partition("\t")
    if not tab or "\t" in translation:
        raise ConfigError(f"line {number:,} ({line:.40}) must be a text, a tab and its translation, and nothing more")
    return text, translation
