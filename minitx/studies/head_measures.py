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
from minitx.sweeps.cells import has_measure, measure, write_measure
from minitx.training.run_folder import RunFolder
from minitx.training.saving import load_model

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

    Two validation texts of equal length that the model gives different classes swap what is read, and each keeps its
    weights; then they swap the weights, and each keeps what is read. `follows_values`, `follows_keys`: shares of texts
    whose class becomes the other's. `pairs`: how many texts took part.
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
            states_BSD = model.states(split.batch(np.array(rows)))
            counted, found = _interventions(model, states_BSD)
            n_pairs, follows = n_pairs + counted, follows + found
    if not n_pairs:
        return {"pairs": 0.0}
    return {"follows_values": follows[0] / n_pairs, "follows_keys": follows[1] / n_pairs, "pairs": float(n_pairs)}


def _interventions(model: Classifier, states_BSD: Tensor) -> tuple[int, Matrix]:
    """(texts whose partner has another class, how many take the partner's class with its values, and with its weights).

    Partner: the text before, of the first the last. states_BSD: of texts without padding.
    """
    weights_BS = model.pooling.weights(states_BSD)
    assert weights_BS is not None

    def classes(weights: Tensor, states: Tensor) -> Tensor:
        chosen: Tensor = model.head((weights[:, :, None] * states).sum(1)).argmax(1)
        return chosen

    own_B, partner_B = classes(weights_BS, states_BSD), classes(weights_BS.roll(1, 0), states_BSD.roll(1, 0))
    differ_B = own_B != partner_B
    by_values, by_weights = classes(weights_BS, states_BSD.roll(1, 0)), classes(weights_BS.roll(1, 0), states_BSD)
    found = [int(((by == partner_B) & differ_B).sum()) for by in (by_values, by_weights)]
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
