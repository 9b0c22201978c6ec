"""Cross-entropy summed over real targets, so that one division per step is exact; from logits, or from hidden states.

With a vocabulary of 10,000 the logits of a batch take more memory than everything else in a step. From hidden states
they are made a chunk of targets at a time, and their gradient is used up before the next chunk, so that they are never
all there.

Letters in shapes: N targets, D model width, V classes or vocabulary, C targets of a chunk, P passes of a batch through
the model, one but for R-Drop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from minitx.batch import IGNORED, Batch
from minitx.nn.layers import product

CHUNK = 1 << 23
"""Logits held at a time."""

Between = Callable[[list[Tensor], list[Tensor]], tuple[Tensor, list[Tensor]]]
"""What a loss has between its P passes: their logits and probabilities (C, V) -> its value, and the probabilities with
its gradients by the logits added."""


def summed_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sum over N targets of the cross-entropy with smoothed labels (Szegedy et al. 2016, section 7).

    logits (N, V) in any float type, computed in float32 at least; targets (N,) int64, IGNORED ones count 0. The caller
    divides once, by the real targets of the whole optimiser step, so padding and accumulation cannot bias it.
    """
    wide = logits.float() if logits.element_size() < 4 else logits
    return F.cross_entropy(wide, targets, reduction="sum", label_smoothing=label_smoothing)


def projected_cross_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """`summed_cross_entropy` of hidden @ weight^T, without holding more than `CHUNK` logits. All targets must be real.

    Under autocast the products are in its type and everything else in float32. Its gradients are computed along with
    it, once: they have none of their own.
    """
    if held_at_once(hidden_ND.shape[0] * weight_VD.shape[0]):
        return summed_cross_entropy(product(hidden_ND, weight_VD), targets_N, label_smoothing)
    return projected_sum(hidden_ND[None], weight_VD, targets_N, label_smoothing)


def held_at_once(n_logits: int) -> bool:
    """Whether a loss is computed from all of its logits; always so in a compiler, which has ways of its own."""
    return n_logits <= CHUNK or torch.compiler.is_compiling()


def projected_sum(
    hidden_PND: Tensor, weight_VD: Tensor, targets_N: Tensor, label_smoothing: float, between: Between | None = None
) -> Tensor:
    """The cross-entropies of all passes and what is between them, by chunks, as `projected_cross_entropy` says."""
    kind = hidden_PND.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_PND.dtype
    with torch.autocast(kind, enabled=False):
        if not torch.is_grad_enabled():
            return _sum(hidden_PND.to(dtype), weight_VD.to(dtype), targets_N, label_smoothing, between)
        args = hidden_PND, weight_VD, targets_N, label_smoothing, between, dtype
        loss: Tensor = _Projected.apply(*args)  # type: ignore[no-untyped-call]
    return loss


class _Projected(torch.autograd.Function):
    """The gradients are made in the forward pass, where the logits are, for a factor of 1."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        smoothing: float,
        between: Between | None,
        dtype: torch.dtype,
    ) -> Tensor:
        gradients = (
            hidden.new_empty(hidden.shape, dtype=_wide(hidden)), weight.new_zeros(weight.shape, dtype=_wide(weight))
        )  # fmt: skip
        loss = _sum(hidden.to(dtype), weight.to(dtype), targets, smoothing, between, gradients)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = hidden.dtype, weight.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        d_hidden, d_weight = ctx.saved_tensors
        return (d_hidden * factor).to(ctx.dtypes[0]), (d_weight * factor).to(ctx.dtypes[1]), None, None, None, None


def _sum(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    smoothing: float,
    between: Between | None,
    gradients: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The loss; writes its gradients by hidden and weight, (P, N, D) and zeros (V, D), where they are wanted.

    For one target t: d cross-entropy / d z = softmax(z) - (1 - smoothing) [v = t] - smoothing / V. The last term, the
    same for all, is added at the end from sums.
    """
    n_passes, n_classes = hidden.shape[0], weight.shape[0]
    loss = hidden.new_zeros((), dtype=_wide(hidden))
    size = max(1, CHUNK // (n_passes * n_classes))
    for start in range(0, len(targets), size):
        chunk = slice(start, start + size)
        targets_C1 = targets[chunk, None]
        logits = [product(hidden_CD, weight) for hidden_CD in hidden[:, chunk]]
        p = [logits_CV.softmax(1, dtype=_wide(hidden)) for logits_CV in logits]
        for logits_CV, p_CV in zip(logits, p, strict=True):
            _add_cross_entropy(loss, logits_CV, p_CV, targets_C1, smoothing)
        if between is not None:
            value, p = between(logits, p)
            loss += value
        if gradients is not None:
            off_target = targets_C1.new_full(targets_C1.shape, smoothing - 1, dtype=loss.dtype)
            for i, p_CV in enumerate(p):
                gradient_CV = p_CV.scatter_add_(1, targets_C1, off_target).to(hidden.dtype)
                _use_up(gradient_CV, hidden[i, chunk], weight, gradients[0][i, chunk], gradients[1])
    if smoothing and gradients is not None:
        gradients[0].sub_(weight.sum(0, dtype=_wide(weight)), alpha=smoothing / n_classes)
        gradients[1].sub_(hidden.flatten(0, 1).sum(0, dtype=_wide(hidden)), alpha=smoothing / n_classes)
    return loss


def _add_cross_entropy(loss: Tensor, logits_CV: Tensor, p_CV: Tensor, targets_C1: Tensor, smoothing: float) -> None:
    """For one target t: log sum exp(z) - (1 - smoothing) z_t - smoothing mean(z)."""
    # The largest probability is at least 1 / V: its logarithm is safe, where the target's might have underflown.
    total_C1 = logits_CV.amax(1, keepdim=True) - p_CV.amax(1, keepdim=True).log()
    loss += total_C1.sum() - (1 - smoothing) * logits_CV.gather(1, targets_C1).sum(dtype=loss.dtype)
    if smoothing:
        loss -= smoothing / logits_CV.shape[1] * logits_CV.sum(dtype=loss.dtype)


def _use_up(gradient_CV: Tensor, hidden_CD: Tensor, weight: Tensor, d_hidden_CD: Tensor, d_weight: Tensor) -> None:
    """From the gradient by logits to those by hidden states, written, and by the weight, added."""
    d_hidden_CD.copy_(product(gradient_CV, weight.t()))
    if gradient_CV.dtype == d_weight.dtype:
        d_weight.addmm_(gradient_CV.t(), hidden_CD)
    else:
        d_weight += gradient_CV.t() @ hidden_CD


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


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


class TokenPredictor:
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
