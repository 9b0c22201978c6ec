"""Configuration -> model, and the number of parameters it will have, predicted from the configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from minitx.config import TransformerConfig, rule
from minitx.nn.models import Classifier, Translator


@dataclass(frozen=True)
class ModelShape:
    """What the data decides about a model."""

    task: Literal["translation", "classification"]
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


def check_backend(config: TransformerConfig, device_type: str, precision: str) -> None:
    """That a run can train here with the attention kernel it asks for; prediction can, anywhere, and need not ask.

    Raises:
        ConfigError: backend varlen, and no GPU of a generation that its kernel knows, or another precision than bf16.
    """
    if config.attention.backend != "varlen":
        return
    why, remedy = "because model.attention.backend is varlen", "use model.attention.backend=auto"
    if device_type != "cuda":
        raise rule("trainer.device", device_type, f"be cuda, {why}", remedy)
    if torch.cuda.get_device_capability() < (8, 0):
        name = torch.cuda.get_device_name()
        raise rule("trainer.device", name, f"be of the Ampere generation or newer, {why}", remedy)
    if precision != "bf16":
        raise rule("trainer.precision", precision, f"be bf16, {why}", remedy)


def build_model(config: TransformerConfig, shape: ModelShape) -> Classifier | Translator:
    """A new model, on the CPU, in torch's default dtype; its random numbers come from torch's global generator."""
    if shape.task == "classification":
        assert shape.n_classes is not None
        return Classifier(config, shape.src_vocab, shape.n_classes, shape.max_length)
    assert shape.tgt_vocab is not None
    return Translator(config, shape.src_vocab, shape.tgt_vocab, shape.joint, shape.max_length)


def parameter_counts(config: TransformerConfig, shape: ModelShape) -> dict[str, int]:
    """Trainable parameters by part; a tied table counts once, under "embedding". The sum is the built model's."""
    width = config.d_model
    positions = width * shape.max_length if config.position == "learned" else 0
    final_norm = 2 * width if config.norm == "pre" else 0
    encoder = config.n_layers * _layer(config, n_attentions=1) + final_norm
    if shape.task == "classification":
        pooling = width if config.pooling == "attention" else 0
        return {
            "embedding": width * shape.src_vocab,
            "position": positions,
            "encoder": encoder,
            "head": pooling + (width + 1) * (shape.n_classes or 0),
        }
    target = width * (shape.tgt_vocab or 0)
    return {
        "embedding": width * shape.src_vocab + (0 if config.tie_embeddings and shape.joint else target),
        "position": 2 * positions,
        "encoder": encoder,
        "decoder": config.decoder_layers * _layer(config, n_attentions=2) + final_norm,
        "output": 0 if config.tie_embeddings else target,
    }


def non_embedding(counts: Mapping[str, int]) -> int:
    """Parameters other than token tables, learned positions and the output projection: what models are matched by."""
    return sum(n for part, n in counts.items() if part not in ("embedding", "position", "output"))


def _layer(config: TransformerConfig, n_attentions: int) -> int:
    """One layer: its attentions, its feed-forward part, and a norm for each."""
    width, heads_width, ff = config.d_model, config.n_heads * config.k_dim, config.ff_dim
    attention = 3 * heads_width * (width + 1) + width * (heads_width + 1)
    feed_forward = ff * (width + 1) + width * (ff + 1)
    return n_attentions * attention + feed_forward + (n_attentions + 1) * 2 * width
