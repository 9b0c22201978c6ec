"""The number of parameters a model will have, by part, predicted from the configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from minitx.config import BagConfig, CnnConfig, ConfigError, LstmConfig, NetConfig, TransformerConfig, rule
from minitx.nn.masked import transform_params
from minitx.nn.pooling import pooling_params


@dataclass(frozen=True)
class ModelShape:
    """What the data decides about a model."""

    task: Literal["translation", "classification", "masked"]
    src_vocab: int
    tgt_vocab: int | None = None
    """Translation: needed."""
    n_classes: int | None = None
    """Classification: needed."""
    joint: bool = False
    """Translation: source and target share one vocabulary."""
    max_length: int = 256
    """Rows of a learned position table, and of the precomputed sinusoids."""

    def __post_init__(self) -> None:
        if self.task == "classification" and not self.n_classes:
            raise ValueError("a classifier's shape needs n_classes")
        if self.task == "translation" and not self.tgt_vocab:
            raise ValueError("a translator's shape needs tgt_vocab")
        if self.joint and self.tgt_vocab != self.src_vocab:
            raise ValueError(f"a joint vocabulary has one size, not {self.src_vocab} and {self.tgt_vocab}")


def parameter_counts(config: NetConfig, shape: ModelShape) -> dict[str, int]:
    """Trainable parameters by part; a tied table counts once, under "embedding". The sum is the built model's."""
    width = config.d_model
    positions = _positions(config, shape.max_length)
    if shape.task != "translation":
        of_classifier = pooling_params(config.pooling, width) + (width + 1) * (shape.n_classes or 0)
        return {
            "embedding": _embedding(config, shape.src_vocab),
            "position": positions,
            "encoder": encoder_count(config),
            "head": transform_params(width) if shape.task == "masked" else of_classifier,
        }
    assert isinstance(config, TransformerConfig | LstmConfig)
    target = width * (shape.tgt_vocab or 0)
    return {
        "embedding": width * shape.src_vocab + (0 if config.tie_embeddings and shape.joint else target),
        "position": 2 * positions,
        "encoder": encoder_count(config),
        "decoder": decoder_count(config),
        "output": 0 if config.tie_embeddings else target,
    }


def non_embedding(counts: Mapping[str, int]) -> int:
    """Parameters other than token tables, learned positions and the output projection: what models are matched by."""
    return sum(n for part, n in counts.items() if part not in ("embedding", "position", "output"))


def encoder_count(config: NetConfig) -> int:
    """Of the encoder, whatever stands before and after it."""
    width = config.d_model
    match config:
        case TransformerConfig():
            return config.n_layers * _layer(config, n_attentions=1) + _last_norm(config)
        case CnnConfig():
            channels = config.inner_width
            layer = 2 * width + channels * (config.kernel * width + 1) + width * (channels + 1)
            return config.n_layers * layer + 2 * width
        case LstmConfig():
            hidden = config.inner_width
            layers = [2 * lstm_count(width if i == 0 else 2 * hidden, hidden) for i in range(config.n_layers)]
            return sum(layers) + width * (2 * hidden + 1)
    return 0


def decoder_count(config: TransformerConfig | LstmConfig) -> int:
    """Of a translator's decoder, its attention included."""
    if isinstance(config, TransformerConfig):
        return config.decoder_layers * _layer(config, n_attentions=2) + _last_norm(config)
    width, hidden, n_layers = config.d_model, config.inner_width, config.decoder_layers
    layers = lstm_count(width, hidden) + (n_layers - 1) * lstm_count(hidden, hidden)
    attention = width * (hidden + 1) + width * width + width
    return layers + n_layers * hidden * (width + 1) + attention + width * (hidden + width + 1)


def lstm_count(n_in: int, hidden: int) -> int:
    """Of one layer and direction: four gates, each with two biases (torch's form)."""
    return 4 * hidden * (n_in + hidden + 2)


def _embedding(config: NetConfig, vocab: int) -> int:
    grams = config.buckets if isinstance(config, BagConfig) and config.ngrams > 1 else 0
    return config.d_model * (vocab + grams)


def _positions(config: NetConfig, max_length: int) -> int:
    if not isinstance(config, TransformerConfig) or config.position != "learned":
        return 0
    return config.d_model * (max_length if config.chunk is None else min(config.chunk, max_length))


def _last_norm(config: TransformerConfig) -> int:
    return 2 * config.d_model if config.norm == "pre" else 0


def _layer(config: TransformerConfig, n_attentions: int) -> int:
    """One layer: its attentions, its feed-forward part, and a norm for each."""
    width, ff = config.d_model, config.ff_dim
    feed_forward = ff * (width + 1) + width * (ff + 1)
    return n_attentions * _attention(config) + feed_forward + (n_attentions + 1) * 2 * width


def _attention(config: TransformerConfig) -> int:
    """Queries, keys and values as far as they have weights, and the output projection."""
    asked, width, heads_width = config.attention, config.d_model, config.n_heads * config.k_dim
    kv_width, narrow = (asked.n_kv_heads or config.n_heads) * config.k_dim, (asked.kv_rank or 0) * width
    n_projected = (not asked.tie_query_key) + asked.project_values
    keys_values = narrow + n_projected * kv_width * ((asked.kv_rank or width) + 1)
    return heads_width * (width + 1) + keys_values + width * (heads_width + 1)


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
