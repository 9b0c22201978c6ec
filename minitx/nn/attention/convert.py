"""Weights across the forms of attention: split <-> grouped, for one attention or a whole model, and torch's own module.

The first two work on state dicts by name, so a checkpoint converts without a model: `*project.{weight,bias}` is the
split form, `*project.heads.<h>.{query,key,value}.{weight,bias}` the grouped one; every other entry passes unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from minitx.nn.attention.multi_head import MultiHeadAttention

PARTS = ("query", "key", "value")
SPLIT = re.compile(r"(?P<at>(?:.*\.)?project)\.(?P<what>weight|bias)")
GROUPED = re.compile(
    r"(?P<at>(?:.*\.)?project)\.heads\.(?P<head>\d+)\.(?P<part>query|key|value)\.(?P<what>weight|bias)"
)

State = dict[str, Tensor]


def split_to_grouped(state: Mapping[str, Tensor], n_heads: int) -> State:
    """The state of the same function with one set of projections per head. No entry shares memory with `state`'s."""
    result: State = {}
    for name, tensor in state.items():
        match = SPLIT.fullmatch(name)
        if match is None:
            result[name] = tensor.clone()
            continue
        if tensor.shape[0] % (3 * n_heads):
            raise ValueError(f"{name} has {tensor.shape[0]} rows, which 3 projections of {n_heads} heads cannot share")
        for part, rows in zip(PARTS, tensor.chunk(3), strict=True):
            for head, rows_of_head in enumerate(rows.chunk(n_heads)):
                result[f"{match['at']}.heads.{head}.{part}.{match['what']}"] = rows_of_head.clone()
    return result


def grouped_to_split(state: Mapping[str, Tensor]) -> State:
    """The state of the same function with one projection for all heads. No entry shares memory with `state`'s."""
    result: State = {}
    pieces: dict[str, dict[tuple[int, int], Tensor]] = {}
    for name, tensor in state.items():
        match = GROUPED.fullmatch(name)
        if match is None:
            result[name] = tensor.clone()
        else:
            place = PARTS.index(match["part"]), int(match["head"])
            pieces.setdefault(f"{match['at']}.{match['what']}", {})[place] = tensor
    for name, by_place in pieces.items():
        result[name] = torch.cat([by_place[place] for place in sorted(by_place)])
    return result


def to_torch(attention: MultiHeadAttention) -> nn.MultiheadAttention:
    """torch's module with the same weights (batch_first).

    A ValueError where head_dim is not d_model / n_heads, or weights are left out (see `reduced.py`).

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
