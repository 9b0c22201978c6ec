"""A small study on the tiny classes, composed without Hydra, and what runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tiny import TINY_TRAINER

from minitx.config import Config
from minitx.config.load import override_tree
from minitx.studies import timings  # noqa: F401  (registers them)
from minitx.studies.study import Study, load_study
from minitx.sweeps.cells import MEASURES, Cell
from minitx.sweeps.executor import run_cell

CLAIM = {"statement": "More heads raise quality", "prediction": "It helps.", "would_change": "Other data."}


def study(quick: dict[str, Any], **keys: Any) -> Study:
    """A study of claim C8a with this quick tier."""
    return load_study({"name": "tiny", "title": "A tiny study", "claims": {"C8a": CLAIM}, "quick": quick, **keys})


def heads(**changes: Any) -> dict[str, Any]:
    """One against two heads, five seeds."""
    part = {"measure": "test.accuracy", "arm": "wide", "at": 2, "against": "wide", "against_at": 1, "delta": 0.05}
    return {
        "overrides": ["trainer.max_steps=6"],
        "seeds": [0, 1, 2, 3, 4],
        "axis": "model.n_heads",
        "values": [1, 2],
        "arms": {"wide": {}},
        "contrasts": {"C8a": {"more": part}},
        "on_purpose": {"tuning": "nothing is tried here"},
        **changes,
    }


def composer(classes: dict[str, Any]) -> Callable[[Sequence[str]], Config]:
    """`overrides -> Config` upon a tiny classifier; `model=KIND` changes its kind."""

    def compose(overrides: Sequence[str]) -> Config:
        kind = next((o.partition("=")[2] for o in overrides if o.startswith("model=")), "transformer")
        tree = {
            "data": dict(classes),
            "model": {"kind": kind, "d_model": 16, "pooling": "mean"},
            "trainer": {**TINY_TRAINER, "threads": 1},
        }
        return override_tree(tree, [o for o in overrides if not o.startswith("model=")])

    return compose


def time_cell(config: Config, kind: str, path: Path) -> None:
    """Take the timing `kind` of a configuration in the folder `path`."""
    run_cell(Cell(values={}, config=config, timing=MEASURES[kind]), path)


def name_of(config: Config) -> str:
    """A hash of everything, good enough for cells that are not run."""
    import hashlib

    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:8]
