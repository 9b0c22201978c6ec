"""Two ways to make the heads' queries, keys and values; the same function, and `convert.py` moves weights across.
`reduced.py` has a third, which leaves weights out and is another function.

split: one projection whose result is cut into heads. grouped: one set of three small projections per head, computed
head after head. Both start from the same random numbers, so equal seeds give equal functions.

Letters in shapes: B rows, T queries, S keys, D model width, H heads, K head width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from minitx.nn.layers import linear, product, xavier, xavier_linear

Heads = tuple[Tensor, Tensor, Tensor]


class Projection(nn.Module, ABC):
    """Queries from x, keys and values from x (self-attention) or from memory (cross-attention)."""

    @abstractmethod
    def own(self, x_BTD: Tensor) -> Heads:
        """q (B, H, T, K), k and v as of `keys_values`, all from x."""

    @abstractmethod
    def queries(self, x_BTD: Tensor) -> Tensor:
        """(B, H, T, K)."""

    @abstractmethod
    def keys_values(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """k, v, each (B, H, S, K), or with fewer heads, see `reduced.spread`."""


class SplitProjection(Projection):
    """One weight (3 H K, D): the rows of q, then k, then v, each head after head. One matrix product for q, k, v."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int, bias: bool = True) -> None:
        super().__init__()
        self.n_heads, self.head_dim = n_heads, head_dim
        self.weight = nn.Parameter(fused_weight(d_model, n_heads, head_dim))
        self.bias = nn.Parameter(torch.zeros(3 * n_heads * head_dim)) if bias else None

    def own(self, x_BTD: Tensor) -> Heads:
        q, k, v = self._cut(product(x_BTD, self.weight, self.bias), 3)
        return q, k, v

    def queries(self, x_BTD: Tensor) -> Tensor:
        (weight, _), (bias, _) = self._parts()
        return self._cut(product(x_BTD, weight, bias), 1)[0]

    def keys_values(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        (_, weight), (_, bias) = self._parts()
        k, v = self._cut(product(memory_BSD, weight, bias), 2)
        return k, v

    def _cut(self, x: Tensor, n: int) -> tuple[Tensor, ...]:
        """(B, T, n H K) -> n views (B, H, T, K), without a copy."""
        return torch.unflatten(x, -1, (n, self.n_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)

    def _parts(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor | None, Tensor | None]]:
        """Weight and bias, each as (queries' part, keys' and values' part)."""
        cut = [self.n_heads * self.head_dim, 2 * self.n_heads * self.head_dim]
        q_weight, kv_weight = self.weight.split_with_sizes(cut)
        q_bias, kv_bias = (None, None) if self.bias is None else self.bias.split_with_sizes(cut)
        return (q_weight, kv_weight), (q_bias, kv_bias)


class Head(nn.Module):
    """The query, key and value projection of one head."""

    def __init__(self, query: nn.Linear, key: nn.Linear, value: nn.Linear) -> None:
        super().__init__()
        self.query, self.key, self.value = query, key, value


class GroupedProjection(Projection):
    """One `Head` per head, computed one after the other, the results set side by side."""

    def __init__(self, d_model: int, n_heads: int, head_dim: int, bias: bool = True) -> None:
        super().__init__()
        weights = fused_weight(d_model, n_heads, head_dim).view(3, n_heads, head_dim, d_model).unbind(1)
        parts = [[linear(w.clone(), torch.zeros(head_dim) if bias else None) for w in weight] for weight in weights]
        self.heads = nn.ModuleList(Head(query, key, value) for query, key, value in parts)

    def own(self, x_BTD: Tensor) -> Heads:
        return self.queries(x_BTD), *self.keys_values(x_BTD)

    def queries(self, x_BTD: Tensor) -> Tensor:
        return torch.stack([head.query(x_BTD) for head in self._heads()], dim=1)

    def keys_values(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        keys = torch.stack([head.key(memory_BSD) for head in self._heads()], dim=1)
        values = torch.stack([head.value(memory_BSD) for head in self._heads()], dim=1)
        return keys, values

    def _heads(self) -> list[Head]:
        return [cast(Head, head) for head in self.heads]


def fused_weight(d_model: int, n_heads: int, head_dim: int) -> Tensor:
    """(3 H K, D): Xavier weights for q, k and v, each as a matrix (H K, D) of its own."""
    return torch.cat([xavier(n_heads * head_dim, d_model) for _ in range(3)])


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
