"""From a model and a split to the loop that trains one on the other, on the device and in the way that was chosen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from minitx.batch import Batch
from minitx.config import OptimConfig, TrainerConfig
from minitx.data import LENGTH_STEP, TARGET_STEP, Masker, ResidentSplit, Split
from minitx.nn.build import Model
from minitx.training.average import WeightAverage
from minitx.training.console import Reporter
from minitx.training.device import Compute
from minitx.training.loop import Loop, MakeBatch
from minitx.training.stepper import Stepper


def build_loop(
    model: Model,
    split: Split,
    optim: OptimConfig,
    trainer: TrainerConfig,
    compute: Compute,
    average: WeightAverage,
    reporter: Reporter,
    *,
    seed: int,
    sentences: bool = False,
    packed: bool = False,
    masker: Masker | None = None,
) -> Loop:
    """A loop at its beginning. model: on the compute's device already. sentences: it reads sentence numbers. packed: it
    computes real tokens alone (attention.backend varlen). masker: it guesses hidden tokens, and this hides them."""
    stepper = Stepper(
        model,
        optim,
        compute.device,
        compute.bf16,
        compute.compiled,
        fused=trainer.speed.fused_optimizer,
        graphs=compute.graphs,
    )
    make_batch = _batch_maker(split, trainer, compute, sentences, packed, masker)
    step = LENGTH_STEP if compute.graphs else 1
    return Loop(stepper, split, trainer, seed, average, reporter, make_batch, step)


def _batch_maker(
    split: Split, trainer: TrainerConfig, compute: Compute, sentences: bool, packed: bool, masker: Masker | None
) -> MakeBatch:
    """Batches cut on the host, or on the GPU where the token ids stay."""
    cut: Callable[[np.ndarray], Batch] = partial(split.batch, sentences=sentences, packed=packed)
    if compute.graphs or (trainer.speed.resident and compute.device.type == "cuda"):
        few_shapes = trainer.batch_tokens if compute.graphs else None
        cut = ResidentSplit(split, compute.device, sentences=sentences, packed=packed, few_shapes=few_shapes).batch
    if masker is None:
        return lambda rows, epoch: cut(rows)
    target_step = TARGET_STEP if compute.graphs else None
    return lambda rows, epoch: masker(cut(rows), rows, epoch, target_step)
