"""All head statistics on one model and on two: it is plain, deterministic and leaves no trace."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from minitx.analysis.head_statistics import HeadReport, compare_heads, head_statistics, sample_batches
from minitx.batch import Batch
from minitx.data import TaskData
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.attention.projections import SplitProjection
from minitx.nn.build import Model
from minitx.nn.capture import capture_attention, head_attentions
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator

CPU = torch.device("cpu")


def batches_for(model: Model, data: TaskData, rows: int = 99, batch_tokens: int = 53, seed: int = 0) -> list[Batch]:
    split = data.splits["test"]
    return sample_batches(model, split, data, device=CPU, rows=rows, batch_tokens=batch_tokens, seed=seed)


@pytest.fixture(params=["spelling", "beginning"])
def made(
    request: pytest.FixtureRequest, translator: Callable[..., Translator], classifier: Callable[..., Classifier]
) -> tuple[Callable[..., Model], TaskData]:
    data: TaskData = request.getfixturevalue(request.param)
    return (translator if data.task == "translation" else classifier), data


def captured(model: Model, data: TaskData, role: Any, layer: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Of each text alone: maps (H, Q, K); and outputs (N, H, W) of all texts."""
    maps, outputs = [], []
    for row in range(len(data.splits["test"])):
        with capture_attention(model) as seen, torch.no_grad():
            model(data.splits["test"].batch(np.array([row])))
        reading = seen.layers[role][layer]
        assert reading.outputs is not None
        maps.append(reading.weights[0].numpy())
        outputs.append(reading.outputs[0].transpose(0, 1).numpy())
    return maps, np.concatenate(outputs)


def slow_similarity(mine: list[np.ndarray], theirs: list[np.ndarray], h: int, g: int) -> float:
    pairs = [(p, q) for a, b in zip(mine, theirs, strict=True) for p, q in zip(a[h], b[g], strict=True)]
    return float(np.mean([1 - jensenshannon(p, q, base=2) ** 2 for p, q in pairs]))


def slow_cka(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(0), y - y.mean(0)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / norms)


def slow_rank(x: np.ndarray) -> float:
    share = np.linalg.svd(x - x.mean(0), compute_uv=False)
    share = share[share > 1e-12 * share[0]] / share.sum()
    return math.exp(-float((share * np.log(share)).sum()))


def test_similarity_and_ranks_are_those_of_all_texts(made: tuple[Callable[..., Model], TaskData]) -> None:
    make, data = made
    model = make()
    for of_layer in head_statistics(model, batches_for(model, data)).layers:
        maps, outputs_NHW = captured(model, data, of_layer.layer_id.role, of_layer.layer_id.layer)
        for h in range(3):
            for g in range(3):
                expected = slow_similarity(maps, maps, h, g)
                assert of_layer.maps.similarity[h][g] == pytest.approx(expected, rel=1e-7)
                expected = slow_cka(outputs_NHW[:, h], outputs_NHW[:, g])
                assert of_layer.outputs.similarity[h][g] == pytest.approx(expected, rel=1e-9)
            assert of_layer.rank[h] == pytest.approx(slow_rank(outputs_NHW[:, h]), rel=1e-6)
        assert of_layer.joint_rank == pytest.approx(slow_rank(outputs_NHW.reshape(len(outputs_NHW), -1)), rel=1e-6)
        assert all(h != g for h, g in of_layer.maps.pairs)


def test_two_models_are_compared_head_by_head(made: tuple[Callable[..., Model], TaskData]) -> None:
    """Of three heads of width 4 and of two of width 6."""
    make, data = made
    first, second = make(0), make(1, n_heads=2)
    for pair in compare_heads(first, second, batches_for(first, data)):
        layer_id = pair.layer_id.role, pair.layer_id.layer
        (mine, x_NHW), (theirs, y_NGW) = captured(first, data, *layer_id), captured(second, data, *layer_id)
        assert np.shape(pair.maps.similarity) == (3, 2) and len(pair.maps.pairs) == 2
        for h in range(3):
            for g in range(2):
                assert pair.maps.similarity[h][g] == pytest.approx(slow_similarity(mine, theirs, h, g), rel=1e-7)
                assert pair.outputs.similarity[h][g] == pytest.approx(slow_cka(x_NHW[:, h], y_NGW[:, g]), rel=1e-9)


