"""Heads of one layer and of two seeds are compared like with like."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from study_helpers import composer

from minitx.config import ConfigError
from minitx.nn.classifier import Classifier
from minitx.studies.head_measures import (
    add_across,
    interventions,
    loaded,
    nearest_between,
    nearest_within,
    partners,
)
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


def test_a_partner_is_the_next_text_with_another_label() -> None:
    assert partners([0, 0, 1, 2, 2]) == [2, 2, 3, 0, 0]
    assert partners([1, 1, 1]) == [0, 1, 2], "there is none"


def test_an_answer_follows_the_values_where_only_they_differ(tiny_classes: dict[str, Any], tmp_path: Any) -> None:
    """Weights that are all alike carry nothing, so every answer follows the values; where all texts have the same
    values no predictions differ; and a head that reads nothing leaves no two predictions that differ."""
    overrides = ["model.pooling=attention", "model.n_layers=1", "trainer.max_steps=200", "optim.lr=0.02"]
    run(composer(tiny_classes)(overrides), tmp_path, quiet=True)
    model, _ = loaded(tmp_path)
    assert isinstance(model, Classifier) and model.pooling.query is not None
    states = torch.randn(7, 5, 16, generator=torch.Generator().manual_seed(3))
    partner = [1, 2, 3, 4, 5, 6, 0]
    with torch.no_grad():
        model.pooling.query.zero_()
        n, (by_values, by_keys) = interventions(model, states, partner)
        own = model.head(states.mean(1)).argmax(1)
        assert n == int((own != own[partner]).sum()) == by_values > 0 and by_keys == 0
        model.head.weight.zero_()
        assert interventions(model, states, partner)[0] == 0


def test_roles_are_those_of_a_loop_over_single_pairs(tiny_classes: dict[str, Any], tmp_path: Any) -> None:
    """By hand: one text after another, softmax and sum written out (4 is the root of the width), and the prediction
    that the whole model gives."""
    run(composer(tiny_classes)(["model.pooling=attention", "trainer.max_steps=60", "optim.lr=0.01"]), tmp_path)
    model, data = loaded(tmp_path)
    assert isinstance(model, Classifier) and model.pooling.query is not None
    split = data.splits["validation"]
    assert split.labels is not None
    n, counts, query = 0, {"follows_values": 0, "follows_keys": 0}, model.pooling.query.detach().double() / 4
    for row in range(len(split)):
        same = [other for other in range(len(split)) if split.lengths[other] == split.lengths[row]]
        after = [other for other in same if other > row] + [other for other in same if other < row]
        others = [other for other in after if split.labels[other] != split.labels[row]]
        if not others:
            continue
        a, b = (split.batch(np.array([one])) for one in (row, others[0]))
        with torch.no_grad():
            (states_a, states_b), answer = (model.states(text)[0].double() for text in (a, b)), int(model(b).argmax())
            if int(model(a).argmax()) == answer:
                continue
            n += 1
            for name, keys, values in (("follows_values", states_a, states_b), ("follows_keys", states_b, states_a)):
                scores = [math.exp(float(key @ query)) for key in keys]
                pooled = sum(score * value for score, value in zip(scores, values, strict=True)) / sum(scores)
                logits = pooled @ model.head.weight.double().T + model.head.bias.double()
                counts[name] += int(logits.argmax()) == answer
    assert n > 5 and counts["follows_values"] != counts["follows_keys"], "a swap of the two would be seen"
    add_measures(tmp_path, [MEASURES["roles"]])
    expected = {f"roles.{name}": count / n for name, count in counts.items()} | {"roles.pairs": n}
    assert read_measures(tmp_path) == pytest.approx(expected)


def test_roles_need_a_learned_query(tiny_classes: dict[str, Any], tmp_path: Any) -> None:
    run(composer(tiny_classes)(["trainer.max_steps=2"]), tmp_path, quiet=True)
    with pytest.raises(ConfigError, match=r"model.pooling \(mean\) must be attention"):
        add_measures(tmp_path, [MEASURES["roles"]])
