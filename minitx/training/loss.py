"""The training loss: cross-entropy summed over real targets, so that one division per step is exact."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def summed_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sum over N targets of the cross-entropy with smoothed labels (Szegedy et al. 2016, section 7).

    logits (N, C) in any float type, computed in float32 at least; targets (N,) int64. The caller divides once, by the
    real targets of the whole optimiser step, so padding and accumulation cannot bias it.
    """
    wide = logits.float() if logits.element_size() < 4 else logits
    return F.cross_entropy(wide, targets, reduction="sum", label_smoothing=label_smoothing)
