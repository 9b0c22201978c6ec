"""Forward and backward of a small model as one CUDA graph per batch shape: one launch instead of hundreds.

A small model's kernels are shorter than the time it takes to launch them. A graph records the launches of one batch
shape once, on buffers that stay where they are, and replays them. Shapes must come back for that to pay:
`ResidentSplit` makes few of them. A shape is computed as usual until it has been seen `WARM_UP` times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from minitx.batch import Batch
from minitx.config import OptimConfig
from minitx.distributed import ALONE, World
from minitx.errors import RunError
from minitx.nn.build import Model
from minitx.training.optim import build_optimizer, set_learning_rate

WARM_UP = 2
MOST_GRAPHS = 256
"""Each holds some memory of the driver's; further shapes are computed as usual."""

Compute = Callable[[Batch, Tensor], Tensor]
"""Batch and the factor of its loss -> summed loss; adds to the gradients, which exist already."""


class Graph(Protocol):
    """A recorded computation."""

    def replay(self) -> None: ...


Record = Callable[[Callable[[], Tensor]], tuple[Graph, Tensor]]
"""Records a computation without running it; returns it with the tensor that each replay writes."""


@dataclass(frozen=True)
class _Recorded:
    graph: Graph
    batch: Batch
    scale: Tensor
    loss: Tensor

    def run(self, batch: Batch, scale: float) -> Tensor:
        self.batch.copy_(batch)
        self.scale.fill_(scale)
        self.graph.replay()
        return self.loss.clone()  # the next replay of any graph may write there: they share their memory


class GraphCache:
    """Runs `compute`, by a graph where there is one for the batch's shape.

    Gradients must keep their memory between steps (`zero_grad(set_to_none=False)`).
    """

    def __init__(self, compute: Compute, record: Record | None = None) -> None:
        self._compute, self._record = compute, record or CudaRecorder()
        self._seen: Counter[Hashable] = Counter()
        self._recorded: dict[Hashable, _Recorded] = {}

    def run(self, batch: Batch, scale: float) -> Tensor:
        """The batch's summed loss, detached; gradients of scale x loss are added."""
        key = batch.shapes
        if key not in self._recorded:
            self._seen[key] += 1
            if self._seen[key] <= WARM_UP or len(self._recorded) >= MOST_GRAPHS:
                return self._compute(batch, torch.full((), scale, device=batch.src.device))
            self._recorded[key] = self._record_shape(batch)
        return self._recorded[key].run(batch, scale)

    def _record_shape(self, batch: Batch) -> _Recorded:
        own, scale = batch.clone(), torch.zeros((), device=batch.src.device)
        graph, loss = self._record(lambda: self._compute(own, scale))
        return _Recorded(graph, own, scale, loss)


class CudaRecorder:
    """Records by torch.cuda.CUDAGraph; all graphs share one pool of memory, as they run one after another."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, compute: Callable[[], Tensor]) -> tuple[Graph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        # thread_local: what other threads do with the device meanwhile is no part of the graph, and no error.
        try:
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                loss = compute()
        except RuntimeError as error:
            raise RunError(f"recording a CUDA graph failed ({error}); add trainer.cuda_graphs=off") from error
        self._pool = self._pool or graph.pool()
        return graph, loss


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step leaves to be read later."""

    loss: Tensor
    """Scalar: smoothed loss summed over the targets of this process, with R-Drop its term included."""
    grad_norm: Tensor
    """Scalar: total norm before clipping."""
    n_targets: int
    """Of all processes."""


class _Loss(nn.Module):
    """The model with its loss as forward pass: what several processes train is wrapped in a module."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, label_smoothing: float, r_drop: float) -> Tensor:
        """As the model's `loss`."""
        loss: Tensor = self.model.loss(batch, label_smoothing, r_drop)
        return loss


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
        world: World = ALONE,
    ) -> None:
        """compiled, fused, graphs: see trainer.compile, trainer.speed.fused_optimizer and trainer.cuda_graphs."""
        self.model, self.optim, self.device, self.bf16, self.world = model, optim, device, bf16, world
        self.optimizer = build_optimizer(model, optim, fused)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._parallel = world.parallel(_Loss(model)) if world.size > 1 else None
        loss: Callable[[Batch, float, float], Tensor] = model.loss if self._parallel is None else self._parallel
        self._loss = torch.compile(loss, dynamic=True) if compiled else loss
        self._graphs = GraphCache(self._compute) if graphs else None

    def step(
        self, batches: Sequence[Batch], lr: float, n_targets: int | None = None, seeds: Sequence[int] | None = None
    ) -> StepResult:
        """Train on `batches` as one: summed losses, divided once by the real targets of them all.

        n_targets: with those of the other processes; None = of these batches. seeds: of what is drawn for each batch;
        None = the generators go on from wherever they are.
        """
        n_targets = sum(batch.n_targets for batch in batches) if n_targets is None else n_targets
        self.model.train()
        scale = self.world.size / n_targets  # gradients are averaged over the processes
        losses = []
        for i, batch in enumerate(batches):
            if seeds is not None:
                self._seed(seeds[i])
            losses.append(self._local_loss(batch, scale, last=i == len(batches) - 1))
        max_norm = self.optim.clip if self.optim.clip is not None else float("inf")
        grad_norm = nn.utils.clip_grad_norm_(self.parameters, max_norm)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=self._graphs is None)
        return StepResult(loss=torch.stack(losses).sum(), grad_norm=grad_norm.detach(), n_targets=n_targets)

    def _local_loss(self, batch: Batch, scale: float, last: bool) -> Tensor:
        """The loss of one batch of this process, whose gradients the processes share after the last one."""
        compute = self._compute if self._graphs is None else self._graphs.run
        apart = nullcontext() if self._parallel is None or last else self._parallel.no_sync()
        with self.world.watched(), apart:
            return compute(batch.to(self.device), scale)

    def _seed(self, seed: int) -> None:
        """Not by torch.manual_seed, which looks for every kind of device there might be."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

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


def draw_seed(seed: int, step: int, place: int) -> int:
    """Of what is drawn (dropout, token noise) for one of the batches of a step, whichever process trains on it.

    seed: of the run. step: from 0. place: of the batch within the step.
    """
    return int(np.random.SeedSequence((seed, step, place)).generate_state(1, np.uint64)[0] >> 1)
