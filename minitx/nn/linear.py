"""Linear layers and token tables with their first weights; `blocks.py` has the table of all initialisations."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with this weight (out, in) and bias (out,), and no random numbers drawn besides."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


def xavier(n_out: int, n_in: int) -> Tensor:
    """(n_out, n_in), uniform with variance 2 / (n_in + n_out) (Glorot and Bengio 2010)."""
    bound = math.sqrt(6 / (n_in + n_out))
    return torch.empty(n_out, n_in).uniform_(-bound, bound)


def xavier_linear(n_in: int, n_out: int, bias: bool = True) -> nn.Linear:
    """A linear layer with Xavier weights and zero biases."""
    return linear(xavier(n_out, n_in), torch.zeros(n_out) if bias else None)


def token_table(vocab: int, d_model: int) -> nn.Embedding:
    """Token embeddings (V, D), normal with deviation D^-1/2: read times sqrt(D), and fit to be an output projection."""
    table = nn.Embedding(vocab, d_model, device="meta")
    table.weight = nn.Parameter(torch.randn(vocab, d_model) * d_model**-0.5)
    return table
