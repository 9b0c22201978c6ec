"""From the states of a text to one vector.

Letters in shapes: B rows, S length, D model width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from minitx.config.model import PoolingKind
from minitx.nn.attention.masks import masked_softmax
from minitx.nn.attention.record import AttentionRecord, Recorder
from minitx.nn.layers import xavier_linear

FIRST = ("cls", "last")
"""The kinds that read the first state alone; the encoder then need not give more (see `TextEncoder`)."""
WEIGHING = ("attention", "additive")
"""The kinds that learn which tokens to read."""


class Pooling(nn.Module):
    """cls: the first token's state. last: the recurrent encoder's last states, which it puts there. mean and max: over
    the real tokens. attention: weights by scaled dot products with one learned query. additive: weights from
    v . tanh(W state + q), the attention of Bahdanau et al. (2015) with a learned query q.

    A text without a real token gives zeros, except under cls and last.
    """

    def __init__(self, kind: PoolingKind, d_model: int) -> None:
        super().__init__()
        self.kind = kind
        # The states have unit scale, so this query starts with scores of deviation 1.
        self.query = nn.Parameter(torch.randn(d_model)) if kind == "attention" else None
        self.additive = AdditiveScore(d_model) if kind == "additive" else None
        self.recorder: Recorder | None = None

    def forward(self, states_BSD: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, S, D) -> (B, D). key_mask: (B, S) bool, True = real token, None = none is padded."""
        if self.kind in FIRST:
            return states_BSD[:, 0]
        if self.kind == "max":
            return _maximum(states_BSD, key_mask)
        weights_BS = self.weights(states_BSD, key_mask)
        if weights_BS is None:
            return states_BSD.mean(dim=1)
        if self.recorder is not None:
            self.recorder(AttentionRecord(weights_BS[:, None, None]))
        return weighted_sum(weights_BS, states_BSD)

    def weights(self, states_BSD: Tensor, key_mask: Tensor | None = None) -> Tensor | None:
        """(B, S) weights that sum to 1 over the real tokens, or are all 0; None = all alike."""
        if self.query is not None:
            return masked_softmax(states_BSD @ self.query / math.sqrt(self.query.shape[0]), key_mask)
        if self.additive is not None:
            return masked_softmax(self.additive(states_BSD), key_mask)
        if key_mask is None:
            return None
        return key_mask / key_mask.sum(dim=1, keepdim=True).clamp(min=1).to(states_BSD.dtype)


def weighted_sum(weights_BS: Tensor, states_BSD: Tensor) -> Tensor:
    """(B, D): the states, weighed.

    Not a matrix product, which autocast would round to 16 bits: padded or not, a mean is as exact.
    """
    return (weights_BS[:, :, None] * states_BSD).sum(dim=1)


class AdditiveScore(nn.Module):
    """v . tanh(W state + q): how much each state answers the learned query q."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.state = xavier_linear(d_model, d_model)  # its bias is q
        self.v = nn.Parameter(torch.randn(d_model) * d_model**-0.5)

    def forward(self, states_BSD: Tensor) -> Tensor:
        """(B, S, D) -> (B, S)."""
        scores: Tensor = torch.tanh(self.state(states_BSD)) @ self.v
        return scores


def _maximum(states_BSD: Tensor, key_mask: Tensor | None) -> Tensor:
    if key_mask is None:
        return states_BSD.amax(dim=1)
    least = torch.finfo(states_BSD.dtype).min
    highest = states_BSD.masked_fill(~key_mask[:, :, None], least).amax(dim=1)
    return highest.masked_fill(~key_mask.any(dim=1, keepdim=True), 0.0)
