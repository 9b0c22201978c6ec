"""Where a training step of ours goes, by module hooks and a stack of clocks: every moment belongs to one part.

    batch     rows to padded tensors              clip       between the last gradient and the optimiser
    forward   embedding, attention, feed-forward, the rest of the layers (norm, dropout, residual)
    backward  the same parts                      optimizer  AdamW
    head and loss  both ways together: a large vocabulary's are one computation        other  what is left

A GPU is waited for at every mark, so its times are longer than in training; `bare_ms` is a step without marks.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from minitx.batch import Batch
from minitx.bench.job import Job
from minitx.bench.ours import batch_budget, prepare, trainer_config, training_loop
from minitx.bench.timing import now
from minitx.bench.workloads import load_split
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.classifier import Classifier
from minitx.nn.transformer import FeedForward
from minitx.nn.translator import Translator
from minitx.training.step import Stepper

HEAD = "head and loss"


class _Clocks:
    """Exclusive times: whoever was entered last has the clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._stack = ["other"]
        self._mark = now(device)

    def lap(self, owner: str) -> None:
        """Give the time since the last mark to `owner`."""
        moment = now(self.device)
        self.seconds[owner] += moment - self._mark
        self._mark = moment

    def enter(self, name: str) -> None:
        self.lap(self._stack[-1])
        self._stack.append(name)

    def leave(self, name: str) -> None:
        """Leave `name` and whatever was entered inside it; nothing, if it was not entered."""
        if name not in self._stack:
            return
        self.lap(self._stack[-1])
        while self._stack.pop() != name:
            pass

    def swap(self, old: str, new: str) -> None:
        """One part ends where the next begins."""
        self.leave(old)
        self.enter(new)

    def restart(self) -> None:
        """Back to the outside; a gradient hook that never fired must not own the next step."""
        self.lap(self._stack[-1])
        self._stack = ["other"]


def split(job: Job) -> dict[str, Any]:
    """{"parts": {part: ms per step}, "step_ms": with marks, "bare_ms": without}, all of them means."""
    prepare(job)
    data = load_split(job.size, job.ids)
    loop = training_loop(job, data, trainer_config(job, batch_budget(job, data)))
    stepper, stream, make_batch = loop.stepper, loop.stream, loop.make_batch
    lr = stepper.optim.lr

    def step(clocks: _Clocks | None) -> float:
        start = now(stepper.device)
        if clocks is not None:
            clocks.restart()
            clocks.enter("batch")
        batch = make_batch(stream.next(), stream.epoch)
        if clocks is not None:
            clocks.leave("batch")
        stepper.step([batch], lr)
        if clocks is not None:
            clocks.restart()
        return now(stepper.device) - start

    for _ in range(job.warmup):
        step(None)
    bare = [step(None) for _ in range(job.steps)]
    clocks = _Clocks(stepper.device)
    _hang(stepper, clocks)
    step(clocks)
    clocks.restart()
    clocks.seconds.clear()
    marked = [step(clocks) for _ in range(job.steps)]
    total = sum(clocks.seconds.values())
    return {
        "parts": {name: 1e3 * seconds / job.steps for name, seconds in clocks.seconds.items()},
        "step_ms": 1e3 * total / job.steps,
        "bare_ms": 1e3 * statistics.mean(bare),
        "bare_seconds": bare,
        "step_seconds": marked,
    }


def _hang(stepper: Stepper, clocks: _Clocks) -> None:
    """Hooks on the model's parts and on the optimiser."""
    model = stepper.model
    assert isinstance(model, Classifier | Translator)
    for module in model.modules():
        name = _part(module, model)
        if name is not None:
            _watch(module, name, clocks)
    loss = stepper._loss

    def timed(batch: Batch, label_smoothing: float, r_drop: float) -> Tensor:
        clocks.enter(HEAD)  # until the backward pass ends, where nobody else has the clock
        return loss(batch, label_smoothing, r_drop)

    stepper._loss = timed
    stepper.optimizer.register_step_pre_hook(lambda *_: clocks.swap("clip", "optimizer"))
    stepper.optimizer.register_step_post_hook(lambda *_: clocks.leave("optimizer"))
    tables = {id(table): table for table in (model.src_tokens, getattr(model, "tgt_tokens", None)) if table is not None}
    for table in tables.values():
        assert isinstance(table, nn.Embedding)
        weight: Any = table.weight  # torch leaves this hook untyped
        weight.register_post_accumulate_grad_hook(lambda _: _backward_ends(clocks))


def _backward_ends(clocks: _Clocks) -> None:
    """The token tables receive their gradients last; what follows until the optimiser is the clipping."""
    clocks.leave("clip")
    clocks.swap(HEAD, "clip")


def _part(module: nn.Module, model: Classifier | Translator) -> str | None:
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, MultiHeadAttention):
        return "attention"
    if isinstance(module, FeedForward):
        return "feed-forward"
    stacks = [model.encoder] + ([model.decoder] if isinstance(model, Translator) else [])
    return "norm+dropout+residual" if any(module is stack for stack in stacks) else None


def _watch(module: nn.Module, name: str, clocks: _Clocks) -> None:
    """Forward and backward of one module. An embedding's backward ends when its table's gradient is there."""

    def before(*_: Any) -> None:
        clocks.enter(f"forward {name}")

    def after(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        clocks.leave(f"forward {name}")
        if name == "embedding" and output.requires_grad:
            output.register_hook(lambda _: clocks.enter("backward embedding"))  # type: ignore[no-untyped-call]

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)
    if name != "embedding":
        module.register_full_backward_pre_hook(lambda *_: clocks.enter(f"backward {name}"))
        module.register_full_backward_hook(lambda *_: clocks.leave(f"backward {name}"))
