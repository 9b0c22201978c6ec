"""Additive cross-attention (Bahdanau et al. 2015): scores v . tanh(W state + U memory) instead of products.

Letters in shapes: B rows, M rows of memory, T queries, S keys, D model width, H width of the asking states, A width of
the score's tanh.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minitx.nn.linear import xavier_linear
from minitx.nn.masks import masked_softmax
from minitx.nn.reading import Reading, Recorder

PIECE = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Elements of tanh(W state + U memory), (M, T, S, A), that are computed at once where four times as many are exceeded:
on a CPU they then stay in its caches, and elsewhere the whole would not fit beside the model."""


class AdditiveAttention(nn.Module):
    """States that ask read a memory; one head, A = D."""

    def __init__(self, n_in: int, d_model: int) -> None:
        super().__init__()
        self.query = xavier_linear(n_in, d_model)
        self.key = xavier_linear(d_model, d_model, bias=False)  # the query's would be a second one
        self.v = nn.Parameter(torch.randn(d_model) * d_model**-0.5)
        self.recorder: Recorder | None = None

    def forward(self, x_BTH: Tensor, memory_MSD: Tensor, keys_MSA: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, T, H) -> (B, T, D), the memory weighed. keys_MSA: from `keys`; key_mask: (M, S) bool, True = real token,
        None = none is padded. Each row of the memory serves B / M rows, one after another."""
        queries = self.query(x_BTH.reshape(len(memory_MSD), -1, x_BTH.shape[2]))
        scores = additive_scores(queries, keys_MSA, self.v)
        weights = masked_softmax(scores, None if key_mask is None else key_mask[:, None])
        if self.recorder is not None:
            self.recorder(Reading(weights[:, None]))
        return (weights @ memory_MSD).view(*x_BTH.shape[:2], -1)

    def keys(self, memory_MSD: Tensor) -> Tensor:
        """(M, S, D) -> (M, S, A)."""
        keys: Tensor = self.key(memory_MSD)
        return keys


def additive_scores(queries_MTA: Tensor, keys_MSA: Tensor, v: Tensor) -> Tensor:
    """(M, T, S): v . tanh(query + key).

    A large one is computed in pieces over T, whose tanh the backward pass computes again: T x S x A numbers are not
    kept, and the second tanh costs less than reading them from memory would.
    """
    n_rows, n_queries, width = queries_MTA.shape
    per_query, piece = n_rows * keys_MSA.shape[1] * width, PIECE["cuda" if queries_MTA.is_cuda else "cpu"]
    if n_queries * per_query <= 4 * piece:
        return _scores(queries_MTA, keys_MSA, v)
    pieces = torch.split(queries_MTA, max(1, piece // per_query), dim=1)
    scores = [
        checkpoint(_scores, queries, keys_MSA, v, use_reentrant=False, preserve_rng_state=False) for queries in pieces
    ]
    return torch.cat(scores, dim=1)


def _scores(queries_MTA: Tensor, keys_MSA: Tensor, v: Tensor) -> Tensor:
    return torch.tanh(queries_MTA[:, :, None] + keys_MSA[:, None]) @ v