def test_matching_finds_heads_that_changed_places(classifier: Callable[..., Classifier], beginning: TaskData) -> None:
    """The same function with its heads in another order."""
    model = classifier()
    other, order = copy.deepcopy(model), [2, 0, 1]
    for attention in head_attentions(other)["encoder"]:
        reorder(attention, order)
    batches = batches_for(model, beginning)
    for batch in batches:
        torch.testing.assert_close(other(batch), model(batch))
    for pair in compare_heads(model, other, batches):
        for found in (pair.maps, pair.outputs):
            assert found.pairs == tuple((head, order.index(head)) for head in range(3))
            assert found.matched == pytest.approx(1) and found.mean < 0.9


def reorder(attention: MultiHeadAttention, order: list[int]) -> None:
    project = attention.project
    assert isinstance(project, SplitProjection) and project.bias is not None
    with torch.no_grad():
        project.weight.copy_(project.weight.view(3, 3, 4, -1)[:, order].reshape(project.weight.shape))
        project.bias.copy_(project.bias.view(3, 3, 4)[:, order].flatten())
        attention.output.weight.copy_(attention.output.weight.view(-1, 3, 4)[:, order].flatten(1))


def test_a_report_is_plain_and_the_same_again(made: tuple[Callable[..., Model], TaskData]) -> None:
    make, data = made
    model = make()
    batches = batches_for(model, data, rows=7)
    report = head_statistics(model, batches)
    assert report.n_rows == 7 and head_statistics(model, batches).to_json() == report.to_json()
    stored = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert stored == report.to_json()
    layer = stored["layers"][0]
    assert layer["layer_id"] == {"role": "encoder", "layer": 0}
    assert layer["stats"]["entropy"] == list(report.layers[0].stats.entropy)
    assert np.shape(layer["maps"]["similarity"]) == (3, 3) and len(layer["effects"]["importance"]) == 3
    assert (
        stored["receptive_field"]["farthest"] == report.receptive_field.farthest
        and stored["performance"]["loss"] == report.performance.loss
    )


def test_batches_change_nothing_of_a_report(made: tuple[Callable[..., Model], TaskData]) -> None:
    make, data = made
    model = make()
    alone, together = (head_statistics(model, batches_for(model, data, batch_tokens=n)).to_json() for n in (1, 10_000))
    assert len(numbers(alone)) > 100
    for one, other in zip(numbers(alone), numbers(together), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)  # effective ranks are of roots of what rounding leaves


def numbers(value: Any) -> list[Any]:
    """But for the pairs of matchings: one way round is as good as the other within a layer."""
    if isinstance(value, dict):
        return [n for key, item in value.items() if key != "pairs" for n in numbers(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers(item)]
    return [value] if isinstance(value, int | float) else []


def test_rows_are_drawn_by_a_seed(classifier: Callable[..., Classifier], beginning: TaskData) -> None:
    model = classifier()
    drawn = [{int(r) for b in batches_for(model, beginning, rows=5, seed=s) for r in b.rows} for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 5
    with pytest.raises(ValueError, match="at least one row; of a split of 13 rows, 0 were asked for"):
        batches_for(model, beginning, rows=0)


def test_they_leave_no_trace(made: tuple[Callable[..., Model], TaskData]) -> None:
    make, data = made
    model = make(dropout=0.5).train()
    weights, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    batches = batches_for(model, data)
    head_statistics(model, batches)
    compare_heads(model, model, batches)
    assert model.training and torch.is_grad_enabled() and torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())
    for attention in (a for stack in head_attentions(model).values() for a in stack):
        assert attention.gate_H is None and attention.recorder is None
    assert head_statistics(model, batches).to_json() == head_statistics(model.eval(), batches).to_json()


def test_a_model_without_heads_has_a_receptive_field_alone(
    classifier: Callable[..., Classifier], beginning: TaskData
) -> None:
    model = classifier(kind="lstm")
    report: HeadReport = head_statistics(model, batches_for(model, beginning))
    assert report.layers == () and report.receptive_field.farthest > 0 and report.performance.loss > 0
    with pytest.raises(ValueError, match="same layers of heads to be compared, not none and encoder_L1, encoder_L2"):
        compare_heads(model, classifier(), batches_for(model, beginning))


def test_one_head_is_like_no_other(classifier: Callable[..., Classifier], beginning: TaskData) -> None:
    model = classifier(n_heads=1)
    layer = head_statistics(model, batches_for(model, beginning)).to_json()["layers"][0]
    assert layer["maps"] == {"similarity": [[pytest.approx(1)]], "mean": None, "pairs": [], "matched": None}
