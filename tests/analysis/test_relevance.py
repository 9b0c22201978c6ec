"""Rollout and gradient-weighted relevance against plain loops, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from minitx.analysis.attention_maps import AttentionView, inspect_texts
from minitx.analysis.relevance import arrived, gradient_weighted_relevance, relevance, rollout
from minitx.batch import Batch
from minitx.data import TaskData
from minitx.decoding.inference import inference
from minitx.decoding.text import TextProcessor
from minitx.nn.attention import multi_head
from minitx.nn.attention.kernels import naive_attention
from minitx.nn.capture import capture_attention
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator

CPU = torch.device("cpu")
MAX_LENGTH = 29
MakeTranslator = Callable[..., Translator]
MakeClassifier = Callable[..., Classifier]
Matrix = list[list[float]]


def product(a: Matrix, b: Matrix) -> Matrix:
    n = len(a)
    return [[sum(a[i][k] * b[k][j] for k in range(n)) for j in range(n)] for i in range(n)]


def looped_rollout(layers: npt.NDArray[np.float64]) -> Matrix:
    """(L, H, T, T) of one text."""
    n_heads, n = layers.shape[1:3]
    found = [[float(i == j) for j in range(n)] for i in range(n)]
    for heads in layers.tolist():
        mixed = []
        for i in range(n):
            row = [0.5 * sum(head[i][j] for head in heads) / n_heads + 0.5 * (i == j) for j in range(n)]
            mixed.append([x / sum(row) for x in row])
        found = product(mixed, found)
    return found


def looped_relevance(layers: npt.NDArray[np.float64], gradients: npt.NDArray[np.float64]) -> Matrix:
    n_heads, n = layers.shape[1:3]
    found = [[float(i == j) for j in range(n)] for i in range(n)]
    for heads, slopes in zip(layers.tolist(), gradients.tolist(), strict=True):
        counted = [
            [sum(max(0.0, s[i][j] * h[i][j]) for h, s in zip(heads, slopes, strict=True)) / n_heads for j in range(n)]
            for i in range(n)
        ]
        added = product(counted, found)
        found = [[found[i][j] + added[i][j] for j in range(n)] for i in range(n)]
    return found


def random_layers(seed: int = 3, n_layers: int = 3, n_rows: int = 2, n_heads: int = 5, n: int = 7) -> Tensor:
    """(L, B, H, T, T) weights; one query may read nothing, another itself alone, another not the last key."""
    made = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(n), (n_layers, n_rows, n_heads, n)))
    made[..., 2, :] = 0
    made[..., 4, :] = torch.eye(n)[4]
    made[..., 5, -1] = 0
    return made / made.sum(-1, keepdim=True).clamp(min=1e-9)


def test_rollout_equals_loops_after_every_layer() -> None:
    weights = random_layers()
    found = rollout([*weights.float()])
    assert len(found) == 3 and found[0].dtype == torch.float64
    for layer in range(3):
        for row in range(2):
            np.testing.assert_allclose(
                found[layer][row], looped_rollout(weights[: layer + 1, row].numpy()), rtol=1e-5, atol=1e-9
            )
        torch.testing.assert_close(found[layer].sum(-1), torch.ones(2, 7, dtype=torch.float64))
        torch.testing.assert_close(found[layer][:, 2], torch.eye(7)[2].expand(2, 7))  # read nothing, so it is itself


def test_gradient_weighted_relevance_equals_loops_after_every_layer() -> None:
    weights = random_layers()
    gradients = torch.from_numpy(np.random.default_rng(11).normal(size=weights.shape))
    found = gradient_weighted_relevance([*weights], [*gradients])
    for layer in range(3):
        for row in range(2):
            expected = looped_relevance(weights[: layer + 1, row].numpy(), gradients[: layer + 1, row].numpy())
            np.testing.assert_allclose(found[layer][row], expected, rtol=1e-12)


def test_what_arrived_leaves_the_start_out() -> None:
    relevance_BTT = torch.tensor([[[1.0, 0.0, 0.0], [0.2, 1.3, 0.5], [0.0, 3.0, 1 - 1e-16]]])
    expected = torch.tensor([[[0.0, 0.0, 0.0], [0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]])
    torch.testing.assert_close(arrived(relevance_BTT), expected)


def answered(model: Classifier, batch: Batch) -> Batch:
    with torch.no_grad():
        return replace(batch, targets=model(batch).argmax(-1))


SETTINGS = [
    pytest.param({"n_layers": 3}, id="first-token"),
    pytest.param({"n_layers": 3, "pooling": "mean", "span": "window"}, id="window"),
    pytest.param({"pooling": "max", "position": "rotary", "head_dim": 6}, id="rotary"),
    pytest.param({"pooling": "mean", "span": "sentence"}, id="sentence"),
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_are_those_of_the_predicted_logit(
    classifier: MakeClassifier, beginning: TaskData, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each weight's gradient by central differences: the weight alone is moved, all that follows is computed anew."""
    model = classifier(**settings)
    batch = answered(model, beginning.splits["test"].batch(np.array([10])))  # two sentences
    with inference([model], CPU, "fp32"):
        [found] = relevance(model, batch).values()
        with capture_attention(model) as maps:
            logits = model(batch)
        assert maps.encoder is not None
        weights = np.stack(
            [maps.layers["encoder"][i].weights[0].double().numpy() for i in sorted(maps.layers["encoder"])]
        )
        moved, calls = {}, [0]

        def with_one_moved(*arguments: object) -> tuple[Tensor, Tensor]:
            y, weights = naive_attention(*arguments)  # type: ignore[arg-type]
            layer = calls[0]
            calls[0] += 1
            if moved and moved["layer"] == layer:
                weights = weights.clone()
                weights[0, moved["head"], moved["query"], moved["key"]] += moved["by"]
                y = weights @ arguments[2]  # type: ignore[operator]
            return y, weights

        monkeypatch.setattr(multi_head, "naive_attention", with_one_moved)

        def logit() -> float:
            calls[0] = 0
            with capture_attention(model):
                return float(model(batch)[0, batch.targets[0]])

        assert logit() == float(logits[0, batch.targets[0]])
        gradients, step = np.zeros_like(weights), 1e-5
        for layer, head, query, key in np.argwhere(weights > 0).tolist():
            values = []
            for by in (step, -step):
                moved.update(layer=layer, head=head, query=query, key=key, by=by)
                values.append(logit())
            gradients[layer, head, query, key] = (values[0] - values[1]) / (2 * step)
    for layer in range(len(weights)):
        expected = looped_relevance(weights[: layer + 1], gradients[: layer + 1])
        np.testing.assert_allclose(found.gradient_weighted[layer][0], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.rollout[layer][0], looped_rollout(weights[: layer + 1]), rtol=1e-9)
    assert np.abs(gradients).max() > 1e-3


