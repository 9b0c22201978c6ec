"""Positions: the formulas of the papers, offsets, and the end of the table."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

from minitx.nn.attention.positions import Positions, rotate, sinusoids


def test_sinusoids_are_the_papers_formula() -> None:
    table = sinusoids(11, 6)
    for position in range(11):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("kind", ["sinusoidal", "learned", "rotary", "none"])
def test_embed_scales_tokens_and_adds_positions(kind: str) -> None:
    torch.manual_seed(0)
    positions = Positions(kind, d_model=6, head_dim=4, max_length=13)  # type: ignore[arg-type]
    tokens = torch.randn(2, 5, 6)
    table = {"sinusoidal": sinusoids(13, 6), "learned": positions.learned}.get(kind)
    added = 0 if table is None else table[7:12]
    torch.testing.assert_close(positions.embed(tokens, offset=7), math.sqrt(6) * tokens + added)
    assert (positions.rotation(5) is not None) == (kind == "rotary")


def test_rotation_multiplies_complex_pairs() -> None:
    torch.manual_seed(0)
    positions = Positions("rotary", d_model=1, head_dim=6, max_length=13)
    rotation = positions.rotation(5, offset=3)
    assert rotation is not None
    x = torch.randn(2, 3, 5, 6)
    y = rotate(x, rotation)
    for t in range(5):
        for i in range(3):
            pair = complex(x[1, 2, t, i], x[1, 2, t, i + 3])
            turned = pair * cmath.exp(1j * (3 + t) / 10000 ** (2 * i / 6))
            assert complex(y[1, 2, t, i], y[1, 2, t, i + 3]) == pytest.approx(turned, abs=1e-5)


def test_rotation_in_bfloat16_rounds_once_each_way() -> None:
    torch.manual_seed(0)
    rotation = Positions("rotary", d_model=1, head_dim=14, max_length=11).rotation(11)
    assert rotation is not None
    given, upstream = torch.randn(2, 3, 5, 11, 14).bfloat16()
    turned, gradient = [], []
    for x in (given.clone().requires_grad_(), given.float().requires_grad_()):
        y = rotate(x, rotation)
        y.backward(upstream.to(y.dtype))
        assert x.grad is not None
        turned.append(y.detach().bfloat16())
        gradient.append(x.grad.bfloat16())
    assert torch.equal(*turned) and torch.equal(*gradient)


def test_rotated_products_depend_on_distance_alone() -> None:
    torch.manual_seed(0)
    positions = Positions("rotary", d_model=1, head_dim=8, max_length=50).double()
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def product(at_query: int, at_key: int) -> float:
        turned = []
        for vector, at in ((q, at_query), (k, at_key)):
            rotation = positions.rotation(1, at)
            assert rotation is not None
            turned.append(rotate(vector, rotation))
        return float((turned[0] * turned[1]).sum())

    assert product(3, 7) == pytest.approx(product(23, 27), abs=1e-6)  # the table is rounded to float32
    assert product(3, 7) != pytest.approx(product(3, 8), abs=1e-3)


@pytest.mark.parametrize("kind", ["sinusoidal", "rotary"])
def test_tables_extend_beyond_max_length(kind: str) -> None:
    short, long = (Positions(kind, 4, 4, n) for n in (5, 40))  # type: ignore[arg-type]
    tokens = torch.zeros(1, 3, 4)
    torch.testing.assert_close(short.embed(tokens, 30), long.embed(tokens, 30), rtol=0, atol=0)
    a, b = short.rotation(3, 30), long.rotation(3, 30)
    if a is not None and b is not None:
        torch.testing.assert_close((a.cos, a.sin), (b.cos, b.sin), rtol=0, atol=0)


def test_learned_positions_end() -> None:
    positions = Positions("learned", 4, 4, max_length=5)
    assert positions.embed(torch.zeros(1, 2, 4), offset=3).shape == (1, 2, 4)
    with pytest.raises(ValueError, match="a text of 6 tokens is longer than the 5 learned positions"):
        positions.embed(torch.zeros(1, 3, 4), offset=3)


def test_only_learned_positions_are_weights() -> None:
    for kind in ("sinusoidal", "learned", "rotary", "none"):
        state = Positions(kind, 4, 4, 5).state_dict()
        assert list(state) == (["learned"] if kind == "learned" else [])
