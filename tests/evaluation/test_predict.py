from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from minitx.data import TaskData
from minitx.evaluation.evaluate import evaluate
from minitx.evaluation.predict import Codec, predict_texts

CPU = torch.device("cpu")
MAX_LENGTH = 29
MakeModel = Callable[..., nn.Module]
Case = tuple[TaskData, nn.Module, Codec, list[str]]


@pytest.fixture(params=["translation", "classification"])
def case(
    request: pytest.FixtureRequest,
    spelling: TaskData,
    beginning: TaskData,
    translator: MakeModel,
    classifier: MakeModel,
) -> Case:
    """(data, model, codec, the test texts) of either task."""
    data = spelling if request.param == "translation" else beginning
    model = translator(2) if request.param == "translation" else classifier()
    return (
        data,
        model,
        Codec.of(data, MAX_LENGTH),
        [data.splits["test"].text(i) for i in range(len(data.splits["test"]))],
    )


def test_predictions_are_those_of_the_evaluation(case: Case) -> None:
    data, model, codec, texts = case
    judged = evaluate(model, data.splits["test"], data, device=CPU, precision="fp32", batch_tokens=53)
    assert predict_texts(model, texts, codec, device=CPU) == judged.predictions
    assert len(set(judged.predictions)) > 2


@pytest.mark.parametrize("batch_tokens", [1, 31, 10_000])
def test_order_is_kept_whatever_the_batches(case: Case, batch_tokens: int) -> None:
    _, model, codec, texts = case
    shuffled = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]
    found = predict_texts(model, shuffled, codec, device=CPU, batch_tokens=batch_tokens)
    assert found == [predict_texts(model, [text], codec, device=CPU)[0] for text in shuffled]


def test_odd_texts_are_predicted_too(case: Case) -> None:
    """Empty, blank, unknown letters, a special token spelled out, and one longer than the model was built for."""
    _, model, codec, _ = case
    odd = ["", "  ", "ÄÖ 映画", "[EOS][PAD]", "ab" * 100]
    found = predict_texts(model, odd, codec, device=CPU)
    assert len(found) == len(odd) and all(isinstance(text, str) for text in found)
    assert found[4] == predict_texts(model, ["ab" * 99], codec, device=CPU)[0]  # both are cut to the same tokens


def test_no_texts_are_no_predictions(case: Case) -> None:
    _, model, codec, _ = case
    assert predict_texts(model, [], codec, device=CPU) == []


def test_model_keeps_its_mode(case: Case) -> None:
    _, model, codec, texts = case
    model.train()
    predict_texts(model, texts[:3], codec, device=CPU)
    assert model.training
