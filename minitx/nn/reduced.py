"""Projections with weights left out: fewer heads of keys and values, keys and values of low rank, no key or no value.

    shared     G heads of keys and values, each for H / G heads of queries (arXiv 1911.02150, arXiv 2305.13245)
    low rank   x -> c of width R -> keys and values of all heads (arXiv 2405.04434, section 2.1)
    tied       the queries' weight makes the keys too
    unvalued   the states themselves, cut into heads, are the values

Keys and values come out with as many heads as they have weights for; attention spreads them over the queries' heads.

Letters in shapes: B rows, T queries, S keys, D model width, H heads, G heads of keys and values, K head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.nn.linear import xavier_linear
from minitx.nn.projections import Heads, Projection


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """What is left out; see the keys of the same names in `AttentionConfig`."""

    n_kv_heads: int | None = None
    kv_rank: int | None = None
    tie_query_key: bool = False
    project_values: bool = True


class ReducedProjection(Projection):
    """A matrix of its own for each of queries, keys and values that has one; keys and values (B, G, S, K)."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int, reduction: Reduction, bias: bool = True) -> None:
        """A ValueError where heads cannot be shared evenly, or the states cannot be cut into heads."""
        super().__init__()
        n_kv_heads, rank = reduction.n_kv_heads or n_heads, reduction.kv_rank
        if n_heads % n_kv_heads:
            raise ValueError(f"n_kv_heads ({n_kv_heads}) must divide n_heads ({n_heads})")
        if not reduction.project_values and n_heads * head_dim != d_model:
            raise ValueError(
                f"values that are not projected need n_heads x head_dim ({n_heads} x {head_dim}) = d_model ({d_model})"
            )
        self.head_dim = head_dim
        self.query = xavier_linear(d_model, n_heads * head_dim, bias)
        # No bias: what follows has one.
        self.narrow = None if rank is None else xavier_linear(d_model, rank, bias=False)
        width, kv_width = rank or d_model, n_kv_heads * head_dim
        self.key = None if reduction.tie_query_key else xavier_linear(width, kv_width, bias)
        self.value = xavier_linear(width, kv_width, bias) if reduction.project_values else None

    def own(self, x_BTD: Tensor) -> Heads:
        q = self.queries(x_BTD)
        return q, *self._keys_values(x_BTD, q)

    def queries(self, x_BTD: Tensor) -> Tensor:
        return self._cut(self.query(x_BTD))

    def keys_values(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        return self._keys_values(memory_BSD, self.queries(memory_BSD) if self.key is None else None)

    def _keys_values(self, memory_BSD: Tensor, tied_BHSK: Tensor | None) -> tuple[Tensor, Tensor]:
        """tied_BHSK: the keys, where they have no matrix of their own; else it is not read."""
        source = memory_BSD if self.narrow is None else self.narrow(memory_BSD)
        k = tied_BHSK if self.key is None else self._cut(self.key(source))
        assert k is not None, "queries without a matrix for keys are the keys"
        # Under autocast projected keys have its type and the states may not, but kernels want one type.
        return k, self._cut(memory_BSD.to(k.dtype) if self.value is None else self.value(source))

    def _cut(self, x_BSW: Tensor) -> Tensor:
        """(B, S, G K) -> (B, G, S, K), without a copy."""
        return torch.unflatten(x_BSW, -1, (-1, self.head_dim)).transpose(1, 2)


def spread(k_BGSK: Tensor, n_heads: int) -> Tensor:
    """(B, G, S, K) -> (B, H, S, K): each head H / G times in a row, the tensor itself where G is H."""
    n_shared = k_BGSK.shape[1]
    return k_BGSK if n_shared == n_heads else k_BGSK.repeat_interleave(n_heads // n_shared, dim=1)
