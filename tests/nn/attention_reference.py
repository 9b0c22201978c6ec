"""Slow and obvious attention: one query, one head and one key at a time, in the words of the paper.

No masks: each query simply lists the keys that it may read. Built of differentiable operations, so it gives reference
gradients as well. `to_torch` and `from_torch` move weights to torch's own module and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from minitx.nn.attention.convert import grouped_to_split
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.attention.projections import GroupedProjection, Head, ReducedProjection, SplitProjection

MayRead = Callable[[int, int, int], bool]
"""(row, query, key) -> may the query read the key?"""

Part = tuple[Tensor, Tensor]
"""Weight (K, D) and bias (K,)."""


def may_read(
    span: str,
    window: int,
    causal: bool,
    n_queries: int,
    n_keys: int,
    real: Sequence[Sequence[bool]] | None = None,
    sentence: Sequence[Sequence[int]] | None = None,
) -> MayRead:
    """The rule in words. Queries are the last of the key positions."""

    def rule(row: int, query: int, key: int) -> bool:
        position = n_keys - n_queries + query
        if real is not None and not real[row][key]:
            return False
        if causal and key > position:
            return False
        if span == "window" and abs(key - position) > window:
            return False
        return not (span == "sentence" and sentence is not None and sentence[row][key] != sentence[row][position])

    return rule


def head_parts(attention: MultiHeadAttention) -> list[tuple[Part, Part, Part]]:
    """Query, key and value projection of each head, made of the module's own parameters."""
    project, width = attention.project, attention.head_dim
    if isinstance(project, GroupedProjection):
        heads = [head for head in project.heads if isinstance(head, Head)]
        return [tuple(_part(p.weight, p.bias) for p in (h.query, h.key, h.value)) for h in heads]  # type: ignore[misc]
    if isinstance(project, ReducedProjection):
        return [_reduced_parts(attention, project, head) for head in range(attention.n_heads)]
    assert isinstance(project, SplitProjection)
    parts = []
    for head in range(attention.n_heads):
        three = []
        for which in range(3):
            start = (which * attention.n_heads + head) * width
            bias = None if project.bias is None else project.bias[start : start + width]
            three.append(_part(project.weight[start : start + width], bias))
        parts.append((three[0], three[1], three[2]))
    return parts


def _reduced_parts(attention: MultiHeadAttention, project: ReducedProjection, head: int) -> tuple[Part, Part, Part]:
    """Of one head, each as one matrix from D to K, whatever it is made of."""
    n_heads, width, d_model = attention.n_heads, attention.head_dim, attention.d_model
    narrow = torch.eye(d_model).double() if project.narrow is None else project.narrow.weight

    def rows(linear: nn.Linear, index: int) -> Part:
        here = slice(index * width, (index + 1) * width)
        return _part(linear.weight[here], None if linear.bias is None else linear.bias[here])

    def shared(linear: nn.Linear) -> Part:
        n_own = linear.weight.shape[0] // width
        weight, bias = rows(linear, head * n_own // n_heads)  # of H heads, the first H / G share the first of G
        return weight @ narrow, bias

    query = rows(project.query, head)
    value = torch.eye(d_model).double()[head * width : (head + 1) * width]
    return (
        query,
        query if project.key is None else shared(project.key),
        _part(value, None) if project.value is None else shared(project.value),
    )


def attend_by_loops(
    attention: MultiHeadAttention,
    x: Tensor,
    memory: Tensor,
    allowed: MayRead,
    gates: Sequence[Tensor] | None = None,
    turn: Callable[[Tensor, int], Tensor] = lambda vector, position: vector,
) -> Tensor:
    """(B, T, D): what `attention` must give for queries from x (B, T, D), keys and values from memory (B, S, D)."""
    rows = []
    for b in range(x.shape[0]):
        rows.append(torch.stack([_one_query(attention, x, memory, allowed, gates, turn, b, i) for i in _ts(x)]))
    return torch.stack(rows)


def _one_query(
    attention: MultiHeadAttention,
    x: Tensor,
    memory: Tensor,
    allowed: MayRead,
    gates: Sequence[Tensor] | None,
    turn: Callable[[Tensor, int], Tensor],
    b: int,
    i: int,
) -> Tensor:
    keys = [j for j in _ts(memory) if allowed(b, i, j)]
    results = []
    for h, (query, key, value) in enumerate(head_parts(attention)):
        if keys:
            q = turn(_apply(query, x[b, i]), i)
            scores = [q @ turn(_apply(key, memory[b, j]), j) / math.sqrt(attention.head_dim) for j in keys]
            weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
            result = sum(w * _apply(value, memory[b, j]) for w, j in zip(weights, keys, strict=True))
        else:
            result = x.new_zeros(attention.head_dim)
        assert isinstance(result, Tensor)
        results.append(result if gates is None else gates[h] * result)
    return _apply(_part(attention.output.weight, attention.output.bias), torch.cat(results))


def _ts(x: Tensor) -> range:
    return range(x.shape[1])


def _part(weight: Tensor, bias: Tensor | None) -> Part:
    return weight, weight.new_zeros(weight.shape[0]) if bias is None else bias


def _apply(part: Part, vector: Tensor) -> Tensor:
    weight, bias = part
    return weight @ vector + bias


def to_torch(attention: MultiHeadAttention) -> nn.MultiheadAttention:
    """torch's module with the same weights (batch_first).

    A ValueError where head_dim is not d_model / n_heads, or weights are left out.

    It takes masks the other way round: key_padding_mask True = padding. Span, causality and gates are not part of it.
    """
    d_model, n_heads = attention.d_model, attention.n_heads
    if attention.head_dim * n_heads != d_model:
        raise ValueError(
            f"torch's MultiheadAttention needs head_dim ({attention.head_dim}) to be d_model / n_heads "
            f"({d_model} / {n_heads})"
        )
    if attention.reduction is not None:
        raise ValueError(
            f"torch's MultiheadAttention has all weights of every head, and {attention.reduction} leaves some out"
        )
    state = grouped_to_split(attention.state_dict())
    weight, bias = state["output.weight"], "output.bias" in state
    result = nn.MultiheadAttention(
        d_model, n_heads, attention.dropout, bias, batch_first=True, device=weight.device, dtype=weight.dtype
    )
    result.load_state_dict({theirs: state[ours] for theirs, ours in _torch_names(bias).items()})
    return result.train(attention.training)


def from_torch(module: nn.MultiheadAttention) -> MultiHeadAttention:
    """Our module (split heads) with the same weights; a ValueError for the options ours does not have."""
    if module.in_proj_weight is None or module.bias_k is not None or module.add_zero_attn:
        raise ValueError("only a MultiheadAttention without kdim, vdim, add_bias_kv and add_zero_attn converts")
    bias = module.in_proj_bias is not None
    result = MultiHeadAttention(module.embed_dim, module.num_heads, dropout=module.dropout, bias=bias)
    state = module.state_dict()
    result.to(module.in_proj_weight)
    result.load_state_dict({ours: state[theirs] for theirs, ours in _torch_names(bias).items()})
    return result.train(module.training)


def _torch_names(bias: bool) -> dict[str, str]:
    """torch's parameter names -> ours, for the split form."""
    names = {"in_proj_weight": "project.weight", "out_proj.weight": "output.weight"}
    return names | ({"in_proj_bias": "project.bias", "out_proj.bias": "output.bias"} if bias else {})
