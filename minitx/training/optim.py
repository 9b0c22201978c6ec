"""AdamW with decay on matrices only, and learning-rate schedules as plain functions of the step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from minitx.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig, fused: bool = True) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101); weight decay skips biases, norms and embeddings.

    fused: one kernel per tensor. On two CPU cores it took a third of the time of the plain loop over operations.
    Parameters keep the order of `model.named_parameters()` within their group, so that saved state finds its place.
    """
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in model.parameters():
        (decayed if parameter.ndim >= 2 and id(parameter) not in embeddings else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=fused or None
    )


def learning_rate(config: OptimConfig, step: int, total_steps: int) -> float:
    """The learning rate of optimiser step `step` (0-based) in a run of `total_steps`.

    Linear warm-up to `lr`, then: `cosine` or `linear`, which reach `min_lr_ratio * lr` one step after the last (at
    0 it would train nothing), `inverse_sqrt` (Vaswani et al. 2017, section 5.3), or `constant`.
    """
    warmup = warmup_steps(config, total_steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "inverse_sqrt":
        return config.lr * math.sqrt(max(warmup, 1) / (step + 1))
    done = min(1.0, (step + 1 - warmup) / (total_steps - warmup + 1))
    shape = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * shape)


def warmup_steps(config: OptimConfig, total_steps: int) -> int:
    """Steps of warm-up: as configured, or a share of the run."""
    return config.warmup_steps if config.warmup_steps is not None else round(config.warmup_ratio * total_steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value
