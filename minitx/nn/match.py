"""Models of equal size: the inner width at which one net has as many parameters as another.

Width and task stay as they are, so token tables, positions and output projection are equal anyhow; what is compared is
the rest (`counts.non_embedding`).
"""

from __future__ import annotations

from minitx.config import ConfigError, NetConfig, rule
from minitx.nn.counts import ModelShape, non_embedding, parameter_counts

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
