"""Heads of one layer and of two seeds are compared like with like."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from study_helpers import composer

from minitx.nn.classifier import Classifier
from minitx.studies.head_measures import _interventions, add_across, loaded, nearest_between, nearest_within
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


def test_seeds_are_compared_in_disjoint_pairs(tiny_classes: dict[str, Any], tmp_path: Any) -> None:
    """Five runs give two pairs; the fifth is in none, and pairs stay as they are where runs are added."""
    paths = [tmp_path / str(seed) for seed in range(5)]
    for seed, path in enumerate(paths):
        run(composer(tiny_classes)(["trainer.max_steps=2", "model.n_layers=1", f"seed={seed}"]), path, quiet=True)
    add_measures(paths[0], [MEASURES[name] for name in ("heads", "field")])
    add_across(paths[:2])
    before = read_measures(paths[0])
    add_across(paths)
    found = read_measures(paths[0])
    assert found == before
    assert found["across.maps_less"] == pytest.approx(found["across.alike_maps"] - found["heads.alike_maps"])
    assert ["across.maps_less" in read_measures(path) for path in paths] == [True, False, True, False, False]
    assert 1 <= found["field.width"] <= 2 * found["field.reach"] + 1


def test_an_answer_follows_the_values_where_only_they_differ(tiny_classes: dict[str, Any], tmp_path: Any) -> None:
    """By hand: weights that are all alike carry nothing, so every answer follows what is read; and a head that reads
    nothing leaves no two texts of different classes."""
    overrides = ["model.pooling=attention", "model.n_layers=1", "trainer.max_steps=200", "optim.lr=0.02"]
    run(composer(tiny_classes)(overrides), tmp_path, quiet=True)
    model, _ = loaded(tmp_path)
    assert isinstance(model, Classifier)
    states = torch.randn(7, 5, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        model.pooling.query.zero_()
        n, (by_values, by_weights) = _interventions(model, states)
        own = model.head(states.mean(1)).argmax(1)
        assert n == int((own != own.roll(1)).sum()) == by_values > 0 and by_weights == 0
        model.head.weight.zero_()
        assert _interventions(model, states)[0] == 0
    add_measures(tmp_path, [MEASURES["roles"]])
    found = read_measures(tmp_path)
    assert (
        found["roles.pairs"] > 0 and 0 <= found["roles.follows_keys"] <= 1 and 0 <= found["roles.follows_values"] <= 1
    )
