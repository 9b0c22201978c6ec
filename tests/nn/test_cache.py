"""Decoding with a cache: the same numbers as the full forward pass, in linear work."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch

from minitx.nn.attention import cache as cache_module
from minitx.nn.attention.cache import KeyValueCache
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.attention.positions import Positions


@pytest.mark.parametrize("heads", ["split", "grouped"])
@pytest.mark.parametrize("backend", ["naive", "sdpa"])
@pytest.mark.parametrize("span", ["global", "window"])
@pytest.mark.parametrize("chunks", [[1] * 41, [40, 1], [3, 17, 1, 20]], ids=["steps", "prompt", "mixed"])
def test_cached_self_attention_equals_full(heads: Any, backend: Any, span: Any, chunks: list[int]) -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 3, heads=heads, backend=backend, span=span, window=2, causal=True).double()
    positions = Positions("rotary", 6, 2, max_length=41).double()
    x = torch.randn(2, 41, 6, dtype=torch.float64)
    cache, steps, start = KeyValueCache(), [], 0
    with torch.no_grad():
        full = attention(x, rotation=positions.rotation(41))
        for n in chunks:
            step = x[:, start : start + n]
            steps.append(attention(step, cache=cache, rotation=positions.rotation(n, start)))
            start += n
    torch.testing.assert_close(torch.cat(steps, dim=1), full, rtol=0, atol=1e-12)


def test_cached_cross_attention_computes_the_memory_once() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 3).double()
    memory, x = torch.randn(2, 11, 6, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
    key_mask = torch.arange(11) < torch.tensor([[11], [4]])
    cache = KeyValueCache()
    with (
        torch.no_grad(),
        mock.patch.object(attention.project, "keys_values", wraps=attention.project.keys_values) as counted,
    ):
        steps = [attention(x[:, t : t + 1], memory, key_mask, cache=cache) for t in range(5)]
        assert counted.call_count == 1
        torch.testing.assert_close(torch.cat(steps, 1), attention(x, memory, key_mask), rtol=0, atol=1e-12)


def test_select_keeps_reorders_and_repeats_rows() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 3, causal=True)
    x = torch.randn(3, 7, 6)
    index = torch.tensor([2, 0, 2, 2])
    cache = KeyValueCache()
    with torch.no_grad():
        attention(x[:, :6], cache=cache)
        cache.select(index)
        step = attention(x[index, 6:], cache=cache)
        torch.testing.assert_close(step, attention(x[index])[:, 6:])


def test_room_doubles_so_that_steps_copy_a_constant_amount() -> None:
    cache, copied = KeyValueCache(), 0
    plain = cache_module._room

    def counting(buffer: torch.Tensor | None, new: torch.Tensor, kept: int, needed: int) -> torch.Tensor:
        nonlocal copied
        result = plain(buffer, new, kept, needed)
        copied += kept if result is not buffer else 0
        return result

    n = 1000
    values = torch.randn(2, 3, n, 5)
    with mock.patch.object(cache_module, "_room", counting):
        for t in range(n):
            cache.append(values[:, :, t : t + 1], -values[:, :, t : t + 1])
    keys, kept_values = cache.read()
    assert torch.equal(keys, values) and torch.equal(kept_values, -values)
    assert copied < 2 * 2 * n, "keys and values, each moved less than twice per step on average"
