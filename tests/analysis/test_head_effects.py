"""Gates against models that were changed by hand, and gradients against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from minitx.analysis.head_effects import gated, head_effects, losses_without, performance, without_heads
from minitx.analysis.head_maps import LayerId, head_layers
from minitx.analysis.head_statistics import sample_batches
from minitx.config import MaskingConfig, TransformerConfig
from minitx.data import Masker, TaskData
from minitx.decoding.inference import inference
from minitx.metrics.evaluate import evaluate
from minitx.nn.build import Model, build_model
from minitx.nn.capture import head_attentions
from minitx.nn.classifier import Classifier
from minitx.nn.masked import MaskedModel
from minitx.nn.sizes import ModelShape
from minitx.nn.translator import Translator

CPU = torch.device("cpu")
ALL = 99
CASES = [
    pytest.param("beginning", {}, id="classifier"),
    pytest.param("beginning", {"chunk": 3}, id="chunks"),
    pytest.param("beginning", {"pooling": "cls"}, id="cls"),
    pytest.param("spelling", {"n_layers": 1}, id="translator"),
]


@pytest.fixture
def made(
    translator: Callable[..., Translator], classifier: Callable[..., Classifier], request: pytest.FixtureRequest
) -> Callable[..., tuple[Model, TaskData]]:
    def make(task: str, settings: dict[str, Any]) -> tuple[Model, TaskData]:
        data: TaskData = request.getfixturevalue(task)
        return (translator if data.task == "translation" else classifier)(2, **settings), data

    return make


def slow_quality(model: Model, data: TaskData) -> tuple[list[float], float]:
    """(summed loss of each row, accuracy over all targets), each row alone."""
    losses, hits = [], []
    for row in range(len(data.splits["test"])):
        batch = data.splits["test"].batch(np.array([row]))
        with torch.no_grad():
            log_probs = model(batch).log_softmax(-1)
        losses.append(-sum(float(log_probs[i, t]) for i, t in enumerate(batch.targets.tolist())))
        hits += (log_probs.argmax(-1) == batch.targets).tolist()
    return losses, sum(hits) / len(hits)


def n_targets(data: TaskData) -> int:
    split = data.splits["test"]
    return len(split) if split.tgt is None else int(split.tgt.lengths.sum())


@pytest.mark.parametrize(("task", "settings"), CASES)
def test_a_masked_head_is_one_without_weights(
    made: Callable[..., tuple[Model, TaskData]], task: str, settings: dict[str, Any]
) -> None:
    model, data = made(task, settings)
    batches = sample_batches(model, data.splits["test"], data, device=CPU, rows=ALL, batch_tokens=53)
    with inference([model], CPU, "fp32"):
        whole, found = head_effects(model, batches)
    losses, accuracy = slow_quality(model, data)
    assert whole.loss == pytest.approx(sum(losses) / n_targets(data), rel=1e-6) and whole.accuracy == accuracy
    assert list(found) == head_layers(model)
    changes = []
    for layer_id, of_layer in found.items():
        attention = head_attentions(model)[layer_id.role][layer_id.layer]
        width, kept = attention.head_dim, attention.output.weight.detach().clone()
        for head in range(attention.n_heads):
            with torch.no_grad():
                attention.output.weight[:, head * width : (head + 1) * width] = 0
            without, accuracy_without = slow_quality(model, data)
            with torch.no_grad():
                attention.output.weight.copy_(kept)
            expected = (sum(without) - sum(losses)) / n_targets(data)
            assert of_layer.loss_without[head] == pytest.approx(expected, rel=1e-5, abs=1e-6)
            assert of_layer.accuracy_without[head] == pytest.approx(accuracy_without - accuracy, abs=1e-12)
            changes.append((expected, accuracy_without - accuracy))
    assert min(abs(loss) for loss, _ in changes) > 1e-5 and any(accuracy for _, accuracy in changes)


@pytest.mark.parametrize(("task", "settings"), CASES)
def test_importance_is_the_mean_size_of_finite_differences(
    made: Callable[..., tuple[Model, TaskData]], task: str, settings: dict[str, Any]
) -> None:
    model, data = made(task, settings)
    batches = sample_batches(model, data.splits["test"], data, device=CPU, rows=ALL, batch_tokens=53)
    with inference([model], CPU, "fp32"):
        _, found = head_effects(model, batches)
    step = 1e-5
    for layer_id, of_layer in found.items():
        n_heads = len(of_layer.importance)
        for head in range(n_heads):
            moved = []
            for sign in (1, -1):
                gate = torch.ones(n_heads)
                gate[head] += sign * step
                with gated(model, {layer_id: gate}):
                    moved.append(np.array(slow_quality(model, data)[0]))
            expected = np.abs((moved[0] - moved[1]) / (2 * step)).sum() / n_targets(data)
            assert of_layer.importance[head] == pytest.approx(expected, rel=1e-5)
    assert all(attention.gate_H is None for stack in head_attentions(model).values() for attention in stack)


def test_quality_of_a_masked_model_is_that_of_its_evaluation(beginning: TaskData) -> None:
    """The same tokens are hidden, whatever the batches."""
    data = replace(beginning, task="masked", metrics="masked")
    torch.manual_seed(0)
    config = TransformerConfig(d_model=12, n_heads=3, n_layers=1, d_ff=17)
    model = build_model(config, ModelShape("masked", data.src_tokenizer.vocab_size, max_length=29)).eval()
    assert isinstance(model, MaskedModel)
    split, masking = data.splits["test"], MaskingConfig(rate=0.4)
    batches = sample_batches(model, split, data, device=CPU, rows=ALL, batch_tokens=53, masking=masking)
    evaluated = evaluate(model, split, data, device=CPU, precision="fp32", batch_tokens=31, masking=masking)
    with inference([model], CPU, "fp32"):
        found, of_heads = head_effects(model, batches)
    assert found.loss == pytest.approx(evaluated.loss, rel=1e-6)
    assert found.accuracy == pytest.approx(evaluated.metrics["masked_accuracy"].value)
    hidden = Masker(split, masking, data.src_tokenizer.vocab_size)(split.batch(np.arange(3)), np.arange(3))
    with inference([model], CPU, "fp32"):
        assert performance(model, [hidden]).loss == pytest.approx(float(model.loss(hidden)) / hidden.n_targets)
    assert len(of_heads[LayerId("encoder", 0)].importance) == 3


def test_gates_that_were_there_come_back(classifier: Callable[..., Classifier]) -> None:
    model, layer_id = classifier(), LayerId("encoder", 1)
    attention = head_attentions(model)["encoder"][1]
    before = torch.tensor([0.5, 1.0, 2.0])
    attention.set_gates(before)
    with pytest.raises(RuntimeError, match="boom"), gated(model, {layer_id: torch.zeros(3)}):
        assert attention.gate_H is not before
        raise RuntimeError("boom")
    assert attention.gate_H is before


def test_heads_without_are_gates_closed_and_opened_again(
    translator: Callable[..., Translator], spelling: TaskData
) -> None:
    model = translator(2)
    batch = spelling.splits["test"].batch(np.array([4]))
    off = [(LayerId("encoder", 0), 2), (LayerId("cross", 1), 0), (LayerId("encoder", 0), 1)]
    with torch.no_grad():
        whole = model.eval().hidden(batch)
        with without_heads(model, off):
            closed = model.hidden(batch)
        gates = {LayerId("encoder", 0): torch.tensor([1.0, 0, 0]), LayerId("cross", 1): torch.tensor([0.0, 1, 1])}
        with gated(model, gates):
            torch.testing.assert_close(closed, model.hidden(batch), rtol=0, atol=0)
        torch.testing.assert_close(whole, model.hidden(batch), rtol=0, atol=0)
    assert not torch.allclose(whole, closed)


@pytest.mark.parametrize(
    ("role", "layer", "head"), [("encoder", 2, 0), ("encoder", 0, 3), ("encoder", 0, -1), ("pooling", 0, 0)]
)
def test_heads_that_are_not_there(translator: Callable[..., Translator], role: Any, layer: int, head: int) -> None:
    has = "layers x heads: encoder 2 x 3, decoder 2 x 3, cross 2 x 3"
    must = rf"head {head} of {role} layer {layer} \(from 0\) must be one of the model's; {has}"
    with pytest.raises(ValueError, match=must), without_heads(translator(), [(LayerId(role, layer), head)]):
        pass


@pytest.mark.parametrize(("task", "settings"), CASES)
def test_losses_without_are_those_of_the_effects(
    made: Callable[..., tuple[Model, TaskData]], task: str, settings: dict[str, Any]
) -> None:
    model, data = made(task, settings)
    batches = sample_batches(model, data.splits["test"], data, device=CPU, rows=7, batch_tokens=31)
    with inference([model], CPU, "fp32"):
        _, effects = head_effects(model, batches)
        assert losses_without(model, batches) == {layer_id: of.loss_without for layer_id, of in effects.items()}
