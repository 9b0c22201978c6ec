"""The contestant minitx: the loop, the batches and the process settings of training itself, not a copy of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from minitx.batch import EOS, Batch
from minitx.bench.jobs import Job, Size
from minitx.bench.measure import StepClock, now, training_result
from minitx.bench.workloads import batch_budget, load_split
from minitx.config import NetConfig, OptimConfig, TrainerConfig, TransformerConfig
from minitx.config.load import override_tree
from minitx.data import Split, load_data, plan_eval
from minitx.data.splits import IntArray
from minitx.decoding.beam import beam_search
from minitx.decoding.greedy import greedy
from minitx.decoding.inference import inference
from minitx.nn.build import Model, build_model
from minitx.nn.classifier import Classifier
from minitx.nn.sizes import ModelShape
from minitx.nn.transformer import Encoder, EncoderLayer
from minitx.nn.translator import Translator
from minitx.training.console import Reporter
from minitx.training.device import compute_of, frozen_garbage, prepare_process, resolve_compute
from minitx.training.loop import Hooks, Loop, build_loop
from minitx.training.optim import WeightAverage
from minitx.training.signals import StopRequest
from minitx.training.trainer import model_shape

PREDICTION_TOKENS = 4096
"""Padded tokens in a batch of `minitx predict`."""
MANY_STEPS = 1_000_000
LOSSES = 20
"""Steps whose losses are compared between devices."""


class _Stopwatch(StopRequest):
    """The loop asks before each step whether to stop: the one place to take the time without changing the loop."""

    def __init__(self, clock: StepClock, loop: Loop) -> None:
        super().__init__()
        self.clock, self.loop, self.seen, self.stopped = clock, loop, 0, False

    def __bool__(self) -> bool:
        if not self.stopped and self.loop.counters.step == self.seen:
            self.stopped = not self.clock.before_step(self.seen)
            self.seen += 1
        return self.stopped


def train(job: Job) -> dict[str, Any]:
    """Steps of real training, in the loop itself: stream, batch, forward, backward, clip, update, log."""
    prepare(job)
    split = load_split(job.size, job.ids)
    budget = batch_budget(job, split)
    loop = training_loop(job, split, trainer_config(job, budget))
    clock, batches = timed(loop, job)
    model = loop.stepper.model
    first_only = computes_first_only(model, split)
    result = training_result(job, clock, split, batches[job.warmup :], model, first_only=first_only)
    return {**result, "batch_tokens": budget}


def timed(
    loop: Loop, job: Job, record: Callable[[dict[str, Any]], None] | None = None
) -> tuple[StepClock, list[IntArray]]:
    """Run the loop for the job's steps; its clock, and the rows of each batch."""
    make_batch, batches = loop.make_batch, list[IntArray]()

    def noted(rows: IntArray, epoch: int) -> Batch:
        batches.append(rows)
        return make_batch(rows, epoch)

    loop.make_batch = noted
    clock = StepClock(job.warmup, job.steps, loop.stepper.device)
    hooks = Hooks(validate=_never, record=record or (lambda _: None), on_validation=_never, save_last=lambda: None)
    with frozen_garbage(job.speed.freeze_gc):
        loop.run(hooks, _Stopwatch(clock, loop))
    return clock, batches


def recipe(job: Job) -> dict[str, Any]:
    """Steps of a run's own training: speed, and the logged losses."""
    assert job.config is not None, "a recipe is that of a run"
    text = Path(job.config).read_text(encoding="utf-8")
    never = [f"trainer.{key}={MANY_STEPS}" for key in ("eval_every", "save_every", "max_steps")]
    unlimited = ["trainer.max_epochs=null", "trainer.max_minutes=null", "trainer.min_steps=null"]
    config = override_tree(yaml.safe_load(text), [*never, *unlimited, *job.overrides])
    assert isinstance(config.model, NetConfig)
    compute = compute_of(config)
    prepare_process(config.trainer.speed, compute.device, job.threads)
    data = load_data(config.data)
    torch.manual_seed(config.seed)
    model = build_model(config.model, model_shape(config, data)).to(compute.device)
    average = WeightAverage(model, config.trainer.average)
    loop = build_loop(
        model, data.splits["train"], config.optim, config.trainer, compute, average,
        Reporter(stream=io.StringIO(), quiet=True), seed=config.seed, sentences=config.model.reads_sentences,
    )  # fmt: skip
    losses: list[float] = []
    clock, batches = timed(loop, job, lambda line: losses.append(line["loss"]))
    seconds = clock.times[-1] - clock.times[0]
    lengths = (data.splits["train"].tgt or data.splits["train"].src).lengths
    tokens = sum(int(lengths[rows].sum()) for rows in batches[job.warmup * config.trainer.accumulate :])
    return {
        "precision": compute.precision, "steps": job.steps, "ms_per_step": 1e3 * seconds / job.steps,
        "tokens_per_second": tokens / seconds, "losses": losses[:LOSSES],
    }  # fmt: skip


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
        cuda_graphs="on" if job.how == "graphs" else "off", threads=job.threads, speed=job.speed,
    )  # fmt: skip


def _never(*_: object) -> NoReturn:
    raise AssertionError("a measurement is too short to be validated")


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
        if job.beam > 1:
            found = beam_search([model], batch, job.beam, max_length=job.written)
            return sum(len(hypotheses[0].ids) for hypotheses in found)
        return sum(len(ids) for ids in greedy(model, batch, job.written))
    return len(model(batch).argmax(-1).tolist())


@torch.no_grad()
def never_end(tokens: nn.Embedding) -> None:
    """An untrained model ends its rows by chance. With EOS at zero in the tied table it never does, so that everybody
    writes the same number of tokens."""
    tokens.weight[EOS] = 0.0
