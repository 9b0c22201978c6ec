"""Our own model in detail: where the time of a training step goes, and memory and time against the length."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minitx.batch import Batch
from minitx.bench.jobs import Job
from minitx.bench.measure import now
from minitx.bench.ours import prepare, trainer_config, training_loop
from minitx.bench.workloads import batch_budget, load_split
from minitx.config import AttentionConfig, LstmConfig, TransformerConfig
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.classifier import Classifier
from minitx.nn.encoders import make_encoder
from minitx.nn.transformer import Encoder, FeedForward
from minitx.nn.translator import Translator
from minitx.training.device import peak_bytes
from minitx.training.step import Stepper

FIRST_LENGTH = 64
"""A step this long comes first: it loads libraries and starts threads, which belong to no length."""
LEAST_REPETITIONS, MOST_REPETITIONS = 3, 200


def memory(job: Job) -> dict[str, Any]:
    """{"bytes": {length: highest use during the step, less what was in use before it}}.

    Freed memory goes back to the system, as it does unless training is told otherwise.
    """
    device = _begin(job)
    _step(_encoder(job, FIRST_LENGTH, device), _states(job, FIRST_LENGTH, device), job)
    taken = {}
    for length in job.lengths:
        encoder, states = _encoder(job, length, device), _states(job, length, device)
        taken[str(length)] = peak_bytes(device, lambda: _step(encoder, states, job))  # noqa: B023  (called at once)
    return {"bytes": taken}


def cost(job: Job) -> dict[str, Any]:
    """{"seconds": {length: median}, "timings": {length: every one}}, after one step that is not counted."""
    device = _begin(job)
    timings: dict[str, list[float]] = {}
    for length in job.lengths:
        try:
            timings[str(length)] = _timings(job, length, device)
        except torch.OutOfMemoryError:  # longer rows need even more
            break
    return {"seconds": {length: statistics.median(t) for length, t in timings.items()}, "timings": timings}


def _timings(job: Job, length: int, device: torch.device) -> list[float]:
    """Seconds of repeated steps at one length."""
    encoder, states = _encoder(job, length, device), _states(job, length, device)
    _step(encoder, states, job)
    taken: list[float] = []
    while len(taken) < LEAST_REPETITIONS or (sum(taken) < job.seconds and len(taken) < MOST_REPETITIONS):
        start = now(device)
        _step(encoder, states, job)
        taken.append(now(device) - start)
    return taken


def parallel(job: Job) -> dict[str, Any]:
    """{"seconds": {device: {model: {length: median}}}} of a training step on `job.rows` rows, on the CPU and on
    `job.device`: what each gains from the wider machine (claim C6). Both have one layer of the same width."""
    width = job.size.d_model
    encoders: dict[str, Callable[[int], nn.Module]] = {
        "transformer": lambda length: make_encoder(
            TransformerConfig(d_model=width, n_layers=1, n_heads=job.size.n_heads, dropout=0.0), length
        ),
        "lstm": lambda length: make_encoder(LstmConfig(d_model=width, hidden=width, dropout=0.0), length),
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for device in dict.fromkeys(("cpu", job.device)):
        for name, make in encoders.items():
            for length in job.lengths:
                encoder = make(length).to(device)
                states = torch.randn(job.rows, length, width, device=device, requires_grad=True)
                taken = []
                for _ in range(1 + LEAST_REPETITIONS):
                    start = now(states.device)
                    _step(encoder, states, job)
                    taken.append(now(states.device) - start)
                found.setdefault(device, {}).setdefault(name, {})[str(length)] = statistics.median(taken[1:])
    return {"seconds": found}


def _begin(job: Job) -> torch.device:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    return torch.device(job.device)


def _encoder(job: Job, length: int, device: torch.device) -> Encoder:
    size = job.size
    if job.backend == "window":
        attention = AttentionConfig(span="window", window=job.window)
    else:
        attention = AttentionConfig(backend=job.backend)
    config = TransformerConfig(
        d_model=size.d_model, n_layers=size.n_layers, n_heads=size.n_heads, d_ff=size.d_ff, dropout=0.0,
        activation=size.activation, attention=attention,
    )  # fmt: skip
    return Encoder(config, length).to(device)


def _states(job: Job, length: int, device: torch.device) -> Tensor:
    return torch.randn(1, length, job.size.d_model, device=device, requires_grad=True)


def _step(encoder: nn.Module, states: Tensor, job: Job) -> None:
    """Forward and backward; the gradients are dropped, so that every step finds the same memory."""
    with torch.autocast(states.device.type, torch.bfloat16, enabled=job.precision == "bf16"):
        loss = encoder(states).float().square().mean()
    torch.autograd.backward(loss)
    encoder.zero_grad(set_to_none=True)
    states.grad = None


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
