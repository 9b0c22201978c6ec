"""Heads of one layer and of two seeds are compared like with like."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from study_helpers import composer

from minitx.studies.head_measures import add_across, nearest_between, nearest_within
from minitx.sweeps.cells import MEASURES, add_measures, read_measures
from minitx.training.run import run


def test_the_nearest_is_the_best_of_as_many_on_either_side() -> None:
    drawn = np.random.default_rng(0).random((5, 5))
    within = [max(drawn[h, g] for g in range(5) if g != h) for h in range(5)]
    assert nearest_within(drawn) == pytest.approx(np.mean(within))
    between = [max(drawn[h, g] for g in range(5) if g != out) for h in range(5) for out in range(5)]
    assert nearest_between(drawn) == pytest.approx(np.mean(between))
    assert math.isnan(nearest_within(drawn[:1, :1])) and math.isnan(nearest_between(drawn[:1, :1]))


def test_alike_heads_are_as_alike_between_models_as_within() -> None:
    """Heads of two models drawn alike: the difference is 0 to within what chance leaves of 4,000 draws."""
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(4000):
        heads = rng.normal(size=(8, 7))
        heads /= np.linalg.norm(heads, axis=1, keepdims=True)
        similarity = (heads @ heads.T) ** 2
        gaps.append(nearest_between(similarity[:4, 4:]) - nearest_within(similarity[:4, :4]))
    assert abs(np.mean(gaps)) < 4 * np.std(gaps) / len(gaps) ** 0.5


def test_runs_of_other_seeds_are_compared_anew(tiny_classes: dict[str, Any], tmp_path: Any) -> None:
    """The next seed's run is another one where there are more seeds."""
    paths = [tmp_path / str(seed) for seed in range(3)]
    for seed, path in enumerate(paths):
        run(composer(tiny_classes)(["trainer.max_steps=2", "model.n_layers=1", f"seed={seed}"]), path, quiet=True)
    add_measures(paths[0], [MEASURES[name] for name in ("heads", "field")])
    add_across(paths[:2])
    before = read_measures(paths[1])
    add_across(paths)
    found = read_measures(paths[0])
    assert found["across.maps_less"] == pytest.approx(found["across.alike_maps"] - found["heads.alike_maps"])
    assert read_measures(paths[1])["across.alike_outputs"] != before["across.alike_outputs"]
    assert 1 <= found["field.width"] <= 2 * found["field.reach"] + 1
