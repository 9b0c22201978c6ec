"""Statistics of every attention head of a trained model, and of its receptive field; or heads of two models compared.

    batches = sample_batches(model, split, data, device=...)
    head_statistics(model, batches)         of each layer: what heads attend to, similarity, effects, ranks
    compare_heads(model, other, batches)    of each layer: its heads against those of the same layer of the other

Deterministic: the rows are drawn by a seed, batches are those of an evaluation, models compute in float32 and sums are
in float64, and no random number of torch is drawn. It leaves no trace on the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from minitx.analysis.head_effects import HeadEffects, Performance, head_effects
from minitx.analysis.head_maps import HeadStats, HeadStatSums, LayerId, PerHead, head_layers, read_batch
from minitx.analysis.receptive_field import ReceptiveField, measure_receptive_field
from minitx.analysis.similarity import Similarity, SimilaritySums
from minitx.batch import Batch
from minitx.config import MaskingConfig
from minitx.data import Split, TaskData, plan_eval
from minitx.decoding.inference import inference
from minitx.metrics.evaluate import MASKING, batches_of
from minitx.nn.build import Model

ROWS = 256
BATCH_TOKENS = 2048
"""A batch's maps are all there at once: heads x tokens x length numbers of each layer, in float64."""


@dataclass(frozen=True, kw_only=True)
class LayerHeads:
    """The heads of one layer, in their order."""

    layer_id: LayerId
    stats: HeadStats
    effects: HeadEffects
    maps: Similarity
    """Of the heads' maps among themselves, 1 - JSD."""
    outputs: Similarity
    """Of their outputs, linear CKA."""
    rank: PerHead
    """Effective rank of each head's output."""
    joint_rank: float
    """Of all of them side by side."""


@dataclass(frozen=True, kw_only=True)
class HeadReport:
    """One model on some rows of a split."""

    n_rows: int
    performance: Performance
    """Of the whole model on these rows."""
    layers: tuple[LayerHeads, ...]
    """Encoder, decoder and cross, each from the first layer; () of a model without heads."""
    receptive_field: ReceptiveField
    """Of the encoder."""

    def to_json(self) -> dict[str, Any]:
        """Dicts, lists and numbers; what is not known (NaN) is None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """The heads of one layer of the first model (rows) against those of the same layer of the second (columns)."""

    layer_id: LayerId
    maps: Similarity
    outputs: Similarity


def sample_batches(
    model: Model,
    split: Split,
    data: TaskData,
    *,
    device: torch.device,
    rows: int = ROWS,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    masking: MaskingConfig = MASKING,
) -> list[Batch]:
    """Batches of `rows` random rows of a split (all where it has no more), for models of the task of `data`.

    masking: as of `evaluate`. No rows are a ValueError.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split))[:rows])
    if len(chosen) == 0:
        raise ValueError(
            f"head statistics need at least one row; of a split of {len(split)} rows, {rows} were asked for"
        )
    plan = [chosen[part] for part in plan_eval(split.lengths[chosen], batch_tokens)]
    return list(batches_of(model, split, data, plan, device=device, masking=masking))


def head_statistics(model: Model, batches: Sequence[Batch], seed: int = 0) -> HeadReport:
    """Everything of a model (itself, not a compiled wrapper). seed: of the receptive field's random draws."""
    layer_ids = head_layers(model)
    stats, similar = ({p: HeadStatSums(p) for p in layer_ids}, {p: SimilaritySums(within=True) for p in layer_ids})
    with inference([model], batches[0].src.device, "fp32"):
        for batch in batches if layer_ids else ():
            for layer_id, queries in read_batch(model, batch).items():
                stats[layer_id].add(queries)
                similar[layer_id].add(queries, queries)
        whole, effects = head_effects(model, batches)
        receptive_field = measure_receptive_field(model, batches, seed)
    layers = tuple(_layer(p, stats[p].result(), effects[p], similar[p]) for p in layer_ids)
    return HeadReport(
        n_rows=sum(batch.n_rows for batch in batches), performance=whole, layers=layers, receptive_field=receptive_field
    )


def _layer(layer_id: LayerId, stats: HeadStats, effects: HeadEffects, similar: SimilaritySums) -> LayerHeads:
    rank, joint_rank = similar.ranks()
    return LayerHeads(
        layer_id=layer_id,
        stats=stats,
        effects=effects,
        maps=similar.maps(),
        outputs=similar.outputs(),
        rank=rank,
        joint_rank=joint_rank,
    )


def compare_heads(first: Model, second: Model, batches: Sequence[Batch]) -> tuple[LayerPair, ...]:
    """Heads against heads at the same queries; the models may differ in number and width of heads.

    Both must be of the task and the vocabulary of the batches and have the same layers of heads, else a ValueError.
    """
    layer_ids = head_layers(first)
    if layer_ids != head_layers(second):
        listed = (", ".join(map(str, head_layers(model))) or "none" for model in (first, second))
        raise ValueError(f"two models must have the same layers of heads to be compared, not {' and '.join(listed)}")
    sums = {layer_id: SimilaritySums(within=False) for layer_id in layer_ids}
    with inference([first, second], batches[0].src.device, "fp32"):
        for batch in batches:
            mine, theirs = read_batch(first, batch), read_batch(second, batch)
            for layer_id in layer_ids:
                sums[layer_id].add(mine[layer_id], theirs[layer_id])
    return tuple(LayerPair(layer_id=p, maps=sums[p].maps(), outputs=sums[p].outputs()) for p in layer_ids)


def head_stats(model: Model, batches: Sequence[Batch]) -> dict[LayerId, HeadStats]:
    """`HeadStats` of each layer alone, in one pass."""
    sums = {layer_id: HeadStatSums(layer_id) for layer_id in head_layers(model)}
    with inference([model], batches[0].src.device, "fp32"):
        for batch in batches if sums else ():
            for layer_id, queries in read_batch(model, batch).items():
                sums[layer_id].add(queries)
    return {layer_id: of_layer.result() for layer_id, of_layer in sums.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
