"""What every use of a trained model shares: evaluation mode, batch sizes, ensembles by mean probability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from minitx.batch import Batch
from minitx.config import DecodeConfig
from minitx.decoding.greedy import log_mean
from minitx.nn.masked import MaskedModel
from minitx.nn.translator import Translator

Precision = Literal["fp32", "bf16"]
GREEDY = DecodeConfig()


@contextmanager
def inference(models: Sequence[nn.Module], device: torch.device, precision: Precision) -> Iterator[None]:
    """Eval mode without gradients, under autocast for bf16; the modes are restored at the end, come what may."""
    modes = [(model, model.training) for model in models]
    for model in models:
        model.eval()
    try:
        # Not inference_mode: tables that a model caches here (rotary, sinusoidal) must stay usable in training.
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        for model, was_training in modes:
            model.train(was_training)


def tokens_at_once(batch_tokens: int, decode: DecodeConfig) -> int:
    """Tokens of source text in a batch: a beam multiplies the rows that are written."""
    return max(1, batch_tokens // decode.beam)


def translators(models: Sequence[nn.Module]) -> list[Translator]:
    """The same models, known to be translators."""
    return [model for model in models if isinstance(model, Translator)]


def masked_models(models: Sequence[nn.Module]) -> list[MaskedModel]:
    """The same models, known to guess hidden tokens."""
    return [model for model in models if isinstance(model, MaskedModel)]


def mean_log_probs(models: Sequence[nn.Module], batch: Batch) -> Tensor:
    """(N, C): logarithm of the mean of several classifiers' probabilities."""
    return log_mean([model(batch).float().log_softmax(-1) for model in models])
