"""What each head attends to: its weights and outputs at the real queries of a batch, their entropy and distance.

Every real query counts equally, wherever its text was batched; padding never counts. Sums over batches are stored, not
maps; in float64, whatever the model's type. (Entropy and distance as in Clark et al. 2019, arXiv:1906.04341.)

Letters in shapes: B rows, H heads, Q queries, K keys, W head width, N real queries of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.batch import Batch
from minitx.nn.build import Model
from minitx.nn.capture import Role, capture_attention, head_attentions
from minitx.nn.classifier import Classifier, TextReader, source_rows
from minitx.nn.pooling import FIRST

PerHead = tuple[float, ...]
"""One for each head."""


@dataclass(frozen=True, eq=False)
class RealQueries:
    """What one layer did at the real queries of a batch, text after text."""

    weights_HNK: Tensor
    outputs_HNW: Tensor
    n_readable_N: Tensor
    position_N: Tensor
    """Position of the query in its text."""
    n_queries_N: Tensor
    """Real queries of its text."""
    n_keys_N: Tensor
    """Real keys."""


@dataclass(frozen=True)
class LayerId:
    """A layer of heads."""

    role: Role
    layer: int
    """From 0."""

    def __str__(self) -> str:
        return f"{self.role}_L{self.layer + 1}"


def head_layers(model: Model) -> list[LayerId]:
    """All layers of heads, by role, each from the first to the last."""
    return [LayerId(role, i) for role, stack in head_attentions(model).items() for i in range(len(stack))]


def read_batch(model: Model, batch: Batch) -> dict[LayerId, RealQueries]:
    """One pass of a batch through a model in eval mode (`inference`), which has heads."""
    with capture_attention(model) as maps:
        model(batch)
    found = {}
    for layer_id in head_layers(model):
        reading = maps.layers[layer_id.role][layer_id.layer]
        assert reading.outputs is not None and reading.n_readable is not None
        real_BQ, n_queries_B, n_keys_B = _real(model, batch, layer_id)
        row_N, position_N = real_BQ.nonzero().unbind(1)
        found[layer_id] = RealQueries(
            weights_HNK=reading.weights.transpose(0, 1)[:, row_N, position_N].double(),
            outputs_HNW=reading.outputs.transpose(0, 1)[:, row_N, position_N].double(),
            n_readable_N=reading.n_readable.expand(real_BQ.shape)[row_N, position_N],
            position_N=position_N,
            n_queries_N=n_queries_B[row_N],
            n_keys_N=n_keys_B[row_N],
        )
    return found


def _real(model: Model, batch: Batch, layer_id: LayerId) -> tuple[Tensor, Tensor, Tensor]:
    """(B, Q) bool, True = a query that counts; (B,) real queries and (B,) real keys of each text."""
    src_BS = source_rows(batch, model.chunk if isinstance(model, TextReader) else None).real
    if layer_id.role == "encoder":
        asked_BS = src_BS
        first_only = isinstance(model, Classifier) and model.pooling.kind in FIRST
        if first_only and layer_id == head_layers(model)[-1]:
            asked_BS = src_BS.clone()
            asked_BS[:, 1:] = False  # the last layer's other queries are recorded, but nothing reads their states
        return asked_BS, src_BS.sum(1), src_BS.sum(1)
    assert batch.tgt_in is not None and batch.target_index is not None, "a decoder has targets"
    tgt_BT = torch.zeros_like(batch.tgt_in, dtype=torch.bool).flatten()
    tgt_BT[batch.target_index] = True
    tgt_BT = tgt_BT.view_as(batch.tgt_in)
    return tgt_BT, tgt_BT.sum(1), (tgt_BT if layer_id.role == "decoder" else src_BS).sum(1)


# ------------------------------------------------------------------------------------------------ entropy, distance


@dataclass(frozen=True, kw_only=True)
class HeadStats:
    """How widely and how far each head of a layer reads."""

    entropy: PerHead
    """Of a query's weights, in nats; mean over queries."""
    spread: PerHead
    """The same over its largest value, the logarithm of the number of readable keys: 0 = one key alone, 1 = all keys
    equally. Queries with one readable key are left out; NaN where there are no others."""
    distance: PerHead | None
    """Weighted mean of |i - j| in tokens; None in cross-attention, whose positions are of two texts."""
    relative_distance: PerHead
    """Weighted mean of |(i + 1/2) / queries - (j + 1/2) / keys|: |i - j| as a share of the text's length, and in
    cross-attention the distance from the diagonal."""


class HeadStatSums:
    """Sums towards `HeadStats`."""

    def __init__(self, layer_id: LayerId) -> None:
        self.layer_id, self.n, self.n_several = layer_id, 0, 0
        self.entropy_H = self.spread_H = self.distance_H = self.relative_H = torch.zeros((), dtype=torch.float64)

    def add(self, queries: RealQueries) -> None:
        """Add one layer's queries of a batch."""
        weights_HNK, n_N = queries.weights_HNK, queries.n_readable_N
        entropy_HN = torch.special.entr(weights_HNK).sum(-1)
        several_N = n_N > 1
        key_K = torch.arange(weights_HNK.shape[2], device=n_N.device, dtype=torch.float64)
        query_N1 = queries.position_N[:, None].double()
        far_NK = (query_N1 - key_K).abs()
        relative_NK = (
            (query_N1 + 0.5) / queries.n_queries_N[:, None] - (key_K + 0.5) / queries.n_keys_N[:, None]
        ).abs()
        self.n += len(n_N)
        self.n_several += int(several_N.sum())
        self.entropy_H = self.entropy_H + entropy_HN.sum(1)
        self.spread_H = self.spread_H + (entropy_HN[:, several_N] / n_N[several_N].double().log()).sum(1)
        self.distance_H = self.distance_H + torch.einsum("hnk,nk->h", weights_HNK, far_NK)
        self.relative_H = self.relative_H + torch.einsum("hnk,nk->h", weights_HNK, relative_NK)

    def result(self) -> HeadStats:
        """Means over all queries added."""
        return HeadStats(
            entropy=_numbers(self.entropy_H / self.n),
            spread=_numbers(self.spread_H / self.n_several),
            distance=None if self.layer_id.role == "cross" else _numbers(self.distance_H / self.n),
            relative_distance=_numbers(self.relative_H / self.n),
        )


def _numbers(values_H: Tensor) -> PerHead:
    return tuple(values_H.tolist())
