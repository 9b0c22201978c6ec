"""`minitx bench`: speed and memory on this machine, beside torch's own layers and transformers."""

from __future__ import annotations

import argparse
from pathlib import Path

from minitx.cli.shared import Commands, add_command
from minitx.cli.shared import count as _count


def add_parser(commands: Commands) -> None:
    """Register the command and its options."""
    summary = "speed and memory beside torch's layers and transformers"
    _add_bench(add_command(commands, "bench", _bench, summary, "minitx bench --dry-run"))


def _add_bench(bench: argparse.ArgumentParser) -> None:
    bench.set_defaults(command=_bench)
    bench.add_argument("--suite", default="cpu", choices=["cpu", "gpu"])
    bench.add_argument("--minutes", type=float, default=8.0, help="gpu suite: all parts together (default 8)")
    bench.add_argument("--only", nargs="+", default=[], metavar="PART", help="some parts of the suite, not all")
    bench.add_argument("--rounds", type=_count, help="rounds in which contestants take turns (default 3)")
    bench.add_argument("--steps", type=_count, help="counted steps per measurement (default 20, on a GPU 100)")
    bench.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto: as the suite says")
    bench.add_argument("--imdb", metavar="PATH", help="hub id or folder of IMDb; without, ids are generated")
    bench.add_argument("--multi30k", metavar="PATH", help="hub id or folder of Multi30k; without, ids are generated")
    bench.add_argument("-o", "--output", type=Path, help="folder; one with a bench.json goes on with what is missing")
    bench.add_argument("--dry-run", action="store_true", help="walk through everything, tiny, in seconds")


def _bench(options: argparse.Namespace) -> None:
    from minitx.bench.jobs import Options
    from minitx.bench.suite import run_suite

    chosen = {key: value for key, value in vars(options).items() if key != "command"}
    run_suite(Options(**{**chosen, "only": tuple(options.only)}))
