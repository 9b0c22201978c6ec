"""Fixtures: two tiny tasks, tokenised by the project's own data code, and untrained models for them in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
import torch

from minitx.batch import EOS
from minitx.config import AttentionConfig, LstmConfig, NetConfig, TokenizerConfig, TransformerConfig
from minitx.data import TaskData, Tokenizer
from minitx.data.pipeline.encode import encode_examples
from minitx.data.sources import Examples
from minitx.nn.build import build_model
from minitx.nn.classifier import Classifier
from minitx.nn.sizes import ModelShape
from minitx.nn.translator import Translator

MAX_LENGTH = 29
WORDS = ("ab", "abba", "baobab", "cab", "dab", "bad", "acacia", "decade", "facade", "a", "beef. cafe", "fade. bee")


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Models are built in torch's default type; in float64 no tie is broken by rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def spelling() -> TaskData:
    """Translation scored by error rates: a word to its letters in capitals, some words with a second reference."""
    texts = list(WORDS)
    references = [
        tuple(spelled(word) for word in ([text] if i % 3 else [text, text[::-1]])) for i, text in enumerate(texts)
    ]
    src = Tokenizer.fit(TokenizerConfig(kind="char"), texts)
    tgt = Tokenizer.fit(TokenizerConfig(kind="word"), [group[0] for group in references], symbols=True)
    split = encode_examples(Examples(texts, references=references), src, tgt, MAX_LENGTH)
    return TaskData(
        task="translation", splits={"train": split, "validation": split, "test": split}, src_tokenizer=src,
        tgt_tokenizer=tgt, joint=False, label_names=None, metrics="error_rate", source_fingerprint="spelling", notes=(),
    )  # fmt: skip


@pytest.fixture(scope="session")
def beginning() -> TaskData:
    """Classification: which letter a word begins with."""
    texts, names = [*WORDS, "[PAD] </script>"], ("a", "b", "c", "d", "e", "f", "[")
    labels = np.array([names.index(text[0]) for text in texts])
    src = Tokenizer.fit(TokenizerConfig(kind="char"), texts)
    split = encode_examples(Examples(texts, labels=labels), src, None, MAX_LENGTH)
    return TaskData(
        task="classification", splits={"train": split, "validation": split, "test": split}, src_tokenizer=src,
        tgt_tokenizer=None, joint=False, label_names=names, metrics="classification",
        source_fingerprint="begin", notes=(),
    )  # fmt: skip


def spelled(word: str) -> str:
    return " ".join(letter.upper() for letter in word if letter.isalpha())


Model = TypeVar("Model", Classifier, Translator)
MakeTranslator = Callable[..., Translator]
MakeClassifier = Callable[..., Classifier]


@pytest.fixture
def translator(spelling: TaskData) -> MakeTranslator:
    """make(seed, **model settings): a translator for `spelling` whose outputs end after different numbers of tokens."""

    def make(seed: int = 0, **settings: object) -> Translator:
        assert spelling.tgt_tokenizer is not None
        shape = ModelShape(
            "translation", spelling.src_tokenizer.vocab_size, spelling.tgt_tokenizer.vocab_size, max_length=MAX_LENGTH
        )
        model = _built(Translator, shape, seed, **settings)
        output = model.output or model.tgt_tokens
        assert output is not None
        with torch.no_grad():
            output.weight[EOS] *= 2.5  # large logits of either sign: some rows end early, some late, some never
        return model

    return make


@pytest.fixture
def classifier(beginning: TaskData) -> MakeClassifier:
    """make(seed, **model settings): a classifier for `beginning`."""

    def make(seed: int = 0, **settings: object) -> Classifier:
        assert beginning.label_names is not None
        shape = ModelShape(
            "classification", beginning.src_tokenizer.vocab_size, n_classes=len(beginning.label_names),
            max_length=MAX_LENGTH,
        )  # fmt: skip
        return _built(Classifier, shape, seed, **settings)

    return make


def _built(model_type: type[Model], shape: ModelShape, seed: int, **settings: object) -> Model:
    """Untied and with large weights, so that an untrained model's output depends on its input."""
    torch.manual_seed(seed)
    model = build_model(_config(**settings), shape)
    assert isinstance(model, model_type)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3 if weight.ndim > 1 else 1)
    return model.eval()


def _config(**settings: object) -> NetConfig:
    common = {"d_model": 12, "n_layers": 2, "tie_embeddings": False, **settings}
    if common.get("kind") == "lstm":
        return LstmConfig.model_validate({"hidden": 7, **common})
    of_attention = {key: common.pop(key) for key in ("span", "heads", "n_kv_heads") if key in common}
    attention = AttentionConfig.model_validate({"window": 2, **of_attention})
    return TransformerConfig.model_validate({"n_heads": 3, "d_ff": 17, **common, "attention": attention})
