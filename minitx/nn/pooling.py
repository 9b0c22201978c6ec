"""From the states of a text to one vector.

Letters in shapes: B rows, S length, D model width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn


class Pooling(nn.Module):
    """cls: the first token's state. mean: over the real tokens. attention: weights from one learned query.

    A text without a real token gives zeros, except under cls.
    """

    def __init__(self, kind: Literal["cls", "mean", "attention"], d_model: int) -> None:
        super().__init__()
        self.kind = kind
        # The states have unit scale, so this query starts with scores of deviation 1.
        self.query = nn.Parameter(torch.randn(d_model)) if kind == "attention" else None

    def forward(self, states_BSD: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, S, D) -> (B, D). key_mask: (B, S) bool, True = real token, None = none is padded."""
        if self.kind == "cls":
            return states_BSD[:, 0]
        if self.query is not None:
            weights_BS = self._attend(states_BSD, self.query, key_mask)
        elif key_mask is not None:
            weights_BS = key_mask / key_mask.sum(dim=1, keepdim=True).clamp(min=1).to(states_BSD.dtype)
        else:
            return states_BSD.mean(dim=1)
        # Not a matrix product, which autocast would round to 16 bits: padded or not, a mean is as exact.
        return (weights_BS[:, :, None] * states_BSD).sum(dim=1)

    def _attend(self, states: Tensor, query: Tensor, key_mask: Tensor | None) -> Tensor:
        """(B, S) weights that sum to 1 over the real tokens, or are all 0."""
        scores = states @ query / math.sqrt(query.shape[0])
        if key_mask is None:
            return scores.softmax(dim=1)
        return scores.masked_fill(~key_mask, torch.finfo(scores.dtype).min).softmax(dim=1).masked_fill(~key_mask, 0.0)
