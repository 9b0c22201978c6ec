"""Weights from split to grouped heads and back, for one attention or a whole model.

Both functions work on state dicts by name, so a checkpoint converts without a model: `*project.{weight,bias}` is the
split form, `*project.heads.<h>.{query,key,value}.{weight,bias}` the grouped one; every other entry passes unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

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
