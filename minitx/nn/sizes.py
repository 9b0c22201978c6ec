"""How large a model is, by part, and models of equal size. Nothing is added up by hand: the model is built, but empty.

A model on torch's `meta` device has every parameter's shape and no numbers, so that building one takes milliseconds
whatever its size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from minitx.config import ConfigError, NetConfig, rule
from minitx.nn.build import ModelShape as ModelShape
from minitx.nn.build import build_model

PARTS = {
    "src_tokens": "embedding",
    "tgt_tokens": "embedding",
    "encoder": "encoder",
    "decoder": "decoder",
    "output": "output",
}
"""Attribute of a model -> the part that its parameters count under; all else counts under "head"."""
OF_TASK = {
    "classification": ("embedding", "position", "encoder", "head"),
    "masked": ("embedding", "position", "encoder", "head"),
    "translation": ("embedding", "position", "encoder", "decoder", "output"),
}


def parameter_counts(config: NetConfig, shape: ModelShape) -> dict[str, int]:
    """Trainable parameters by part; a tied table counts once, under "embedding"."""
    with torch.device("meta"):
        model = build_model(config, shape)
    counts = dict.fromkeys(OF_TASK[shape.task], 0)
    for name, parameter in model.named_parameters():
        counts["position" if ".positions." in name else PARTS.get(name.split(".")[0], "head")] += parameter.numel()
    return counts


def non_embedding(counts: Mapping[str, int]) -> int:
    """Parameters other than token tables, learned positions and the output projection: what models are matched by."""
    return sum(n for part, n in counts.items() if part not in ("embedding", "position", "output"))


TOLERANCE = 0.05
"""How far apart, relative to the target, two sizes may lie that count as equal."""
DEPTH_KEYS = ("n_layers", "kernel")
"""What else changes a size, at the same inner width."""


def match(config: NetConfig, shape: ModelShape, target: int) -> NetConfig:
    """`config` with the inner width whose non-embedding parameters are nearest to `target`.

    Raises:
        ConfigError: the model has no inner width, or no width comes within 5 % of the target.
    """
    if config.INNER is None:
        raise no_width(str(getattr(config, "kind", "")))
    above = 1
    while size_of(_at(config, above), shape) < target:
        above *= 2
    below = above // 2
    while above - below > 1:  # sizes grow with the width: below is too small, above is not
        middle = (below + above) // 2
        below, above = (middle, above) if size_of(_at(config, middle), shape) < target else (below, middle)
    found = min(
        (_at(config, width) for width in (below, above) if width), key=lambda c: abs(size_of(c, shape) - target)
    )
    size = size_of(found, shape)
    if abs(size - target) > TOLERANCE * target:
        others = " or ".join(f"model.{key}" for key in DEPTH_KEYS if key in type(config).model_fields)
        must = f"bring the model within {100 * TOLERANCE:g} % of {target:,} non-embedding parameters"
        raise rule(
            f"model.{config.INNER}", found.inner_width, f"{must}, but the nearest is {size:,}", f"change {others}"
        )
    return found


def size_of(config: NetConfig, shape: ModelShape) -> int:
    """Parameters by which models are matched."""
    return non_embedding(parameter_counts(config, shape))


def no_width(kind: str) -> ConfigError:
    """What is said of a model that cannot be matched."""
    why = "because nothing inside it has a width that could vary"
    return ConfigError(f"model ({kind}) must not be matched in size, {why}; transformer, cnn and lstm can be")


def _at(config: NetConfig, width: int) -> NetConfig:
    return config.model_copy(update={str(config.INNER): width})
