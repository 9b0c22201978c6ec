"""What an attention did in one forward pass, as its recorder is told.

Letters in shapes: B rows, H heads, Q queries, K keys, W head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class AttentionRecord:
    """Of attention with one head and of a pooling, the weights alone."""

    weights: Tensor
    """(B, H, Q, K), before dropout: a row sums to 1 over the keys that its query may read and is 0 elsewhere (all 0 for
    a query that may read nothing)."""
    outputs: Tensor | None = None
    """(B, H, Q, W): each head's weighted values, before its gate and the output projection."""
    n_readable: Tensor | None = None
    """(B or 1, Q or 1) int64: how many keys each query may read."""
    values: Tensor | None = None
    """(B, H, K, W): what each head reads of each key."""

    def detach(self) -> AttentionRecord:
        """The same without gradients."""
        outputs, values = (None if x is None else x.detach() for x in (self.outputs, self.values))
        return AttentionRecord(self.weights.detach(), outputs, self.n_readable, values)


Recorder = Callable[[AttentionRecord], None]
