"""What each head contributes: the gradient of the loss by its gate, and the loss without it (Michel et al. 2019).

Letters in shapes: B rows, L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.analysis.head_maps import LayerId, PerHead
from minitx.batch import Batch
from minitx.decoding.inference import most_likely
from minitx.nn.build import Model
from minitx.nn.capture import head_attentions
from minitx.nn.classifier import Classifier, TextReader, source_rows


@dataclass(frozen=True)
class Performance:
    """Loss and accuracy of a model on some batches, every target counting equally."""

    loss: float
    """Cross-entropy per target."""
    accuracy: float
    """Share of targets (texts; next tokens given the right ones before; hidden tokens) that are the likeliest."""


@dataclass(frozen=True, kw_only=True)
class HeadEffects:
    """Importance of each head of a layer, and what changes without it."""

    importance: PerHead
    """Mean over texts of |d loss / d gate| (Michel et al. 2019, eq. 2). The loss of a text is the sum over its targets,
    and what is divided by is the number of all targets, as everywhere: of a classifier, the texts."""
    loss_without: PerHead
    """Loss per target with the head's gate closed, less that of the whole model."""
    accuracy_without: PerHead
    """The same difference of the accuracy."""


def performance(model: Model, batches: Sequence[Batch]) -> Performance:
    """Of a model in `inference`, on at least one batch."""
    losses, hits, n_targets = [], [], 0
    for batch in batches:
        log_prob_N, likeliest_N = _target_predictions(model, batch)
        losses.append(-log_prob_N.double().sum())
        hits.append((likeliest_N == batch.targets).sum())
        n_targets += batch.n_targets
    return Performance(float(torch.stack(losses).sum()) / n_targets, int(torch.stack(hits).sum()) / n_targets)


def _target_predictions(model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
    """(N,) log probability of each target, and (N,) what the model takes for likeliest."""
    if not isinstance(model, Classifier):
        return most_likely([model], batch)
    log_probs_NC = model(batch).log_softmax(-1)
    return log_probs_NC.gather(1, batch.targets[:, None])[:, 0], log_probs_NC.argmax(-1)


def head_effects(model: Model, batches: Sequence[Batch]) -> tuple[Performance, dict[LayerId, HeadEffects]]:
    """The whole model's performance, and the effects of each layer's heads, in as many passes as heads and two more."""
    whole = performance(model, batches)
    importance = _importance(model, batches) if head_attentions(model) else {}
    found = {}
    for layer_id, importance_H in importance.items():
        without = [_without(model, layer_id, head, batches) for head in range(len(importance_H))]
        found[layer_id] = HeadEffects(
            importance=tuple(importance_H.tolist()),
            loss_without=tuple(one.loss - whole.loss for one in without),
            accuracy_without=tuple(one.accuracy - whole.accuracy for one in without),
        )
    return whole, found


def losses_without(model: Model, batches: Sequence[Batch]) -> dict[LayerId, PerHead]:
    """`HeadEffects.loss_without` of each layer's heads alone, in as many passes as heads and one more."""
    whole = performance(model, batches).loss
    return {
        LayerId(role, i): tuple(
            _without(model, LayerId(role, i), head, batches).loss - whole for head in range(attention.n_heads)
        )
        for role, stack in head_attentions(model).items()
        for i, attention in enumerate(stack)
    }


def _without(model: Model, layer_id: LayerId, head: int, batches: Sequence[Batch]) -> Performance:
    weight = next(model.parameters())
    gate_H = weight.new_ones(head_attentions(model)[layer_id.role][layer_id.layer].n_heads)
    gate_H[head] = 0
    with gated(model, {layer_id: gate_H}):
        return performance(model, batches)


def _importance(model: Model, batches: Sequence[Batch]) -> dict[LayerId, Tensor]:
    """(H,) of every layer of heads."""
    n_targets = sum(batch.n_targets for batch in batches)
    sums: dict[LayerId, Tensor] = {}
    for batch in batches:
        for layer_id, gradient_BH in _gate_gradients(model, batch).items():
            sums[layer_id] = sums.get(layer_id, 0) + gradient_BH.double().abs().sum(0) / n_targets
    return sums


def _gate_gradients(model: Model, batch: Batch) -> dict[LayerId, Tensor]:
    """(B, H) of every layer: the gradient of each text's loss by the gates, all 1. A text has gates of its own, so that
    one backward pass has those of all texts apart; its chunks share them."""
    weight = next(model.parameters())
    rows = source_rows(batch, model.chunk if isinstance(model, TextReader) else None)
    n_chunks = len(rows.ids) // batch.n_rows
    leaves = {
        LayerId(role, i): weight.new_ones(batch.n_rows, attention.n_heads).requires_grad_()
        for role, stack in head_attentions(model).items()
        for i, attention in enumerate(stack)
    }
    with torch.enable_grad():
        gates = {layer_id: leaf.repeat_interleave(n_chunks, dim=0) for layer_id, leaf in leaves.items()}
        with gated(model, gates):
            loss = model.loss(batch)
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@contextmanager
def without_heads(model: Model, heads: Sequence[tuple[LayerId, int]]) -> Iterator[None]:
    """Within the block these heads give nothing: their gates are closed.

    Raises:
        ValueError: the model has no such head.
    """
    stacks = head_attentions(model)
    gates: dict[LayerId, Tensor] = {}
    for layer_id, head in heads:
        stack = stacks.get(layer_id.role, [])
        if not 0 <= layer_id.layer < len(stack) or not 0 <= head < stack[layer_id.layer].n_heads:
            has = ", ".join(f"{role} {len(s)} x {s[0].n_heads}" for role, s in stacks.items()) or "none"
            raise ValueError(
                f"head {head} of {layer_id.role} layer {layer_id.layer} (from 0) must be one of the model's; "
                f"layers x heads: {has}"
            )
        ones_H = next(model.parameters()).new_ones(stack[layer_id.layer].n_heads)
        gates.setdefault(layer_id, ones_H)[head] = 0
    with gated(model, gates):
        yield


@contextmanager
def gated(model: Model, gates: Mapping[LayerId, Tensor]) -> Iterator[None]:
    """Within the block some layers have these gates (`set_gates`); then again those that they had."""
    stacks = head_attentions(model)
    attentions = {layer_id: stacks[layer_id.role][layer_id.layer] for layer_id in gates}
    before = {layer_id: attention.gate_H for layer_id, attention in attentions.items()}
    try:
        for layer_id, attention in attentions.items():
            attention.set_gates(gates[layer_id])
        yield
    finally:
        for layer_id, attention in attentions.items():
            attention.set_gates(before[layer_id])
