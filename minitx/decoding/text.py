"""A trained model, or several, on the user's own texts: labels, translations, n-best lists, scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from minitx.batch import Batch
from minitx.config import DecodeConfig, Truncation, rule
from minitx.data import Split, TaskData, Tokenizer, encode_texts, plan_eval
from minitx.data.pipeline.encode import encode_examples
from minitx.data.sources import Examples
from minitx.data.splits import Task
from minitx.decoding.beam import Hypothesis, beam_search, translate
from minitx.decoding.greedy import cut_off, output_limits
from minitx.decoding.inference import (
    GREEDY,
    Precision,
    TranslationScore,
    inference,
    mean_log_probs,
    row_scores,
    tokens_at_once,
    translators,
)
from minitx.nn.baselines.linear import TfidfClassifier
from minitx.nn.build import Model

Output = TypeVar("Output")


@dataclass(frozen=True, kw_only=True)
class TextProcessor:
    """Texts to token ids and model outputs to text: tokenisers, class names, length limit. With the weights, all that
    prediction needs."""

    task: Task
    src_tokenizer: Tokenizer
    tgt_tokenizer: Tokenizer | None = None
    """Translation."""
    label_names: tuple[str, ...] | None = None
    """Classification."""
    max_length: int = 256
    """Tokens of a source text, special ones included; a longer text is cut."""
    truncate: Truncation = "head"
    """Which of its tokens are then kept; see `data.truncate`."""

    @classmethod
    def of(cls, data: TaskData, max_length: int, truncate: Truncation = "head") -> TextProcessor:
        """The processor of a task; `max_length` and `truncate` are those of its `data` section."""
        return cls(
            task=data.task,
            src_tokenizer=data.src_tokenizer,
            tgt_tokenizer=data.tgt_tokenizer,
            label_names=data.label_names,
            max_length=max_length,
            truncate=truncate,
        )

    def encode(self, texts: Sequence[str]) -> Split:
        """A split without targets, one row per text."""
        return encode_texts(texts, self.src_tokenizer, self.task, self.max_length, self.truncate)

    def encode_pairs(self, texts: Sequence[str], translations: Sequence[str], first: int = 1) -> Split:
        """A split with these targets. first: the number of the first pair, as an error calls it.

        Raises:
            ConfigError: a side is longer than `max_length`.
        """
        references: list[tuple[str, ...]] = [(translation,) for translation in translations]
        examples = Examples(list(texts), references=references)
        split = encode_examples(examples, self.src_tokenizer, self.output_tokenizer, self.max_length)
        if split.n_cut:
            cut = next(i for i, pair in enumerate(zip(texts, references, strict=True)) if self._is_cut(*pair))
            must = f"hold both sides of every pair, but pair {first + cut:,} has more tokens"
            raise rule("data.max_length", self.max_length, must, "the score of a part would mislead: leave it out")
        return split

    def _is_cut(self, text: str, references: tuple[str, ...]) -> bool:
        one = Examples([text], references=[references])
        return encode_examples(one, self.src_tokenizer, self.output_tokenizer, self.max_length).n_cut > 0

    def label(self, index: int) -> str:
        """Name of a class."""
        assert self.label_names is not None, "a classification processor names its labels"
        return self.label_names[index]

    @property
    def output_tokenizer(self) -> Tokenizer:
        """The target side's tokeniser, of a translation processor."""
        assert self.tgt_tokenizer is not None, "a translation processor has a target tokeniser"
        return self.tgt_tokenizer

    def text(self, ids: Iterable[int]) -> str:
        """The text of output ids, special tokens left out."""
        return self.output_tokenizer.decode(ids)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model makes of one text."""

    text: str
    """Label name, or output text."""
    probability: float | None = None
    """Of the class; of a translation, of all its tokens and its end. None where it was not asked for."""
    cut_off: bool = False
    """Translation: it reached the limit on its length before the model had ended it."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of a text's best translations."""

    text: str
    score: float
    """What candidates are ranked by: `log_prob` over a power of the length (`decode.length_penalty`)."""
    log_prob: float
    """Natural logarithm of the probability of its tokens."""
    cut_off: bool = False
    """It reached the limit on its length before the model had ended it."""


def likeliest_labels(
    probabilities_NC: npt.NDArray[np.floating[Any]], names: Sequence[str], n: int
) -> list[list[Answer]]:
    """The `n` likeliest classes of each row, or all where there are fewer, the likeliest first."""
    order_NC = np.argsort(-probabilities_NC, axis=1, kind="stable")[:, :n]
    return [
        [Answer(text=names[c], probability=float(row_C[c])) for c in order]
        for row_C, order in zip(probabilities_NC, order_NC.tolist(), strict=True)
    ]


def likeliest_translations(candidates: Iterable[Candidate]) -> list[Answer]:
    """The same candidates, in their order, each with its probability."""
    return [Answer(text=c.text, probability=math.exp(c.log_prob)) for c in candidates]


