"""Measures of a trained model's heads and receptive field, and of the heads of two seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minitx.analysis.head_statistics import LayerHeads, LayerPair, compare_heads, head_statistics, sample_batches
from minitx.config import Config, NetConfig, rule
from minitx.data import TaskData, load_data
from minitx.nn.build import Model
from minitx.nn.classifier import Classifier
from minitx.nn.pooling import weighted_sum
from minitx.sweeps.cells import has_measure, measure, write_measure
from minitx.training.run_folder import RunFolder
from minitx.training.saver import load_model

ROWS = 256
"""Validation texts that are measured on: nothing is chosen by the test split, and nothing is learnt from it."""
CPU = torch.device("cpu")
Matrix = npt.NDArray[np.float64]


@measure("heads", version="1")
def heads(path: Path, config: Config) -> dict[str, float]:
    """Means over the heads of the encoder's layers.

    `spread` (entropy over its largest value), `distance` (share of the text's length), `rank` (effective rank of a
    head's output), `mask_effect` (loss without the head, less the whole model's; `_max`, of the
    one head that matters most), `alike_maps` and `alike_outputs` (of a head and the most alike of its layer).
    """
    model, data = loaded(path)
    report = head_statistics(model, sample_batches(model, data.splits["validation"], data, device=CPU, rows=ROWS))
    layers = [layer for layer in report.layers if layer.layer_id.role == "encoder"]
    found = {
        "spread": _mean([x for layer in layers for x in layer.stats.spread]),
        "distance": _mean([x for layer in layers for x in layer.stats.relative_distance]),
        "rank": _mean([x for layer in layers for x in layer.rank]),
        "mask_effect": _mean([x for layer in layers for x in layer.effects.loss_without]),
        "mask_effect_max": max(x for layer in layers for x in layer.effects.loss_without),
        **_alike(layers, nearest_within),
    }
    return {key: value for key, value in found.items() if math.isfinite(value)}


@measure("field", version="1")
def field(path: Path, config: Config) -> dict[str, float]:
    """`width` that holds 95 % of the encoder's gradient, and its `reach`, both in tokens."""
    model, data = loaded(path)
    seen = head_statistics(
        model, sample_batches(model, data.splits["validation"], data, device=CPU, rows=ROWS)
    ).receptive_field
    return {"width": float(seen.width), "reach": float(seen.farthest)}


def add_across(paths: Sequence[Path]) -> None:
    """Compare the first run of one arm and value with the second, the third with the fourth, and so on, unless that is
    stored: with the first of each pair. Each run is in one comparison, so that these are independent; an odd one is
    left out."""
    for path, other in zip(paths[::2], paths[1::2], strict=False):
        if not has_measure(path, "across", other.name):
            with RunFolder(path).locked():
                write_measure(path, "across", other.name, across(path, other))


def across(path: Path, other: Path) -> dict[str, float]:
    """`alike_maps` and `alike_outputs` of a head and the most alike one of the same layer of a run that differs in its
    seed; `maps_less` and `outputs_less`: by how much less alike the heads of one layer are among themselves."""
    model, data = loaded(path)
    theirs = loaded(other)[0]
    batches = sample_batches(model, data.splits["validation"], data, device=CPU, rows=ROWS)
    pairs = [pair for pair in compare_heads(model, theirs, batches) if pair.layer_id.role == "encoder"]
    layers = [layer for layer in head_statistics(model, batches).layers if layer.layer_id.role == "encoder"]
    between, within = _alike(pairs, nearest_between), _alike(layers, nearest_within)
    found = {
        **between,
        "maps_less": between["alike_maps"] - within["alike_maps"],
        "outputs_less": between["alike_outputs"] - within["alike_outputs"],
    }
    return {key: value for key, value in found.items() if math.isfinite(value)}


