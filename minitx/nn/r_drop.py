"""R-Drop (Liang et al. 2021, arXiv 2106.14448): two passes of a batch, with dropout drawn anew, should agree.

For distributions P and Q of a target y the paper's eq. (4) is

    -log P(y) - log Q(y) + alpha / 2 [KL(P||Q) + KL(Q||P)].

Here half of it is trained on: a cross-entropy per target as without R-Drop, and alpha means what it does in the paper.
The divergences are of the model's own softmax, without smoothed labels, and gradients go through both sides of both.

With logits a of P and b of Q, KL(P||Q) + KL(Q||P) = sum (p - q)(log p - log q) = sum (p - q)(a - b): what the softmax
subtracts is the same for all classes, and both p and q sum to 1. So there is no logarithm that could be infinite.

Letters in shapes: N targets, D model width, V classes or vocabulary, C targets of a chunk.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from minitx.batch import IGNORED
from minitx.nn.cross_entropy import held_at_once, projected_sum, summed_cross_entropy
from minitx.nn.linear import product


def r_drop_loss(
    first_NV: Tensor, second_NV: Tensor, targets_N: Tensor, alpha: float, label_smoothing: float = 0.0
) -> Tensor:
    """Sum over N targets, from the logits of both passes in any float type, computed in float32 at least.

    targets (N,) int64, IGNORED ones count 0.
    """
    a, b = (logits.float() if logits.element_size() < 4 else logits for logits in (first_NV, second_NV))
    both = summed_cross_entropy(a, targets_N, label_smoothing) + summed_cross_entropy(b, targets_N, label_smoothing)
    divergence_N = ((a.softmax(1) - b.softmax(1)) * (a - b)).sum(1).masked_fill(targets_N == IGNORED, 0)
    return (both + alpha / 2 * divergence_N.sum()) / 2


def projected_r_drop_loss(
    first_ND: Tensor,
    second_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    alpha: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """`r_drop_loss` of hidden @ weight^T, as `projected_cross_entropy`: in chunks. All targets must be real."""
    if held_at_once(2 * first_ND.shape[0] * weight_VD.shape[0]):
        first_NV, second_NV = product(first_ND, weight_VD), product(second_ND, weight_VD)
        return r_drop_loss(first_NV, second_NV, targets_N, alpha, label_smoothing)
    hidden_2ND = torch.stack((first_ND, second_ND))
    return projected_sum(hidden_2ND, weight_VD, targets_N, label_smoothing, partial(_between, alpha)) / 2


def _between(alpha: float, logits: list[Tensor], probabilities: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The paper's term, alpha / 2 sum (p - q) d with d = a - b, and p and q with its gradients by a and b added.

    By a: alpha / 2 [p (d - E_p d) + p - q]; by b the same with both sides exchanged.
    """
    (a_CV, b_CV), (p_CV, q_CV), half = logits, probabilities, alpha / 2
    d_CV = a_CV.to(p_CV.dtype) - b_CV
    by_p_C1, by_q_C1 = (torch.linalg.vecdot(x, d_CV)[:, None] for x in (p_CV, q_CV))
    # Each is one product and one difference, in place: memory traffic is most of what this costs.
    with_p = torch.add(1 + half * (1 - by_p_C1), d_CV, alpha=half).mul_(p_CV).sub_(q_CV, alpha=half)
    with_q = torch.add(1 + half * (1 + by_q_C1), d_CV, alpha=-half).mul_(q_CV).sub_(p_CV, alpha=half)
    return half * (by_p_C1 - by_q_C1).sum(), [with_p, with_q]
