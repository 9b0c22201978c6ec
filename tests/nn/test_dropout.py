"""Dropout by 16-bit comparisons: rate, mean, independence, and the generator it draws from."""

from __future__ import annotations

import pytest
import torch

from minitx.nn.layers import Dropout, keep_scale

N = 1 << 20


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_rate_and_unbiased_mean(rate: float) -> None:
    torch.manual_seed(0)
    scale = keep_scale(torch.empty(N), rate)
    dropped = float((scale == 0).double().mean())
    error = (rate * (1 - rate) / N) ** 0.5
    assert dropped == pytest.approx(rate, abs=5 * error + 2**-17)
    kept = torch.unique(scale[scale != 0])
    assert kept.shape == (1,)
    assert kept.item() == pytest.approx(1 / (1 - rate), rel=1e-4)
    # Exactly unbiased: scale * P(kept) = 1, where P(kept) is a whole number of 65536ths.
    assert (65536 / kept.double()).item() == pytest.approx(round(65536 / kept.item()), abs=0.01)


def test_neighbours_and_words_are_independent() -> None:
    torch.manual_seed(1)
    dropped = (keep_scale(torch.empty(N), 0.5) == 0).double() - 0.5
    for lag in (1, 2, 3, 4, 5, 8, N // 2):  # four elements share one draw
        correlation = 4 * float((dropped[lag:] * dropped[:-lag]).mean())
        assert abs(correlation) < 8 / N**0.5, lag


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 3, 7), (0, 4)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert keep_scale(torch.empty(shape), 0.3).shape == shape


def test_add_is_the_residual_sum_and_gradients_follow_the_kept() -> None:
    dropout, x, residual = Dropout(0.4), torch.randn(5, 7, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    torch.manual_seed(2)
    alone = dropout(x)
    torch.manual_seed(2)
    added = dropout.add(residual, x)
    torch.testing.assert_close(added, residual + alone)
    to_x, to_residual = torch.autograd.grad(added.sum(), [x, residual])
    torch.testing.assert_close(to_x * x, alone)
    assert torch.equal(to_residual, torch.ones_like(residual))


def test_evaluation_and_rate_zero_change_nothing_and_draw_nothing() -> None:
    x, state = torch.randn(3, 5), torch.get_rng_state()
    assert Dropout(0.4).eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert torch.equal(Dropout(0.4).eval().add(x, x), 2 * x)
    assert torch.equal(torch.get_rng_state(), state)


def test_generator_state_replays_the_same_mask() -> None:
    dropout, x = Dropout(0.5), torch.ones(11, 13)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = dropout(x), dropout(x)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), first)


def test_autocast_keeps_the_residual_in_float32() -> None:
    torch.manual_seed(4)
    residual, x = torch.randn(3, 5), torch.randn(3, 5, dtype=torch.bfloat16)
    assert Dropout(0.5).add(residual, x).dtype == torch.float32
