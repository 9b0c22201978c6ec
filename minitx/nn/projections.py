"""Two ways to make the heads' queries, keys and values; the same function, and `convert.py` moves weights across.
`reduced.py` has a third, which leaves weights out and is another function.

split: one projection whose result is cut into heads. grouped: one set of three small projections per head, computed
head after head. Both start from the same random numbers, so equal seeds give equal functions.

Letters in shapes: B rows, T queries, S keys, D model width, H heads, K head width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from minitx.nn.linear import linear, product, xavier

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