@measure("roles", version="1")
def roles(path: Path, config: Config) -> dict[str, float]:
    """What weights and values do, by intervention on the reading of a learned query (`model.pooling=attention`).

    Each of up to 256 validation texts A has a partner B, the next of equal length and another label. The length is
    equal so that nothing is padded and every weight falls on a real token. `follows_values`: share of the pairs in
    which A's weights over B's values give B's predicted class. `follows_keys`: the same of A's values under the weights
    of B's keys. `pairs`: how many counted, those whose predictions differ before anything is swapped.
    """
    model, data = loaded(path)
    if not isinstance(model, Classifier) or model.pooling.query is None:
        assert isinstance(config.model, NetConfig), "load_model gives nets"
        raise rule("model.pooling", config.model.pooling, "be attention, because the study asks what its weights do")
    split, n_pairs, follows = data.splits["validation"], 0, np.zeros(2)
    rows_by_length: dict[int, list[int]] = {}
    for row in range(min(ROWS, len(split))):
        rows_by_length.setdefault(int(split.lengths[row]), []).append(row)
    with torch.no_grad():
        for rows in rows_by_length.values():
            batch = split.batch(np.array(rows))
            counted, found = interventions(model, model.states(batch), partners(batch.targets.tolist()))
            n_pairs, follows = n_pairs + counted, follows + found
    if not n_pairs:
        return {"pairs": 0.0}
    return {"follows_values": follows[0] / n_pairs, "follows_keys": follows[1] / n_pairs, "pairs": float(n_pairs)}


def partners(labels: Sequence[int]) -> list[int]:
    """The place of the next text with another label, from the last on to the first; a text without one has itself."""
    n = len(labels)
    return [
        next((other % n for other in range(place + 1, place + n) if labels[other % n] != label), place)
        for place, label in enumerate(labels)
    ]


def interventions(model: Classifier, states_BSD: Tensor, partner: Sequence[int]) -> tuple[int, Matrix]:
    """(pairs whose predictions differ, how many take the partner's with its values, and with the weights of its keys).

    states_BSD: of texts without padding. partner: (B,) places of the partners.
    """
    weights_BS = model.pooling.weights(states_BSD)
    assert weights_BS is not None, "a learned query weighs"
    other_weights_BS, other_states_BSD = weights_BS[partner], states_BSD[partner]

    def predicted(weights: Tensor, states: Tensor) -> Tensor:
        classes_B: Tensor = model.head(weighted_sum(weights, states)).argmax(1)
        return classes_B

    own_B = predicted(weights_BS, states_BSD)
    other_B = own_B[partner]
    by_values, by_keys = predicted(weights_BS, other_states_BSD), predicted(other_weights_BS, states_BSD)
    differ_B = own_B != other_B
    found = [int(((by == other_B) & differ_B).sum()) for by in (by_values, by_keys)]
    return int(differ_B.sum()), np.array(found, dtype=np.float64)


def loaded(path: Path) -> tuple[Model, TaskData]:
    """The best weights of a run, and its data."""
    best = load_model(RunFolder(path))
    return best.net, load_data(best.config.data)


def nearest_within(similarity_HH: Matrix) -> float:
    """Mean over the heads of a layer of the similarity of the other head that is most alike; NaN of one head."""
    others_HH = np.where(np.eye(len(similarity_HH)) == 1, -np.inf, similarity_HH)
    return float(others_HH.max(1).mean()) if len(similarity_HH) > 1 else math.nan


def nearest_between(similarity_HG: Matrix) -> float:
    """The same with the heads of another model, of which one at a time is left out, each in turn, so that the best is
    of as many as within a layer: the best of more is better by chance alone. NaN of one head."""
    n_heads = similarity_HG.shape[1]
    if n_heads < 2:
        return math.nan
    second_H, first_H = np.sort(similarity_HG, 1)[:, -2:].T
    return float(((n_heads - 1) * first_H + second_H).mean() / n_heads)


def _alike(layers: list[LayerHeads] | list[LayerPair], nearest: Callable[[Matrix], float]) -> dict[str, float]:
    return {
        "alike_maps": _mean([nearest(np.array(layer.maps.similarity)) for layer in layers]),
        "alike_outputs": _mean([nearest(np.array(layer.outputs.similarity)) for layer in layers]),
    }


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan
