"""A run's losses along training, and what stands where a loss first falls to a level."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from minitx.training.results import TRAIN_JUDGED


def losses_of(path: Path, split: str) -> dict[int, float]:
    """Step -> loss of a run: of `validation`, or of the training rows that were judged as validation is."""
    name = TRAIN_JUDGED if split == "train" else split
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["split"] == name}


def at_level(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """What stands beside the loss where it first falls to `level`, between two points in proportion.

    curve: (loss, anything) along training. None where it begins below, or never gets there.
    """
    for (loss_a, other_a), (loss_b, other_b) in itertools.pairwise(curve):
        if loss_a > level >= loss_b:
            return other_a + (loss_a - level) / (loss_a - loss_b) * (other_b - other_a)
    return None
