"""R-Drop from its definition, one target and one class at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def r_drop_reference(first: Tensor, second: Tensor, targets: Tensor, alpha: float, smoothing: float = 0.0) -> Tensor:
    """Half of eq. (4) of Liang et al. 2021, summed over (N,) targets, all real; from (N, V) logits of both passes."""
    total = first.new_zeros(())
    for a, b, target in zip(first, second, targets.tolist(), strict=True):
        p, q = a.exp() / a.exp().sum(), b.exp() / b.exp().sum()
        label = torch.full_like(p, smoothing / len(p))
        label[target] += 1 - smoothing
        negative_logs = -(label * p.log()).sum() - (label * q.log()).sum()
        divergences = (p * (p / q).log()).sum() + (q * (q / p).log()).sum()
        total = total + (negative_logs + alpha / 2 * divergences) / 2
    return total
