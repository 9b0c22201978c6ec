"""Operations that a run took, in all and to a validation loss: counted one by one, not predicted from a formula."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from minitx.batch import Batch
from minitx.config import Config, NetConfig, OptimConfig, TransformerConfig, rule
from minitx.data import TaskData, load_data
from minitx.data.batching import BatchStream
from minitx.nn.build import Model, build_model
from minitx.training.results import TRAIN_JUDGED
from minitx.training.run import model_shape


def losses_of(path: Path, split: str) -> dict[int, float]:
    """Step -> loss of a run: of `validation`, or of the training rows that were evaluated as validation is."""
    name = TRAIN_JUDGED if split == "train" else split
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["split"] == name}


def at_level(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """What stands beside the loss where it first falls to `level`, between two points in proportion.

    curve: (loss, anything) along training. None where it begins below, or never gets there.
    """
    for (loss_a, other_a), (loss_b, other_b) in itertools.pairwise(curve):
        if loss_a > level >= loss_b:
            return other_a + (loss_a - level) / (loss_a - loss_b) * (other_b - other_a)
    return None


LEVELS = (2.0, 1.5, 1.2, 1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
"""Validation losses, nats a target, to which operations are counted."""
BATCHES = 4
"""Training batches that stand for all."""
GIGA = 1e9


def compute(path: Path, config: Config) -> dict[str, float]:
    """`flops_per_step`, `gflops` of all steps, and `gflops_to_L` until validation loss first fell to L, if it did."""
    per_step = flops_per_step(config)
    losses = losses_of(path, "validation")
    curve = [(loss, per_step * step / GIGA) for step, loss in losses.items()]
    found = {"flops_per_step": per_step, "gflops": per_step * max(losses) / GIGA}
    return found | {f"gflops_to_{level:g}": n for level in LEVELS if (n := at_level(curve, level)) is not None}


def flops_per_step(config: Config) -> float:
    """Floating-point operations of a training step, the mean of the run's first batches.

    Raises:
        ConfigError: the steps are not of labelled texts or translations alone, or compute no padding.
    """
    assert isinstance(config.model, NetConfig)
    _check(config, config.model)
    data = load_data(config.data)
    model = build_model(_plain(config.model), model_shape(config, data)).double().train()
    counts = [count_flops(model, batch, config.optim) for batch in _batches(config, data)]
    return config.trainer.accumulate * sum(counts) / len(counts)


def count_flops(model: Model, batch: Batch, optim: OptimConfig) -> int:
    """Of one pass forwards and backwards."""
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(model.loss(batch, optim.label_smoothing, optim.r_drop))
    return int(counter.get_total_flops())


def _check(config: Config, net: NetConfig) -> None:
    why = "because the study counts operations"
    if config.data.task == "masked":
        raise rule("data.task", "masked", f"be classification or translation, {why}", "leave the measure out")
    if config.pretrain.kind != "none":
        raise rule("pretrain.kind", config.pretrain.kind, f"be none, {why}", "they would not hold the pretraining's")
    if net.reads_unpadded:
        raise rule("model.attention.backend", "varlen", f"be another, {why} with their padding")


def _plain(net: NetConfig) -> NetConfig:
    """The same function from kernels that are counted."""
    if not isinstance(net, TransformerConfig):
        return net
    return net.model_copy(update={"attention": net.attention.model_copy(update={"backend": "naive"})})


def _batches(config: Config, data: TaskData) -> Iterator[Batch]:
    """The first that the run was trained on."""
    assert isinstance(config.model, NetConfig)
    split, trainer = data.splits["train"], config.trainer
    stream = BatchStream(split.lengths, trainer.batch_tokens, config.seed, trainer.batch_rows)
    for _ in range(BATCHES):
        yield split.batch(stream.next(), sentences=config.model.reads_sentences)
