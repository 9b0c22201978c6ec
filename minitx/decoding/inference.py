"""What every use of a trained model shares: evaluation mode, ensembles by mean probability, probabilities of targets.

Letters in shapes: N real targets of a batch (or its texts, of a classifier), C classes, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from minitx.batch import Batch
from minitx.config import DecodeConfig
from minitx.nn.losses import CHUNK, TokenPredictor
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
    """The same models, known to predict hidden tokens."""
    return [model for model in models if isinstance(model, MaskedModel)]


# --------------------------------------------------------------------------------------------- logits, and ensembles


def full_logits(model: TokenPredictor, hidden: Tensor) -> Tensor:
    """(..., D) -> (..., V) in the weights' own type also under autocast.

    In bfloat16 a logit of 16 is known to 0.06 only: tokens would tie, and the scores of translations add that up.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return model.project(hidden.to(model.output_weight.dtype))


def log_mean(parts: Sequence[Tensor]) -> Tensor:
    """Logarithm of the mean of several models' probabilities, from their logarithms, all of one shape."""
    return torch.stack(list(parts)).logsumexp(0) - math.log(len(parts))


def mean_log_probs(models: Sequence[nn.Module], batch: Batch) -> Tensor:
    """(N, C): logarithm of the mean of several classifiers' probabilities."""
    return log_mean([model(batch).float().log_softmax(-1) for model in models])


# ------------------------------------------------------------------------------------------ probabilities of targets


@dataclass(frozen=True, kw_only=True)
class TranslationScore:
    """How probable a given translation is."""

    log_prob: float
    """Natural logarithm of its probability given the source text, its end included."""
    n_tokens: int
    """Tokens it was cut into, the end included: exp(-log_prob / n_tokens) is its perplexity."""


def token_log_probs(models: Sequence[Translator], batch: Batch) -> Tensor:
    """(N,) log probability of each real target given the source and the targets before it; of several models the
    logarithm of their mean probability. In the weights' type. Runs under the caller's autocast."""
    return log_mean([_token_log_probs(model, batch) for model in models])


def row_scores(models: Sequence[Translator], batch: Batch) -> list[TranslationScore]:
    """Each row's target as a whole."""
    assert batch.tgt_in is not None and batch.target_index is not None, "scoring needs targets"
    values_N = token_log_probs(models, batch).double()
    row_N = batch.target_index // batch.tgt_in.shape[1]
    sums = values_N.new_zeros(batch.n_rows).index_add_(0, row_N, values_N)
    counts = torch.bincount(row_N, minlength=batch.n_rows)
    return [TranslationScore(log_prob=s, n_tokens=n) for s, n in zip(sums.tolist(), counts.tolist(), strict=True)]


def _token_log_probs(model: Translator, batch: Batch) -> Tensor:
    """(N,); logits are made some targets at a time, as in training."""
    hidden_ND, size = model.hidden(batch), max(1, CHUNK // len(model.output_weight))
    parts = [
        full_logits(model, hidden).log_softmax(-1).gather(1, targets[:, None])[:, 0]
        for hidden, targets in zip(torch.split(hidden_ND, size), torch.split(batch.targets, size), strict=True)
    ]
    return torch.cat(parts)


def most_likely(models: Sequence[TokenPredictor], batch: Batch) -> tuple[Tensor, Tensor]:
    """(N,) log probability of the token that was there, and (N,) the most likely one; logits some tokens at a time."""
    size = max(1, CHUNK // len(models[0].output_weight))
    pieces = zip(*(torch.split(model.hidden(batch), size) for model in models), strict=True)
    log_probs, likeliest = [batch.src.new_zeros(0, dtype=torch.float32)], [batch.src.new_zeros(0)]
    for hidden, truth_C in zip(pieces, torch.split(batch.targets, size), strict=True):
        logits = [full_logits(model, hidden_CD) for model, hidden_CD in zip(models, hidden, strict=True)]
        log_probs_CV = log_mean([logits_CV.log_softmax(-1) for logits_CV in logits])
        log_probs.append(log_probs_CV.gather(1, truth_C[:, None])[:, 0])
        likeliest.append(log_probs_CV.argmax(-1))
    return torch.cat(log_probs), torch.cat(likeliest)
