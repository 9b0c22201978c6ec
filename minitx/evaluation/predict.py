"""A trained model on the user's own texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from minitx.data import Split, TaskData, Tokenizer, encode_texts, plan_eval
from minitx.data.task import Task
from minitx.evaluation.decode import greedy
from minitx.evaluation.evaluate import Precision, judging
from minitx.nn.models import Translator


@dataclass(frozen=True, kw_only=True)
class Codec:
    """What stands between text and a model's numbers, on both sides; with the weights, all that prediction needs."""

    task: Task
    src_tokenizer: Tokenizer
    tgt_tokenizer: Tokenizer | None = None
    """Translation."""
    label_names: tuple[str, ...] | None = None
    """Classification."""
    max_length: int = 256
    """Tokens of a source text, special ones included; a longer text is cut."""

    @classmethod
    def of(cls, data: TaskData, max_length: int) -> Codec:
        """The codec of a task; `max_length` is `data.max_length` of its configuration."""
        return cls(
            task=data.task,
            src_tokenizer=data.src_tokenizer,
            tgt_tokenizer=data.tgt_tokenizer,
            label_names=data.label_names,
            max_length=max_length,
        )

    def encode(self, texts: Sequence[str]) -> Split:
        """A split without targets, one row per text."""
        return encode_texts(texts, self.src_tokenizer, self.task, self.max_length)

    def label(self, index: int) -> str:
        """Name of a class."""
        assert self.label_names is not None, "a classification codec names its labels"
        return self.label_names[index]

    @property
    def output_tokenizer(self) -> Tokenizer:
        """The target side's tokeniser, of a translation codec."""
        assert self.tgt_tokenizer is not None, "a translation codec has a target tokeniser"
        return self.tgt_tokenizer

    def text(self, ids: Iterable[int]) -> str:
        """The text of output ids, special tokens left out."""
        return self.output_tokenizer.decode(ids)


def predict_texts(
    model: nn.Module,
    texts: Sequence[str],
    codec: Codec,
    *,
    device: torch.device,
    precision: Precision = "fp32",
    batch_tokens: int = 4096,
) -> list[str]:
    """The label name, or the greedy output text, of each text, in the order of `texts`; [] for none.

    Texts of about equal length go through the model together, so the order given costs nothing.
    """
    if not texts:
        return []
    split = codec.encode(texts)
    plan = plan_eval(split.lengths, batch_tokens)
    found: list[str] = []
    with judging(model, device, precision):
        for chosen in plan:
            batch = split.batch(chosen).to(device)
            if isinstance(model, Translator):
                found += [codec.text(ids) for ids in greedy(model, batch)]
            else:
                found += [codec.label(index) for index in model(batch).argmax(-1).tolist()]
    return [found[i] for i in np.argsort(np.concatenate(plan))]