@dataclass(frozen=True, kw_only=True)
class LinearTextModel:
    """A linear model on the user's own texts; it reads them whole, on the CPU."""

    model: TfidfClassifier
    processor: TextProcessor
    decode: DecodeConfig
    """Read by no classifier."""
    device = torch.device("cpu")

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label name of each text, in the order of `texts`; [] for none."""
        return [answer.text for answer in self.answers(texts)]

    def answers(self, texts: Sequence[str]) -> list[Answer]:
        """`predict`, as answers."""
        classes = self.model.log_probs(texts).argmax(-1) if texts else []
        return [Answer(text=self.processor.label(index)) for index in classes]

    def likeliest(self, texts: Sequence[str], n: int) -> list[list[Answer]]:
        """The `n` likeliest labels of each text with their probabilities, the likeliest first."""
        names = self.processor.label_names
        assert names is not None, "a linear model is a classifier"
        return likeliest_labels(np.exp(self.model.log_probs(texts)), names, n) if texts else []

    def n_cut(self, texts: Sequence[str]) -> int:
        """None: texts are read whole."""
        return 0


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """Models (several = an ensemble by mean probability) with the processor they share, and how to run them."""

    models: tuple[Model, ...]
    processor: TextProcessor
    device: torch.device
    precision: Precision = "fp32"
    decode: DecodeConfig = GREEDY
    batch_tokens: int = 4096

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label name, or the best output text, of each text, in the order of `texts`; [] for none."""
        return [answer.text for answer in self.answers(texts)]

    def answers(self, texts: Sequence[str]) -> list[Answer]:
        """`predict`, with what else is known of each answer.

        Texts of about equal length go through the models together, so the order given costs nothing. A blank text is
        translated to nothing.
        """
        if self.processor.task == "masked":
            raise ValueError("a masked model predicts hidden tokens; only `evaluate` is for it")
        if self.processor.task == "classification":
            return self._in_order(self.processor.encode(texts), self._labels)
        outputs = self._in_order(self.processor.encode(texts), self._best)
        return [output if text.strip() else Answer(text="") for text, output in zip(texts, outputs, strict=True)]

    def n_best(self, texts: Sequence[str], n: int) -> list[list[Candidate]]:
        """The `n` best translations of each text, best first; fewer where the search found fewer, none of a blank one.

        The beam is at least `n`. A ValueError of a classifier, or where n < 1.
        """
        self._check_translates()
        if n < 1:
            raise ValueError(f"n ({n}) must be at least 1")
        wide = replace(self, decode=self.decode.model_copy(update={"beam": max(n, self.decode.beam)}))
        found = wide._in_order(self.processor.encode(texts), lambda batch: wide._candidates(batch, n))
        return [candidates if text.strip() else [] for text, candidates in zip(texts, found, strict=True)]

    def likeliest(self, texts: Sequence[str], n: int) -> list[list[Answer]]:
        """The `n` likeliest labels, or the `n` best translations (see `n_best`), of each text with probabilities."""
        names = self.processor.label_names
        if names is None:
            return [likeliest_translations(candidates) for candidates in self.n_best(texts, n)]
        return self._in_order(
            self.processor.encode(texts),
            lambda batch: likeliest_labels(mean_log_probs(self.models, batch).exp().cpu().numpy(), names, n),
        )

    def n_cut(self, texts: Sequence[str]) -> int:
        """How many texts are longer than the processor's `max_length` and are read in part."""
        return self.processor.encode(texts).n_cut

    def score(self, texts: Sequence[str], translations: Sequence[str], first: int = 1) -> list[TranslationScore]:
        """How probable each given translation is. first: the number of the first pair, as an error calls it.

        Raises:
            ValueError: of a classifier; or not as many translations as texts.
            ConfigError: a side is longer than the processor's `max_length`.
        """
        self._check_translates()
        if len(texts) != len(translations):
            raise ValueError(f"{len(texts)} texts must match {len(translations)} translations in number")
        return self._in_order(self.processor.encode_pairs(texts, translations, first), self._score)

    def _check_translates(self) -> None:
        if self.processor.task != "translation":
            raise ValueError(f"a model of {self.processor.task} has no translations")

    def _in_order(self, split: Split, compute: Callable[[Batch], Iterable[Output]]) -> list[Output]:
        """`compute` for batches of rows of about equal length, put back into the order of the split."""
        if not len(split):
            return []
        plan = plan_eval(split.lengths, tokens_at_once(self.batch_tokens, self.decode))
        with inference(self.models, self.device, self.precision):
            found = [item for rows in plan for item in compute(split.batch(rows).to(self.device))]
        return [found[i] for i in np.argsort(np.concatenate(plan))]

    def _labels(self, batch: Batch) -> list[Answer]:
        classes = mean_log_probs(self.models, batch).argmax(-1).tolist()
        return [Answer(text=self.processor.label(index)) for index in classes]

    def _best(self, batch: Batch) -> list[Answer]:
        models = translators(self.models)
        outputs = translate(models, batch, self.decode)
        cut = cut_off(models, batch, outputs).tolist()
        return [Answer(text=self.processor.text(ids), cut_off=c) for ids, c in zip(outputs, cut, strict=True)]

    def _candidates(self, batch: Batch, n: int) -> list[list[Candidate]]:
        models, beam, length_penalty = translators(self.models), self.decode.beam, self.decode.length_penalty
        found = beam_search(models, batch, beam, length_penalty=length_penalty, n_best=n)
        limits = output_limits(models, batch).tolist()
        return [
            [self._candidate(hypothesis, limit) for hypothesis in best]
            for best, limit in zip(found, limits, strict=True)
        ]

    def _candidate(self, found: Hypothesis, limit: int) -> Candidate:
        text, cut = self.processor.text(found.ids), len(found.ids) >= limit
        return Candidate(text=text, score=found.score, log_prob=found.log_prob, cut_off=cut)

    def _score(self, batch: Batch) -> list[TranslationScore]:
        return row_scores(translators(self.models), batch)
