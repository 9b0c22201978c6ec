"""What reaches a token through several layers of self-attention: rollout, and gradient-weighted relevance.

One layer's map says what a token reads of states that are themselves mixtures of tokens. Both measures follow the
mixing from the text upwards. Rollout looks at the weights alone; gradient-weighted relevance keeps of each weight what
the output depends on, and leaves out what speaks against it. Within one stack of self-attention; neither crosses over
from an encoder into a decoder.

Letters in shapes: B rows, H heads, T tokens, which are both queries and keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.batch import Batch
from minitx.nn.build import Model
from minitx.nn.capture import Role, capture_attention
from minitx.nn.classifier import Classifier

SELF_ATTENTION: tuple[Role, ...] = ("encoder", "decoder")


@dataclass(frozen=True, eq=False)
class Relevance:
    """Of one stack of layers; entry l is what has arrived after layers 0 to l."""

    rollout: list[Tensor]
    """(B, T, T) float64, see `rollout`."""
    gradient_weighted: list[Tensor]
    """(B, T, T) float64, see `gradient_weighted_relevance`."""


def relevance(model: Model, batch: Batch) -> dict[Role, Relevance]:
    """Both measures of every stack of self-attention in a model, in `inference`; {} of a model without.

    batch: with the outputs to be explained as its targets. Explained are a classifier's logits of these labels, and a
    translator's mean log-probability of these tokens. A switched-off head has no gradient; rollout, which knows of
    weights alone, still counts it.
    """
    with torch.enable_grad(), capture_attention(model, keep_graph=True) as maps:
        score = _score(model, batch)
        stacks = {
            role: [maps.layers[role][i].weights for i in sorted(maps.layers[role])]
            for role in SELF_ATTENTION
            if role in maps.layers
        }
        layers = [weights for stack in stacks.values() for weights in stack]
        gradients = iter(torch.autograd.grad(score, layers) if layers else ())
    return {
        role: Relevance(rollout(stack), gradient_weighted_relevance(stack, [next(gradients) for _ in stack]))
        for role, stack in stacks.items()
    }


def _score(model: Model, batch: Batch) -> Tensor:
    """Scalar that is explained; rows of a batch do not meet, so their sum has each row's own gradient."""
    if isinstance(model, Classifier):
        logits_NC: Tensor = model(batch)
        return logits_NC.gather(1, batch.targets[:, None]).sum()
    return -model.loss(batch) / batch.n_targets


def rollout(weights: Sequence[Tensor]) -> list[Tensor]:
    """Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928, section 3), after each layer.

    A layer passes on half of a token's own state (the residual) and half of what it reads, 0.5 A + 0.5 I with A the
    mean of the heads; a query that may read nothing keeps its own whole. The product over layers says how much of each
    token of the text has arrived at each position.

    weights: of each layer (B, H, T, T). Returns (B, T, T) float64 for each layer; every row sums to 1.
    """
    found: list[Tensor] = []
    for weights_BHTT in weights:
        mean_BTT = weights_BHTT.detach().double().mean(1)
        mixed_BTT = 0.5 * mean_BTT + 0.5 * torch.eye(mean_BTT.shape[-1], dtype=torch.float64, device=mean_BTT.device)
        mixed_BTT = mixed_BTT / mixed_BTT.sum(-1, keepdim=True)
        found.append(mixed_BTT @ found[-1] if found else mixed_BTT)
    return found


def gradient_weighted_relevance(weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
    """Relevance by gradient-weighted attention (Chefer et al. 2021, arXiv 2103.15679, eq. 5 and 6), after each layer.

    R starts as the identity, and each layer adds mean over heads of (gradient * A)^+ times R: a weight counts as far as
    the output would rise with it.

    weights, gradients: of each layer (B, H, T, T), the gradients those of the output. Returns R, (B, T, T) float64, for
    each layer; see `arrived`.
    """
    found: list[Tensor] = []
    for weights_BHTT, gradient_BHTT in zip(weights, gradients, strict=True):
        layer_BTT = (gradient_BHTT.detach().double() * weights_BHTT.detach().double()).clamp(min=0).mean(1)
        identity_TT = torch.eye(layer_BTT.shape[-1], dtype=torch.float64, device=layer_BTT.device)
        before = found[-1] if found else identity_TT.expand_as(layer_BTT)
        found.append(before + layer_BTT @ before)
    return found


def arrived(relevance_BTT: Tensor) -> Tensor:
    """(B, T, T) R -> R less the identity it started from, each row as shares of its sum (their eq. 8): what each token
    has received from others. A row to which nothing relevant came is 0."""
    received_BTT = relevance_BTT - torch.eye(
        relevance_BTT.shape[-1], dtype=relevance_BTT.dtype, device=relevance_BTT.device
    )
    received_BTT = received_BTT.clamp(min=0)  # 1 + x - 1 may fall below 0 by rounding
    shares: Tensor = received_BTT / received_BTT.sum(-1, keepdim=True).clamp(min=torch.finfo(received_BTT.dtype).tiny)
    return shares
