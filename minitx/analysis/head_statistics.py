"""The lens: everything measured of heads and field of a trained model, or of the heads of two, as plain numbers.

    batches = lens_batches(model, split, data, device=...)
    lens(model, batches)                   each layer's heads (looks, likeness, effects, ranks), the encoder's field
    lens_of_two(model, other, batches)     each layer's heads against those of the same layer of the other

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

from minitx.analysis.head_effects import Effects, Quality, effects
from minitx.analysis.head_maps import HeadStats, HeadStatSums, Numbers, Place, head_layers, read_batch
from minitx.analysis.receptive_field import ReceptiveField, field_of
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

    place: Place
    looks: HeadStats
    effects: Effects
    maps: Similarity
    """Of the heads' maps among themselves, 1 - JSD."""
    outputs: Similarity
    """Of their outputs, linear CKA."""
    rank: Numbers
    """Effective rank of each head's output."""
    joint_rank: float
    """Of all of them side by side."""


@dataclass(frozen=True, kw_only=True)
class HeadReport:
    """One model on some rows of a split."""

    n_rows: int
    quality: Quality
    """Of the whole model on these rows."""
    layers: tuple[LayerHeads, ...]
    """Encoder, decoder and cross, each from the first layer; () of a model without heads."""
    field: ReceptiveField
    """Of the encoder."""

    def to_json(self) -> dict[str, Any]:
        """Dicts, lists and numbers; what is not known (NaN) is None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


@dataclass(frozen=True, kw_only=True)
class LayerPair:
    """The heads of one layer of the first model (rows) against those of the same layer of the second (columns)."""

    place: Place
    maps: Similarity
    outputs: Similarity


@dataclass(frozen=True, kw_only=True)
class PairReport:
    """Two models on the same rows of a split."""

    n_rows: int
    layers: tuple[LayerPair, ...]

    def to_json(self) -> dict[str, Any]:
        """As `HeadReport.to_json`."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def lens_batches(
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
    """What a lens looks at: `rows` rows of a split, all where it has no more, for models of the task of `data`.

    masking: as of `evaluate`. No rows are a ValueError.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(split))[:rows])
    if len(chosen) == 0:
        raise ValueError(f"a lens needs at least one row; of a split of {len(split)} rows, {rows} were asked for")
    plan = [chosen[part] for part in plan_eval(split.lengths[chosen], batch_tokens)]
    return list(batches_of(model, split, data, plan, device=device, masking=masking))


def lens(model: Model, batches: Sequence[Batch], seed: int = 0) -> HeadReport:
    """Everything of a model (itself, not a compiled wrapper). seed: of the positions and directions of the field."""
    places = head_layers(model)
    looks, alike = ({p: HeadStatSums(p) for p in places}, {p: SimilaritySums(within=True) for p in places})
    with inference([model], batches[0].src.device, "fp32"):
        for batch in batches if places else ():
            for place, queries in read_batch(model, batch).items():
                looks[place].add(queries)
                alike[place].add(queries, queries)
        whole, of_gates = effects(model, batches)
        field = field_of(model, batches, seed)
    layers = tuple(_layer(p, looks[p].result(), of_gates[p], alike[p]) for p in places)
    return HeadReport(n_rows=_n_rows(batches), quality=whole, layers=layers, field=field)


def _layer(place: Place, looks: HeadStats, of_gates: Effects, alike: SimilaritySums) -> LayerHeads:
    rank, joint_rank = alike.ranks()
    return LayerHeads(
        place=place,
        looks=looks,
        effects=of_gates,
        maps=alike.maps(),
        outputs=alike.outputs(),
        rank=rank,
        joint_rank=joint_rank,
    )


def lens_of_two(first: Model, second: Model, batches: Sequence[Batch]) -> PairReport:
    """Heads against heads at the same queries; the models may differ in number and width of heads.

    Both must be of the task and the vocabulary of the batches and have the same layers of heads, else a ValueError.
    """
    places = head_layers(first)
    if places != head_layers(second):
        listed = (", ".join(map(str, head_layers(model))) or "none" for model in (first, second))
        raise ValueError(f"two models must have the same layers of heads to be compared, not {' and '.join(listed)}")
    sums = {place: SimilaritySums(within=False) for place in places}
    with inference([first, second], batches[0].src.device, "fp32"):
        for batch in batches:
            mine, theirs = read_batch(first, batch), read_batch(second, batch)
            for place in places:
                sums[place].add(mine[place], theirs[place])
    layers = tuple(LayerPair(place=p, maps=sums[p].maps(), outputs=sums[p].outputs()) for p in places)
    return PairReport(n_rows=_n_rows(batches), layers=layers)


def looks_of(model: Model, batches: Sequence[Batch]) -> dict[Place, HeadStats]:
    """The looks of `lens` alone, in one pass."""
    sums = {place: HeadStatSums(place) for place in head_layers(model)}
    with inference([model], batches[0].src.device, "fp32"):
        for batch in batches if sums else ():
            for place, queries in read_batch(model, batch).items():
                sums[place].add(queries)
    return {place: of_layer.result() for place, of_layer in sums.items()}


def _n_rows(batches: Sequence[Batch]) -> int:
    return sum(batch.n_rows for batch in batches)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
