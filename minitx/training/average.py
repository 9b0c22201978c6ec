"""Weight averaging: an exponential moving average over steps, or the mean of the last k validation points."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from minitx.config import AverageConfig


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
