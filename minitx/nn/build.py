"""From a configuration, and what the data decides, to a new model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minitx.config import LstmConfig, NetConfig, TransformerConfig
from minitx.nn.classifier import Classifier
from minitx.nn.masked import MaskedModel
from minitx.nn.translator import LEAST_EXPANSION, Translator

Model = Classifier | Translator | MaskedModel


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
    expansion: int = LEAST_EXPANSION
    """Translation: tokens that an output may have per source token, as far as training targets needed; see
    `Translator.output_limit`."""

    def __post_init__(self) -> None:
        if self.task == "classification" and not self.n_classes:
            raise ValueError("a classifier's shape needs n_classes")
        if self.task == "translation" and not self.tgt_vocab:
            raise ValueError("a translator's shape needs tgt_vocab")
        if self.joint and self.tgt_vocab != self.src_vocab:
            raise ValueError(f"a joint vocabulary has one size, not {self.src_vocab} and {self.tgt_vocab}")


def build_model(config: NetConfig, shape: ModelShape) -> Model:
    """A new model, on the CPU, in torch's default dtype; its random numbers come from torch's global generator."""
    if shape.task == "classification":
        assert shape.n_classes is not None
        return Classifier(config, shape.src_vocab, shape.n_classes, shape.max_length)
    if shape.task == "masked":
        return MaskedModel(config, shape.src_vocab, shape.max_length)
    assert shape.tgt_vocab is not None and isinstance(config, TransformerConfig | LstmConfig)
    return Translator(config, shape.src_vocab, shape.tgt_vocab, shape.joint, shape.max_length, shape.expansion)
