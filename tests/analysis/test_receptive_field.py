"""The receptive field of every encoder, against loops of autograd calls and against its configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from minitx.analysis.head_statistics import sample_batches
from minitx.analysis.receptive_field import POSITIONS, ReceptiveField, draw, measure_receptive_field
from minitx.batch import Batch
from minitx.config import BagConfig, CnnConfig, NetConfig
from minitx.data import TaskData
from minitx.decoding.inference import inference
from minitx.nn.build import Model, build_model
from minitx.nn.classifier import Classifier
from minitx.nn.sizes import ModelShape
from minitx.nn.translator import Translator

CPU = torch.device("cpu")
KINDS: list[Any] = [
    pytest.param({}, id="transformer"),
    pytest.param({"position": "rotary", "head_dim": 6, "norm": "post"}, id="rotary-post-norm"),
    pytest.param({"kind": "lstm"}, id="lstm"),
    pytest.param({"kind": "cnn"}, id="cnn"),
]


@pytest.fixture
def made(classifier: Callable[..., Classifier], beginning: TaskData) -> Callable[..., Model]:
    def make(**settings: Any) -> Model:
        if settings.pop("kind", None) != "cnn":
            return classifier(**settings)
        return convolution(CnnConfig(**{"d_model": 12, "n_layers": 2, "channels": 7, **settings}), beginning)

    return make


def convolution(config: NetConfig, data: TaskData) -> Model:
    torch.manual_seed(0)
    assert data.label_names is not None
    shape = ModelShape(
        "classification", data.src_tokenizer.vocab_size, n_classes=len(data.label_names), max_length=29
    )  # fmt: skip
    return build_model(config, shape).eval()


def found(model: Model, data: TaskData, batch_tokens: int = 53, seed: int = 0) -> ReceptiveField:
    batches = sample_batches(model, data.splits["test"], data, device=CPU, rows=99, batch_tokens=batch_tokens)
    with inference([model], CPU, "fp32"):
        return measure_receptive_field(model, batches, seed)


def of_texts(model: Model, *lengths: int) -> ReceptiveField:
    """Of random texts."""
    with inference([model], CPU, "fp32"):
        return measure_receptive_field(model, [text(n, row) for row, n in enumerate(lengths)])


def text(length: int, row: int, sentence: int = 7) -> Batch:
    generator = torch.Generator().manual_seed(row)
    return Batch(
        rows=torch.tensor([row]), src=torch.randint(5, 11, (1, length), generator=generator), src_mask=None,
        targets=torch.zeros(1, dtype=torch.int64), sentence=torch.arange(length)[None] // sentence,
    )  # fmt: skip


@pytest.mark.parametrize("settings", KINDS)
def test_a_field_is_what_loops_of_gradients_say(
    made: Callable[..., Model], beginning: TaskData, settings: dict[str, Any]
) -> None:
    model, split = made(**settings), beginning.splits["test"]
    batches = sample_batches(model, split, beginning, device=CPU, rows=5, batch_tokens=53)
    assert any(batch.src_mask is not None for batch in batches)
    values: dict[int, list[float]] = {}
    for row in (int(row) for batch in batches for row in batch.rows):
        batch = split.batch(np.array([row]))
        length = batch.src.shape[1]
        positions, directions = draw(length, 12, (5, row, 0))
        assert len(set(positions.tolist())) == len(positions) == min(POSITIONS, length)
        for i, direction in zip(positions.tolist(), directions, strict=True):
            for j in range(length):
                tokens = model.src_tokens(batch.src).detach()
                one = tokens[0, j].clone().requires_grad_()
                mixed = torch.cat([tokens[0, :j], one[None], tokens[0, j + 1 :]])[None]
                states = model.encoder(mixed, None, batch.sentence)
                (gradient,) = torch.autograd.grad(states[0, i] @ torch.from_numpy(direction), one)
                values.setdefault(j - i, []).append(float(gradient.abs().mean()))
    with inference([model], CPU, "fp32"):
        field = measure_receptive_field(model, batches, seed=5)
    assert field.offsets == tuple(sorted(values))
    assert field.n_pairs == tuple(len(values[o]) for o in field.offsets)
    expected = np.array([np.mean(values[o]) for o in field.offsets])
    np.testing.assert_allclose(field.gradient, expected, rtol=1e-9, atol=1e-15)
    assert field.farthest == max(abs(o) for o, of in values.items() if any(of))
    held = {w: sum(sum(of) for o, of in values.items() if abs(o) <= w) for w in range(30)}
    assert field.width == 1 + 2 * min(w for w in held if held[w] >= 0.95 * held[29])
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("settings", [*KINDS, pytest.param({"chunk": 3}, id="chunks")])
def test_batches_and_padding_change_nothing(
    made: Callable[..., Model], beginning: TaskData, settings: dict[str, Any]
) -> None:
    model = made(**settings)
    alone, together = (found(model, beginning, batch_tokens) for batch_tokens in (1, 10_000))
    np.testing.assert_allclose(alone.gradient, together.gradient, rtol=1e-9, atol=1e-15)
    assert replace(alone, gradient=()) == replace(together, gradient=())
    assert found(model, beginning, seed=1).gradient != alone.gradient


@pytest.mark.parametrize(("kernel", "dilation", "n_layers"), [(3, 1, 2), (5, 1, 1), (3, 2, 3)])
def test_a_convolution_reaches_as_far_as_its_configuration_says(
    beginning: TaskData, kernel: int, dilation: int, n_layers: int
) -> None:
    config = CnnConfig(d_model=13, channels=31, kernel=kernel, dilation=dilation, n_layers=n_layers, activation="gelu")
    field = of_texts(convolution(config, beginning), *[29] * 7)
    assert 2 * field.farthest + 1 == config.receptive_field < 29
    assert field.width <= config.receptive_field


@pytest.mark.parametrize(
    ("settings", "farthest"),
    [
        ({"span": "window", "n_layers": 1}, 2),
        ({"span": "window", "n_layers": 3}, 6),
        ({"span": "global", "n_layers": 1}, 28),
        ({"chunk": 5}, 4),
    ],
    ids=["window", "window-3-layers", "global", "chunks"],
)
def test_attention_reaches_what_its_span_allows(
    classifier: Callable[..., Classifier], settings: dict[str, Any], farthest: int
) -> None:
    """29 texts of 29 tokens, at 4 random positions each: one end is asked with near certainty."""
    assert of_texts(classifier(**settings), *[29] * 29).farthest == farthest


def test_a_sentence_span_stays_in_its_sentence(classifier: Callable[..., Classifier]) -> None:
    """Sentences of 7 tokens: nothing reaches farther than 6, though texts are longer."""
    field = of_texts(classifier(span="sentence", n_layers=3), *[29] * 11)
    assert field.farthest == 6 and max(field.offsets) > 6


def test_a_bag_reads_the_embedding_itself(beginning: TaskData) -> None:
    field = of_texts(convolution(BagConfig(d_model=7, buckets=101), beginning), 11, 13)
    assert (field.farthest, field.width) == (0, 1)


def test_translators_have_a_field_too(translator: Callable[..., Translator], spelling: TaskData) -> None:
    field = found(translator(), spelling)
    assert field.farthest == max(map(abs, field.offsets)) == 9
