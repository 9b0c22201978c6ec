"""Pooling: three sentences of definition, checked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from minitx.nn.pooling import AdditiveScore, Pooling

STATES = torch.arange(30, dtype=torch.float64).view(2, 5, 3).sin()
MASK = torch.tensor([[True] * 5, [True, True, False, False, False]])


@pytest.mark.parametrize("key_mask", [None, MASK])
def test_mean_is_over_real_tokens(key_mask: torch.Tensor | None) -> None:
    pooled = Pooling("mean", 3)(STATES, key_mask)
    n = (5, 5) if key_mask is None else (5, 2)
    torch.testing.assert_close(pooled, torch.stack([STATES[b, : n[b]].mean(0) for b in range(2)]))


@pytest.mark.parametrize("key_mask", [None, MASK])
def test_attention_weighs_by_a_learned_query(key_mask: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    pooling = Pooling("attention", 3).double()
    assert pooling.query is not None
    pooled = pooling(STATES, key_mask)
    for b in range(2):
        real = [j for j in range(5) if key_mask is None or bool(key_mask[b, j])]
        scores = [math.exp(float(STATES[b, j] @ pooling.query.detach()) / math.sqrt(3)) for j in real]
        expected = sum(s / sum(scores) * STATES[b, j] for s, j in zip(scores, real, strict=True))
        assert isinstance(expected, torch.Tensor)
        torch.testing.assert_close(pooled[b].detach(), expected)


@pytest.mark.parametrize("key_mask", [None, MASK])
def test_additive_weighs_by_a_small_net(key_mask: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    pooling = Pooling("additive", 3).double()
    net = pooling.additive
    assert net is not None
    with torch.no_grad():
        net.state.bias.copy_(torch.tensor([0.3, -0.7, 1.1]))
        pooled = pooling(STATES, key_mask)
        for b in range(2):
            real = [j for j in range(5) if key_mask is None or bool(key_mask[b, j])]
            scores = [
                math.exp(sum(v * math.tanh(h) for v, h in zip(net.v.tolist(), inner(net, b, j), strict=True)))
                for j in real
            ]
            expected = sum(s / sum(scores) * STATES[b, j] for s, j in zip(scores, real, strict=True))
            assert isinstance(expected, torch.Tensor)
            torch.testing.assert_close(pooled[b], expected)


def inner(net: AdditiveScore, row: int, position: int) -> list[float]:
    """W state + q, by hand."""
    state, weight, bias = STATES[row, position].tolist(), net.state.weight.tolist(), net.state.bias.tolist()
    return [sum(w * x for w, x in zip(line, state, strict=True)) + q for line, q in zip(weight, bias, strict=True)]


@pytest.mark.parametrize("key_mask", [None, MASK])
def test_max_is_over_real_tokens(key_mask: torch.Tensor | None) -> None:
    states = STATES - 2  # all negative: a padded 0 would win
    pooled = Pooling("max", 3)(states, key_mask)
    n = (5, 5) if key_mask is None else (5, 2)
    expected = [[max(states[b, j, d].item() for j in range(n[b])) for d in range(3)] for b in range(2)]
    assert pooled.tolist() == expected


@pytest.mark.parametrize("kind", ["cls", "last"])
def test_the_first_state_alone(kind: Any) -> None:
    assert torch.equal(Pooling(kind, 3)(STATES, MASK), STATES[:, 0])


@pytest.mark.parametrize("kind", ["mean", "max", "attention", "additive"])
def test_no_real_token_gives_zeros(kind: str) -> None:
    pooled = Pooling(kind, 3).double()(STATES, torch.zeros(2, 5, dtype=torch.bool))  # type: ignore[arg-type]
    assert torch.equal(pooled, torch.zeros(2, 3, dtype=torch.float64))
