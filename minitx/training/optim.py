"""AdamW with decay on matrices only, learning-rate schedules as plain functions of the step, weight averaging."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from minitx.config import AverageConfig, OptimConfig
from minitx.nn.attention.positions import Positions


def build_optimizer(model: nn.Module, config: OptimConfig, fused: bool = True) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101); weight decay is on matrices: projections, the head of a
    classifier, a translator's output projection. Biases, norms and embeddings have none: tables of tokens (also one
    that is the output projection besides) and of learned positions.

    fused: one kernel per tensor. On two CPU cores it took a third of the time of the plain loop over operations.
    Parameters keep the order of `model.named_parameters()` within their group, so that saved state finds its place.
    """
    tables = (m for m in model.modules() if isinstance(m, nn.Embedding | Positions))
    embeddings = {id(p) for table in tables for p in table.parameters()}
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
    return decayed_rate(config, step, warmup, (step + 1 - warmup) / (total_steps - warmup + 1))


def decayed_rate(config: OptimConfig, step: int, warmup: int, done: float) -> float:
    """The learning rate of step `step` after a warm-up of `warmup` steps. done: the share of the decay that is over;
    1 or more is its end."""
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "inverse_sqrt":
        return config.lr * math.sqrt(max(warmup, 1) / (step + 1))
    done = min(1.0, done)
    shape = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * shape)


def warmup_steps(config: OptimConfig, total_steps: int) -> int:
    """Steps of warm-up: as configured, or a share of the run."""
    return config.warmup_steps if config.warmup_steps is not None else round(config.warmup_ratio * total_steps)


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


class WeightAverage:
    """Keeps averaged copies of a model's parameters; `applied` lends them to the model for a validation.

    `ema` (Polyak & Juditsky 1992, in the exponential form): updated by every optimiser step. `last` (Vaswani et al.
    2017, section 6.1): the mean of the weights at the last k validations. State is a flat mapping of tensors.
    """

    def __init__(self, model: nn.Module, config: AverageConfig) -> None:
        self.config = config
        self.names = [name for name, _ in model.named_parameters()]
        self.parameters: list[Tensor] = [p for _, p in model.named_parameters()]
        self.snapshots: list[list[Tensor]] = []
        if config.kind == "ema":
            self.snapshots = [self._copy()]

    def _copy(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Follow the weights after optimiser step number `step` (1-based); the first steps follow faster."""
        if self.config.kind != "ema":
            return
        decay = min(self.config.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.snapshots[0], self.parameters, 1 - decay)

    def at_validation(self) -> None:
        """Take the snapshot of `last`."""
        if self.config.kind == "last":
            self.snapshots = [*self.snapshots[-(self.config.k - 1) :], self._copy()]

    def averaged(self) -> list[Tensor]:
        """The averaged weights, in the order of `model.parameters()`."""
        if len(self.snapshots) == 1:
            return self.snapshots[0]
        return [torch.stack(tensors).mean(0) for tensors in zip(*self.snapshots, strict=True)]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside, and its own again, bit for bit, after."""
        if not self.snapshots:
            yield
            return
        own = self._copy()
        self._load(self.averaged())
        try:
            yield
        finally:
            self._load(own)

    @torch.no_grad()
    def _load(self, tensors: list[Tensor]) -> None:
        for parameter, tensor in zip(self.parameters, tensors, strict=True):
            parameter.copy_(tensor)

    def state(self) -> dict[str, Tensor]:
        """`<snapshot number>.<parameter name>` -> tensor."""
        return {f"{k}.{n}": t for k, snap in enumerate(self.snapshots) for n, t in zip(self.names, snap, strict=True)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        count = len(state) // len(self.names)
        devices = [p.device for p in self.parameters]
        self.snapshots = [
            [state[f"{k}.{name}"].to(device) for name, device in zip(self.names, devices, strict=True)]
            for k in range(count)
        ]
