"""What models share that guess tokens: from hidden states of the real targets to logits and loss.

Letters in shapes: D model width, V vocabulary, N real targets.
"""

from __future__ import annotations

from torch import Tensor

from minitx.batch import Batch
from minitx.nn.cross_entropy import projected_cross_entropy, summed_cross_entropy
from minitx.nn.linear import product
from minitx.nn.r_drop import projected_r_drop_loss, r_drop_loss


class TokenGuesser:
    """Mixed into a module that has `hidden` and `output_weight`: `forward`, `loss` and `project`."""

    def hidden(self, batch: Batch) -> Tensor:
        """(N, D): states at the real targets, in their order."""
        raise NotImplementedError

    @property
    def output_weight(self) -> Tensor:
        """(V, D): of the output projection."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """(N, V) logits of the real targets alone: hidden states are picked before they are projected."""
        return self.project(self.hidden(batch))

    def loss(self, batch: Batch, label_smoothing: float = 0.0, r_drop: float = 0.0) -> Tensor:
        """Scalar: the summed cross-entropy of `forward`'s logits, which are never all there at once.

        r_drop: its alpha; other than 0, `r_drop_loss` of two passes.
        """
        if r_drop:
            return self._r_drop_loss(batch, r_drop, label_smoothing)
        if batch.n_real is not None:  # some targets are filling
            return summed_cross_entropy(self.forward(batch), batch.targets, label_smoothing)
        return projected_cross_entropy(self.hidden(batch), self.output_weight, batch.targets, label_smoothing)

    def _r_drop_loss(self, batch: Batch, alpha: float, label_smoothing: float) -> Tensor:
        first, second = self.hidden(batch), self.hidden(batch)
        if batch.n_real is not None:  # some targets are filling
            return r_drop_loss(self.project(first), self.project(second), batch.targets, alpha, label_smoothing)
        return projected_r_drop_loss(first, second, self.output_weight, batch.targets, alpha, label_smoothing)

    def project(self, hidden: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)."""
        return product(hidden, self.output_weight)