def test_rows_of_a_batch_do_not_meet(classifier: MakeClassifier, beginning: TaskData) -> None:
    model, split = classifier(), beginning.splits["test"]
    with inference([model], CPU, "fp32"):
        [both] = relevance(model, answered(model, split.batch(np.array([2, 7])))).values()  # both of six letters
        for row, text in enumerate((2, 7)):
            [alone] = relevance(model, answered(model, split.batch(np.array([text])))).values()
            for name in ("rollout", "gradient_weighted"):
                torch.testing.assert_close(getattr(both, name)[-1][row], getattr(alone, name)[-1][0])


def views_of(model: Classifier | Translator, data: TaskData, text: str) -> dict[str, AttentionView]:
    [found] = inspect_texts(model, [text], TextProcessor.of(data, MAX_LENGTH), device=CPU, through_layers=True)
    return {view.kind: view for view in found.views}


def test_chunks_do_not_reach_each_other(classifier: MakeClassifier, beginning: TaskData) -> None:
    view = views_of(classifier(chunk=3, pooling="mean"), beginning, "baobab")["encoder"]  # [CLS] b a | o b a | b
    chunk = np.array([0, 0, 0, 1, 1, 1, 2])
    assert view.rollout is not None and view.relevance is not None
    for shown in (view.rollout, view.relevance):
        assert shown.shape == (2, 7, 7) and shown.dtype == np.float32
        assert not shown[:, chunk[:, None] != chunk].any()
    assert (view.rollout[:, chunk[:, None] == chunk] > 0).all()
    np.testing.assert_allclose(view.rollout.sum(-1), 1, rtol=1e-6)
    assert view.relevance[-1].any()


def test_a_translator_has_them_of_its_two_stacks(translator: MakeTranslator, spelling: TaskData) -> None:
    model = translator(2, n_decoder_layers=3)
    views = views_of(model, spelling, "dab")
    assert views["cross"].rollout is None and views["cross"].relevance is None
    for kind, n_layers in (("encoder", 2), ("decoder", 3)):
        view = views[kind]
        assert view.rollout is not None and view.relevance is not None and len(view.rollout) == n_layers
        np.testing.assert_allclose(view.rollout[-1], looped_rollout(view.weights.astype(float)), rtol=1e-4, atol=1e-7)
        sums = view.relevance.sum(-1)
        np.testing.assert_allclose(sums[sums > 0], 1, rtol=1e-5)
        assert view.relevance.min() >= 0 and view.relevance[-1].any()
    assert not np.triu(views["decoder"].rollout[-1], 1).any()  # type: ignore[index]  # nothing of what comes later


def test_no_trace_is_left(classifier: MakeClassifier, beginning: TaskData) -> None:
    """No gradients on the weights, and a captured pass is detached again."""
    model = classifier(pooling="mean")
    views_of(model, beginning, "cab")
    assert all(parameter.grad is None for parameter in model.parameters())
    with capture_attention(model) as maps:
        model(beginning.splits["test"].batch(np.array([3])))
    assert maps.encoder is not None and not maps.encoder.requires_grad


def test_only_where_asked_for_and_where_tokens_attend(classifier: MakeClassifier, beginning: TaskData) -> None:
    processor = TextProcessor.of(beginning, MAX_LENGTH)
    [found] = inspect_texts(classifier(), ["cab"], processor, device=CPU)
    assert found.views[0].rollout is None and found.views[0].relevance is None
    assert views_of(classifier(kind="lstm", pooling="attention"), beginning, "cab")["pooling"].rollout is None
