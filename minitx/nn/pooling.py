"""From the states of a text to one vector.

Letters in shapes: B rows, S length, D model width.
"""

from __future__ import annotations

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
        if self.query is None and key_mask is None:
            return states_BSD.mean(dim=1)
        return (self._weights(states_BSD, key_mask)[:, None] @ states_BSD).squeeze(1)

    def _weights(self, states: Tensor, key_mask: Tensor | None) -> Tensor:
        """(B, S), summing to 1 over real tokens."""
        if self.query is None:
            assert key_mask is not None
            return key_mask / key_mask.sum(dim=1, keepdim=True).clamp(min=1).to(states.dtype)
        weights = states @ self.query * self.query.shape[0] ** -0.5
        if key_mask is not None:
            weights = weights.masked_fill(~key_mask, torch.finfo(weights.dtype).min)
        weights = weights.softmax(dim=1).to(states.dtype)
        return weights if key_mask is None else weights.masked_fill(~key_mask, 0.0)
