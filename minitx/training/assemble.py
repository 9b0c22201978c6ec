"""From a model and a split to the loop that trains one on the other, on the device and in the way that was chosen."""

from __future__ import annotations

from functools import partial

from minitx.config import OptimConfig, TrainerConfig
from minitx.data import LENGTH_STEP, ResidentSplit, Split
from minitx.nn.models import Classifier, Translator
from minitx.training.average import WeightAverage
from minitx.training.console import Reporter
from minitx.training.device import Compute
from minitx.training.loop import Loop, MakeBatch
from minitx.training.stepper import Stepper


def build_loop(
    model: Classifier | Translator,
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
) -> Loop:
    """A loop at its beginning. model: on the compute's device already. sentences: it reads sentence numbers. packed: it
    computes real tokens alone (attention.backend varlen)."""
    stepper = Stepper(
        model,
        optim,
        compute.device,
        compute.bf16,
        compute.compiled,
        fused=trainer.speed.fused_optimizer,
        graphs=compute.graphs,
    )
    make_batch = _batch_maker(split, trainer, compute, sentences, packed)
    step = LENGTH_STEP if compute.graphs else 1
    return Loop(stepper, split, trainer, seed, average, reporter, make_batch, step)


def _batch_maker(split: Split, trainer: TrainerConfig, compute: Compute, sentences: bool, packed: bool) -> MakeBatch:
    """Batches cut on the host, or on the GPU where the token ids stay."""
    if compute.graphs or (trainer.speed.resident and compute.device.type == "cuda"):
        few_shapes = trainer.batch_tokens if compute.graphs else None
        resident = ResidentSplit(split, compute.device, sentences=sentences, packed=packed, few_shapes=few_shapes)
        return resident.batch
    return partial(split.batch, sentences=sentences, packed=packed)
