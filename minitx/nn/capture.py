"""Look inside: the attention weights of a forward pass, and what of a model attends, by role.

The fast kernels never form the weights, so a captured pass computes attention plainly; its result is the same to
rounding. Additive attention and a pooling that weighs are maps of one head, the pooling's with one query.

Letters in shapes: B rows, H heads, Q queries, K keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.attention.record import AttentionRecord
from minitx.nn.baselines.lstm import AdditiveAttention, LstmDecoder
from minitx.nn.build import Model
from minitx.nn.classifier import Classifier
from minitx.nn.pooling import WEIGHING, Pooling
from minitx.nn.transformer import Decoder, Encoder
from minitx.nn.translator import Translator

Role = Literal["encoder", "decoder", "cross", "pooling"]
Attention = MultiHeadAttention | AdditiveAttention | Pooling
"""What records its weights."""


@dataclass
class AttentionMaps:
    """What the last forward pass did. By role the weights of all layers in float32, (layer, B, H, Q, K), see
    `AttentionRecord`; None where the model has none."""

    layers: dict[Role, dict[int, AttentionRecord]] = field(default_factory=dict)
    """By role and number of the layer, from 0."""

    @property
    def encoder(self) -> Tensor | None:
        return self._stack("encoder")

    @property
    def decoder(self) -> Tensor | None:
        return self._stack("decoder")

    @property
    def cross(self) -> Tensor | None:
        return self._stack("cross")

    @property
    def pooling(self) -> Tensor | None:
        return self._stack("pooling")

    def _stack(self, role: Role) -> Tensor | None:
        layers = self.layers.get(role)
        return torch.stack([layers[i].weights.float() for i in sorted(layers)]) if layers else None


@contextmanager
def capture_attention(model: Model, *, keep_graph: bool = False) -> Iterator[AttentionMaps]:
    """`with capture_attention(model) as maps: model(batch)`, then `maps.encoder`, `maps.decoder`, `maps.cross`.

    Every attention records until the block ends; a second forward pass replaces the first one's maps. Takes the model
    itself, not a compiled wrapper. keep_graph: what is recorded stays part of the pass, so that a gradient by it can be
    asked for; else it is detached.
    """
    maps = AttentionMaps()
    modules = [(role, i, m) for role, stack in attentions(model).items() for i, m in enumerate(stack)]
    try:
        for role, i, module in modules:
            module.recorder = _Recorder(maps.layers.setdefault(role, {}), i, keep_graph)
        yield maps
    finally:
        for _, _, module in modules:
            module.recorder = None


def attentions(model: Model) -> dict[Role, list[Attention]]:
    """What of a model attends, by role, from the first layer to the last; a role that it has not is not there."""
    found: dict[Role, list[Attention]] = {}
    if isinstance(model.encoder, Encoder):
        found["encoder"] = [*model.encoder.attentions()]
    if isinstance(model, Classifier):
        return found | ({"pooling": [model.pooling]} if model.pooling.kind in WEIGHING else {})
    if not isinstance(model, Translator):
        return found
    if isinstance(model.decoder, Decoder):
        found |= {"decoder": [*model.decoder.attentions()], "cross": [*model.decoder.cross_attentions()]}
    if isinstance(model.decoder, LstmDecoder):
        found["cross"] = [model.decoder.attention]
    return found


def head_attentions(model: Model) -> dict[Role, list[MultiHeadAttention]]:
    """Those of `attentions` that have heads."""
    by_role = {
        role: [a for a in stack if isinstance(a, MultiHeadAttention)] for role, stack in attentions(model).items()
    }
    return {role: stack for role, stack in by_role.items() if stack}


@dataclass(frozen=True)
class _Recorder:
    """Puts what one layer did in its place."""

    layers: dict[int, AttentionRecord]
    index: int
    keep_graph: bool

    def __call__(self, reading: AttentionRecord) -> None:
        self.layers[self.index] = reading if self.keep_graph else reading.detach()
