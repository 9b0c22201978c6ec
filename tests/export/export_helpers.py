"""Tiny runs to export, and calling what was exported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study_helpers import composer
from tiny import TINY_TRAINER

from minitx.config.load import load
from minitx.training.run import run

TEXTS = ["red lamp", "a river of stone green", "blue " * 20, "quickly [PAD] of", "", "Red. a lamp! of? stone", " . x. "]


def train_classifier(classes: dict[str, Any], overrides: list[str], folder: Path) -> Path:
    """A run of a net of eight steps, or of model=linear."""
    if overrides == ["model=linear"]:
        config = load({"data": classes, "model": {"kind": "linear"}, "trainer": {**TINY_TRAINER}})
    else:
        config = composer(classes)([*overrides, "trainer.max_steps=8", "trainer.eval_every=8"])
    run(config, folder, quiet=True)
    return folder


def answers_of_script(folder: Path, texts: Sequence[str]) -> list[list[str]]:
    """The fields of each line that the folder's script prints, called from elsewhere."""
    script = (folder / "run.py").read_text()
    assert "minitx" not in script and "torch" not in script
    called = subprocess.run(
        [sys.executable, str(folder / "run.py"), *texts], capture_output=True, text=True, check=True, cwd=folder.parent
    )
    return [line.split("\t") for line in called.stdout.split("\n")[:-1]]
