"""What a study computes of a trained model beside its test scores: over-fitting at equal training loss, the difference
between two ways to build heads, and operations until a validation loss.

Each function with `@measure` gives numbers under its name, `fit.gap_at_0.3`, which are stored in the cell's
measures.json. To add a measure, write such a function here; a study then asks for it by name.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from minitx.batch import Batch
from minitx.config import Config, NetConfig, OptimConfig, TransformerConfig, rule
from minitx.data import TaskData, load_data
from minitx.data.batching import BatchStream
from minitx.metrics.evaluate import evaluate
from minitx.nn.attention.convert import grouped_to_split, split_to_grouped
from minitx.nn.build import Model, build_model
from minitx.nn.sizes import ModelShape
from minitx.sweeps.cells import measure
from minitx.training.run_folder import RunFolder
from minitx.training.saver import load_model
from minitx.training.trainer import TRAIN_EVALUATED, model_shape

FIT_LEVELS = (2.0, 1.5, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
"""Training losses, nats a target, at which over-fitting is read off."""
LEVELS = (2.0, 1.5, 1.2, 1.0, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
"""Validation losses, nats a target, to which operations are counted."""
GAP_RANGE, GAP_LEVELS = (1.0, 0.3), 36
"""Training losses over which the mean gap is taken."""
SOLVED = 0.9
"""Validation accuracy to which updates are counted."""
BATCHES = 4
"""Training batches that represent all."""
GIGA = 1e9


def losses_of(path: Path, split: str) -> dict[int, float]:
    """Step -> loss of a run: of `validation`, or of the training rows that were evaluated as validation is."""
    name = TRAIN_EVALUATED if split == "train" else split
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["loss"] for line in lines if line["split"] == name}


def at_level(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """The second number where the loss first falls to `level`, interpolated between two points.

    curve: (loss, anything) along training. None where it begins below, or never gets there.
    """
    for (loss_a, other_a), (loss_b, other_b) in itertools.pairwise(curve):
        if loss_a > level >= loss_b:
            return other_a + (loss_a - level) / (loss_a - loss_b) * (other_b - other_a)
    return None


# ------------------------------------------------------------------------------------------------------- over-fitting


@measure("fit", version="2")
def fit(path: Path, config: Config) -> dict[str, float]:
    """`gap_at_L`: validation loss minus training loss, both evaluated alike, where training loss first reached L.
    `mean_gap`: its mean over training losses from 1 to 0.3, where the run has come from above the one to below the
    other.
    """
    if not config.trainer.eval_train_rows:
        raise rule("trainer.eval_train_rows", 0, "be set, because the study measures over-fitting", "e.g. 500")
    train, validation = losses_of(path, "train"), losses_of(path, "validation")
    steps = sorted(train.keys() & validation.keys())
    curve = [(train[step], validation[step]) for step in steps]
    found = {"train_loss": curve[-1][0], "gap": curve[-1][1] - curve[-1][0]}
    gaps = [gap_at(curve, level) for level in np.linspace(*GAP_RANGE, GAP_LEVELS)]
    known = [gap for gap in gaps if gap is not None]
    if len(known) == GAP_LEVELS:
        found["mean_gap"] = float(np.mean(np.add(known[1:], known[:-1]) / 2))
    return found | {f"gap_at_{level:g}": gap for level in FIT_LEVELS if (gap := gap_at(curve, level)) is not None}


def gap_at(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """Validation minus training loss where training loss first falls to `level`; see `at_level`.

    curve: (training loss, validation loss) along training.
    """
    validation = at_level(curve, level)
    return None if validation is None else validation - level


# ------------------------------------------------------------------------------------------------------------ updates


@measure("updates", version="1")
def updates(path: Path, config: Config) -> dict[str, float]:
    """`log2_to_0.9`: log2 of the updates after which validation accuracy first was 0.9, on a line between two
    evaluations; left out where it never was. `log2_last`: log2 of all updates, what the first is above then.
    `reached_0.9`: 1 or 0."""
    if config.data.task != "classification":
        raise rule("data.task", config.data.task, "be classification, because the study counts updates to an accuracy")
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    curve = [(line["step"], line["accuracy"]) for line in lines if line["split"] == "validation"]
    return updates_to(curve)


def updates_to(curve: Sequence[tuple[float, float]], level: float = SOLVED) -> dict[str, float]:
    """curve: (step, accuracy) along training; a first evaluation above the level counts with its own step."""
    found = {"log2_last": math.log2(curve[-1][0]), f"reached_{level:g}": 0.0}
    reached = next((place for place, (_, accuracy) in enumerate(curve) if accuracy >= level), None)
    if reached is None:
        return found
    step, accuracy = curve[reached]
    if reached:
        step_before, before = curve[reached - 1]
        step = step_before + (level - before) / (accuracy - before) * (step - step_before)
    return {**found, f"reached_{level:g}": 1.0, f"log2_to_{level:g}": math.log2(step)}


# ------------------------------------------------------------------------------------------------------------- builds


@measure("builds", version="1")
def builds(path: Path, config: Config) -> dict[str, float]:
    """`difference`: by how much the loss of 100 test rows changes when trained heads are rebuilt, in float64."""
    if not isinstance(config.model, TransformerConfig):
        raise rule("model", config.model.kind, "be transformer, because heads are built in two ways there alone")
    best = load_model(RunFolder(path))
    assert best.shape is not None
    shape, state = best.shape, best.net.state_dict()
    other_way = "grouped" if config.model.attention.heads == "split" else "split"
    other_state = split_to_grouped(state, config.model.n_heads) if other_way == "grouped" else grouped_to_split(state)
    attention = config.model.attention.model_copy(update={"heads": other_way})
    losses = [
        _test_loss(config, _loaded(model, shape, weights))
        for model, weights in (
            (config.model, state),
            (config.model.model_copy(update={"attention": attention}), other_state),
        )
    ]
    return {"difference": abs(losses[0] - losses[1])}


def _loaded(config: NetConfig, shape: ModelShape, state: Mapping[str, torch.Tensor]) -> Model:
    model = build_model(config, shape)
    model.load_state_dict(dict(state))
    return model.double().eval()


def _test_loss(config: Config, model: Model) -> float:
    data = load_data(config.data)
    rows = np.arange(min(100, len(data.splits["test"])))
    return evaluate(
        model, data.splits["test"], data, device=torch.device("cpu"), precision="fp32",
        batch_tokens=config.trainer.batch_tokens, rows=rows,
    ).loss  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- operations


@measure("compute", version="1")
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
    model = build_model(plain(config.model), model_shape(config, data)).double().train()
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


def plain(net: NetConfig) -> NetConfig:
    """The same function from kernels that are counted: attention from plain matrix products."""
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
