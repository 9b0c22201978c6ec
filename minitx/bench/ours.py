"""The contestant minitx: the loop, the batches and the process settings of training itself, not a copy of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from minitx.batch import EOS, Batch
from minitx.bench.job import Job, Size
from minitx.bench.timing import StepClock, now, training_result
from minitx.bench.workloads import budget_for, load_split
from minitx.config import OptimConfig, TrainerConfig, TransformerConfig
from minitx.data import Split, plan_eval
from minitx.data.splits import IntArray
from minitx.decoding.greedy import greedy
from minitx.decoding.inference import inference
from minitx.nn.build import Model, build_model
from minitx.nn.classifier import Classifier
from minitx.nn.sizes import ModelShape
from minitx.nn.transformer import Encoder, EncoderLayer
from minitx.nn.translator import Translator
from minitx.training.console import Reporter
from minitx.training.device import frozen_garbage, prepare_process, resolve_compute
from minitx.training.loop import Hooks, Loop, build_loop
from minitx.training.optim import WeightAverage
from minitx.training.signals import StopRequest

PREDICTION_TOKENS = 4096
"""Padded tokens in a batch of `minitx predict`."""
MANY_STEPS = 1_000_000


class _Stopwatch(StopRequest):
    """The loop asks before each step whether to stop: the one place to take the time without changing the loop."""

    def __init__(self, clock: StepClock, loop: Loop) -> None:
        super().__init__()
        self.clock, self.loop, self.seen, self.stopped = clock, loop, 0, False

    def __bool__(self) -> bool:
        if not self.stopped and self.loop.progress.step == self.seen:
            self.stopped = not self.clock.before_step(self.seen)
            self.seen += 1
        return self.stopped


def train(job: Job) -> dict[str, Any]:
    """Steps of real training, in the loop itself: stream, batch, forward, backward, clip, update, log."""
    prepare(job)
    split = load_split(job.size, job.ids)
    budget = batch_budget(job, split)
    config = trainer_config(job, budget)
    loop = training_loop(job, split, config)
    make_batch = loop.make_batch
    batches: list[IntArray] = []

    def noted(rows: IntArray, epoch: int) -> Batch:
        batches.append(rows)
        return make_batch(rows, epoch)

    loop.make_batch = noted
    clock = StepClock(job.warmup, job.steps, loop.stepper.device)
    with frozen_garbage(job.speed.freeze_gc):
        loop.run(_HOOKS, _Stopwatch(clock, loop))
    model = loop.stepper.model
    first_only = computes_first_only(model, split)
    result = training_result(job, clock, split, batches[job.warmup :], model, first_only=first_only)
    return {**result, "batch_tokens": budget}


def training_loop(job: Job, split: Split, config: TrainerConfig) -> Loop:
    """The loop of `train.py`, before its first step."""
    compute = resolve_compute(config)
    optim = OptimConfig(
        lr=3e-4, schedule="constant", warmup_steps=0, clip=1.0, label_smoothing=job.size.label_smoothing
    )
    model = build(job.size).to(compute.device)
    reporter, average = Reporter(stream=io.StringIO(), quiet=True), WeightAverage(model, config.average)
    return build_loop(model, split, optim, config, compute, average, reporter, seed=job.seed)


def prepare(job: Job) -> None:
    """What a training run does to its process first."""
    prepare_process(job.speed, torch.device(job.device), job.threads)
    torch.manual_seed(job.seed)


def set_threads(job: Job) -> None:
    if job.threads is not None:
        torch.set_num_threads(job.threads)


def trainer_config(job: Job, budget: int) -> TrainerConfig:
    """A run that neither validates nor saves before it is stopped."""
    return TrainerConfig(
        batch_tokens=budget, max_epochs=None, max_steps=MANY_STEPS, eval_every=MANY_STEPS, save_every=MANY_STEPS,
        device=job.device, precision=job.precision, compile=job.how == "compiled",
        cuda_graphs=job.how == "graphs", threads=job.threads, speed=job.speed,
    )  # fmt: skip


def _never(*_: object) -> NoReturn:
    raise AssertionError("a measurement is too short to be validated")


_HOOKS = Hooks(validate=_never, record=lambda record: None, on_validation=_never, save_last=lambda: None)


def build(size: Size) -> Model:
    """Our model of this size: pre-norm, cls pooling or one tied joint vocabulary."""
    config = TransformerConfig(
        d_model=size.d_model, n_layers=size.n_layers, n_heads=size.n_heads, d_ff=size.d_ff,
        activation=size.activation, dropout=size.dropout, pooling="cls",
    )  # fmt: skip
    shape = ModelShape(
        task=size.task, src_vocab=size.vocab, tgt_vocab=size.vocab, n_classes=size.n_classes, joint=True,
        max_length=size.max_length,
    )  # fmt: skip
    return build_model(config, shape)


def batch_budget(job: Job, split: Split) -> int:
    """The budget given, or the one that holds as many real tokens per step as `rows` rows of average length."""
    if job.batch_tokens is not None:
        return job.batch_tokens
    lengths = split.lengths.astype(np.int64)
    return budget_for(lengths, job.rows * float(lengths.mean()), job.seed)


@torch.no_grad()
def computes_first_only(model: nn.Module, split: Split) -> bool:
    """Whether the last encoder layer computes the first position alone: looked up in the model, not assumed.

    Where it cannot be seen, yes: then too few operations are counted rather than too many.
    """
    if not isinstance(model, Classifier) or not isinstance(model.encoder, Encoder):
        return False
    seen: list[int] = []

    def note(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0].numel() // model.head.in_features)

    last = model.encoder.layers[-1]
    assert isinstance(last, EncoderLayer)
    device = next(model.parameters()).device
    with last.feed_forward.register_forward_pre_hook(note):
        model.eval()(split.batch(np.arange(1), sentences=False).to(device))
    return not seen or seen[0] == 1


# ---------------------------------------------------------------------------------------------------------- inference


def infer(job: Job) -> dict[str, Any]:
    """Rows in, classes or ids out: what `minitx predict` does between tokeniser and output, in a bare process."""
    set_threads(job)
    torch.manual_seed(job.seed)
    split, device, model = load_split(job.size, job.ids), torch.device(job.device), build(job.size)
    if isinstance(model, Translator):
        never_end(model.src_tokens)
    model.to(device)
    tokens = job.batch_tokens or PREDICTION_TOKENS
    with inference([model], device, job.precision):
        for batch in _batches(split, min(job.rows, job.infer_rows), tokens, device):
            _answer(model, batch, job)
        start, count = now(device), 0
        for batch in _batches(split, job.infer_rows, tokens, device):
            count += _answer(model, batch, job)
        seconds = now(device) - start
    return {"seconds": seconds, "count": count, "per_second": count / seconds}


def _batches(split: Split, rows: int, tokens: int, device: torch.device) -> Iterator[Batch]:
    for chosen in plan_eval(split.lengths[:rows], tokens):
        yield split.batch(chosen, sentences=False).to(device)


def _answer(model: Model, batch: Batch, job: Job) -> int:
    """Rows classified, or tokens written."""
    if isinstance(model, Translator):
        return sum(len(ids) for ids in greedy(model, batch, job.written))
    return len(model(batch).argmax(-1).tolist())


@torch.no_grad()
def never_end(tokens: nn.Embedding) -> None:
    """An untrained model ends its rows by chance. With EOS at zero in the tied table it never does, so that everybody
    writes the same number of tokens."""
    tokens.weight[EOS] = 0.0
