"""One optimiser step: forward, backward, accumulate, clip, update. Nothing here waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minitx.batch import Batch
from minitx.config import OptimConfig
from minitx.nn.build import Model
from minitx.training.graphs import GraphCache
from minitx.training.optim import build_optimizer, set_learning_rate


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step leaves to be read later."""

    loss: Tensor
    """Scalar: smoothed loss summed over the step's targets, with R-Drop its term included."""
    grad_norm: Tensor
    """Scalar: total norm before clipping."""
    n_targets: int


class Stepper:
    """Owns model, optimiser and precision; knows nothing of epochs, logs or files."""

    def __init__(
        self,
        model: Model,
        optim: OptimConfig,
        device: torch.device,
        bf16: bool,
        compiled: bool,
        *,
        fused: bool = True,
        graphs: bool = False,
    ) -> None:
        """compiled, fused, graphs: see trainer.compile, trainer.speed.fused_optimizer and trainer.cuda_graphs."""
        self.model, self.optim, self.device, self.bf16 = model, optim, device, bf16
        self.optimizer = build_optimizer(model, optim, fused)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._loss: Callable[[Batch, float, float], Tensor]
        self._loss = torch.compile(model.loss, dynamic=True) if compiled else model.loss
        self._graphs = GraphCache(self._compute) if graphs else None

    def step(self, batches: Sequence[Batch], lr: float) -> StepResult:
        """Train on `batches` as one: summed losses, divided once by the real targets of them all."""
        n_targets = sum(batch.n_targets for batch in batches)
        self.model.train()
        compute = self._compute if self._graphs is None else self._graphs.run
        losses = [compute(batch.to(self.device), 1 / n_targets) for batch in batches]
        max_norm = self.optim.clip if self.optim.clip is not None else float("inf")
        grad_norm = nn.utils.clip_grad_norm_(self.parameters, max_norm)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=self._graphs is None)
        return StepResult(loss=torch.stack(losses).sum(), grad_norm=grad_norm.detach(), n_targets=n_targets)

    def _compute(self, batch: Batch, scale: float | Tensor) -> Tensor:
        """The batch's summed loss; adds the gradients of scale x loss."""
        cached = self._graphs is None  # a recorded cast of a weight must happen again in each replay
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=cached):
            loss = self._loss(batch, self.optim.label_smoothing, self.optim.r_drop)
        torch.autograd.backward(loss * scale)
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """The optimiser's state, flat: `<parameter name>.<slot>` -> tensor."""
        names = {id(p): name for name, p in self.model.named_parameters()}
        return {
            f"{names[id(parameter)]}.{slot}": torch.as_tensor(value)
            for parameter, slots in self.optimizer.state.items()
            for slot, value in slots.items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        by_name = dict(self.model.named_parameters())
        for key, value in state.items():
            name, slot = key.rsplit(".", 1)
            parameter = by_name[name]
            # AdamW counts its steps on the CPU, but for the fused kernel of a GPU.
            counter = value.ndim == 0 and parameter.ndim > 0 and not parameter.is_cuda
            self.optimizer.state[parameter][slot] = value.to("cpu" if counter else parameter.device, copy=True)
