"""How probable a given translation is: log probabilities of its tokens under one translator, or under several.

Letters in shapes: N real targets of a batch, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.batch import Batch
from minitx.decoding.greedy import full_logits, log_mean
from minitx.nn.losses import CHUNK
from minitx.nn.translator import Translator


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A given translation, as a model sees it."""

    log_prob: float
    """Natural logarithm of its probability given the source text, its end included."""
    n_tokens: int
    """Tokens it was cut into, the end included: exp(-log_prob / n_tokens) is its perplexity."""


def token_log_probs(models: Sequence[Translator], batch: Batch) -> Tensor:
    """(N,) log probability of each real target given the source and the targets before it; of several models the
    logarithm of their mean probability. In the weights' type. Runs under the caller's autocast."""
    return log_mean([_token_log_probs(model, batch) for model in models])


def row_scores(models: Sequence[Translator], batch: Batch) -> list[Scored]:
    """Each row's target as a whole."""
    assert batch.tgt_in is not None and batch.target_index is not None, "scoring needs targets"
    values_N = token_log_probs(models, batch).double()
    row_N = batch.target_index // batch.tgt_in.shape[1]
    sums = values_N.new_zeros(batch.n_rows).index_add_(0, row_N, values_N)
    counts = torch.bincount(row_N, minlength=batch.n_rows)
    return [Scored(log_prob=s, n_tokens=n) for s, n in zip(sums.tolist(), counts.tolist(), strict=True)]


def _token_log_probs(model: Translator, batch: Batch) -> Tensor:
    """(N,); logits are made some targets at a time, as in training."""
    hidden_ND, size = model.hidden(batch), max(1, CHUNK // len(model.output_weight))
    parts = [
        full_logits(model, hidden).log_softmax(-1).gather(1, targets[:, None])[:, 0]
        for hidden, targets in zip(torch.split(hidden_ND, size), torch.split(batch.targets, size), strict=True)
    ]
    return torch.cat(parts)
