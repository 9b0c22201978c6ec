"""What heads look at, against loops over texts that were read one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from minitx.analysis.head_maps import HeadStats, LayerId, head_layers
from minitx.analysis.head_statistics import head_stats, sample_batches
from minitx.batch import Batch
from minitx.data import TaskData
from minitx.nn.build import Model
from minitx.nn.capture import capture_attention
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator

CPU = torch.device("cpu")
ALL = 99
MayRead = Callable[[int, int], bool]


def stats_of(model: Model, data: TaskData, batch_tokens: int = 53) -> dict[LayerId, HeadStats]:
    batches = sample_batches(model, data.splits["test"], data, device=CPU, rows=ALL, batch_tokens=batch_tokens)
    assert batch_tokens < 53 or any(batch.src_mask is not None for batch in batches), "some rows are padded"
    return head_stats(model, batches)


def one_by_one(model: Model, data: TaskData) -> Iterator[tuple[Batch, Any]]:
    for row in range(len(data.splits["test"])):
        batch = data.splits["test"].batch(np.array([row]))
        with capture_attention(model) as maps, torch.no_grad():
            model(batch)
        yield batch, maps


def slow_stats(maps: list[np.ndarray], may_read: list[MayRead], crossing: bool) -> HeadStats:
    """maps: (H, Q, K) of each text without padding."""
    entropy, spread, distance, relative = [], [], [], []
    for map_HQK, may in zip(maps, may_read, strict=True):
        n_heads, n_queries, n_keys = map_HQK.shape
        for i in range(n_queries):
            keys = [j for j in range(n_keys) if may(i, j)]
            of_heads = []
            for h in range(n_heads):
                w = {j: float(map_HQK[h, i, j]) for j in keys}
                of_heads.append(-sum(p * math.log(p) for p in w.values() if p > 0))
            entropy.append(of_heads)
            if len(keys) > 1:
                spread.append([e / math.log(len(keys)) for e in of_heads])
            far = [[map_HQK[h, i, j] * abs(i - j) for j in keys] for h in range(n_heads)]
            distance.append([sum(f) for f in far])
            share = [
                [map_HQK[h, i, j] * abs((i + 0.5) / n_queries - (j + 0.5) / n_keys) for j in keys]
                for h in range(n_heads)
            ]
            relative.append([sum(f) for f in share])
    means = [tuple(np.mean(values, axis=0).tolist()) for values in (entropy, spread, distance, relative)]
    return HeadStats(
        entropy=means[0], spread=means[1], distance=None if crossing else means[2], relative_distance=means[3]
    )


def assert_same(found: HeadStats, expected: HeadStats) -> None:
    np.testing.assert_allclose(found.entropy, expected.entropy, rtol=1e-9)
    np.testing.assert_allclose(found.spread, expected.spread, rtol=1e-9)
    np.testing.assert_allclose(found.relative_distance, expected.relative_distance, rtol=1e-9)
    assert (found.distance is None) == (expected.distance is None)
    if found.distance is not None:
        np.testing.assert_allclose(found.distance, expected.distance, rtol=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("span", ["global", "window", "sentence"])
def test_encoder_heads_are_what_loops_say(
    classifier: Callable[..., Classifier], beginning: TaskData, span: str
) -> None:
    model = classifier(span=span)
    found = stats_of(model, beginning)
    assert list(found) == head_layers(model) == [LayerId("encoder", 0), LayerId("encoder", 1)]
    for layer_id, of_layer in found.items():
        maps, rules = [], []
        for batch, seen in one_by_one(model, beginning):
            maps.append(seen.layers["encoder"][layer_id.layer].weights[0].numpy())
            rules.append(_rule(span, batch))
        assert_same(of_layer, slow_stats(maps, rules, crossing=False))


def _rule(span: str, batch: Batch) -> MayRead:
    assert batch.sentence is not None
    sentence = batch.sentence[0].tolist()
    return {
        "global": lambda i, j: True,
        "window": lambda i, j: abs(i - j) <= 2,
        "sentence": lambda i, j: sentence[i] == sentence[j],
    }[span]


@pytest.mark.parametrize("span", ["global", "window"])
def test_translators_have_three_roles(translator: Callable[..., Translator], spelling: TaskData, span: str) -> None:
    model = translator(n_decoder_layers=1, span=span)
    found = stats_of(model, spelling)
    assert [str(layer_id) for layer_id in found] == ["encoder_L1", "encoder_L2", "decoder_L1", "cross_L1"]
    for layer_id, of_layer in found.items():
        maps = [
            seen.layers[layer_id.role][layer_id.layer].weights[0].numpy() for _, seen in one_by_one(model, spelling)
        ]
        may = {
            "encoder": lambda i, j: span == "global" or abs(i - j) <= 2,
            "decoder": lambda i, j: j <= i and (span == "global" or i - j <= 2),
            "cross": lambda i, j: True,
        }[layer_id.role]
        assert_same(of_layer, slow_stats(maps, [may] * len(maps), crossing=layer_id.role == "cross"))


def test_chunks_are_texts_of_their_own(classifier: Callable[..., Classifier], beginning: TaskData) -> None:
    model = classifier(chunk=3)
    maps = []
    for batch, seen in one_by_one(model, beginning):
        weights = seen.layers["encoder"][1].weights.numpy()
        left = batch.src.shape[1]
        for chunk in weights:
            maps.append(chunk[:, : min(3, left), : min(3, left)])
            left -= 3
    expected = slow_stats(maps, [lambda i, j: True] * len(maps), crossing=False)
    assert_same(stats_of(model, beginning)[LayerId("encoder", 1)], expected)


def test_of_a_last_layer_that_is_read_at_its_first_position_that_one_counts(
    classifier: Callable[..., Classifier], beginning: TaskData
) -> None:
    model = classifier(pooling="cls")
    found = stats_of(model, beginning)
    firsts = []
    for _, seen in one_by_one(model, beginning):
        weights = seen.layers["encoder"][1].weights[0, :, 0]
        firsts.append(torch.special.entr(weights).sum(-1).numpy())
    np.testing.assert_allclose(found[LayerId("encoder", 1)].entropy, np.mean(firsts, axis=0), rtol=1e-9)
    assert_same(found[LayerId("encoder", 0)], stats_of(classifier(pooling="mean"), beginning)[LayerId("encoder", 0)])


@pytest.mark.parametrize("task", ["spelling", "beginning"])
def test_batches_change_nothing(
    task: str,
    translator: Callable[..., Translator],
    classifier: Callable[..., Classifier],
    request: pytest.FixtureRequest,
) -> None:
    data: TaskData = request.getfixturevalue(task)
    model: Model = translator() if data.task == "translation" else classifier()
    alone, together = (stats_of(model, data, batch_tokens) for batch_tokens in (1, 10_000))
    for layer_id, of_layer in alone.items():
        assert_same(together[layer_id], of_layer)


def test_a_query_with_one_key_has_no_spread(translator: Callable[..., Translator], spelling: TaskData) -> None:
    """One token of every text: its decoder has BOS alone to read."""
    model = translator(n_decoder_layers=1)
    split = spelling.splits["test"]
    short = [row for row in range(len(split)) if split.tgt is not None and split.tgt.lengths[row] == 2]
    batch = split.batch(np.array(short[:1]))
    cut = Batch(
        rows=batch.rows, src=batch.src[:, :1], src_mask=None, targets=batch.targets[:1],
        tgt_in=batch.tgt_in[:, :1], target_index=torch.tensor([0]),  # type: ignore[index]
    )  # fmt: skip
    found = head_stats(model, [cut])
    assert found[LayerId("decoder", 0)].entropy == (0.0,) * 3
    assert all(math.isnan(x) for layer_id in found for x in found[layer_id].spread)
