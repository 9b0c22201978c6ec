"""Forward and backward of a small model as one CUDA graph per batch shape: one launch instead of hundreds.

A small model's kernels are shorter than the time it takes to launch them. A graph records the launches of one batch
shape once, on buffers that stay where they are, and replays them. Shapes must come back for that to pay:
`ResidentSplit` makes few of them. A shape is computed as usual until it has been seen `WARM_UP` times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from minitx.batch import Batch

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
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            loss = compute()
        self._pool = self._pool or graph.pool()
        return graph, loss
