"""Peaks of memory are those of the tensors that are alive together."""

from __future__ import annotations

import torch

from minitx.training.device import peak_bytes, tensor_peak_bytes

CPU = torch.device("cpu")
MEGABYTE = 1 << 20


def two_at_once() -> None:
    """Four megabytes, freed; then two and three together."""
    torch.empty(4 * MEGABYTE, dtype=torch.uint8)
    kept = torch.empty(2 * MEGABYTE, dtype=torch.uint8)
    torch.empty(3 * MEGABYTE, dtype=torch.uint8)
    del kept


def test_tensors_count_while_they_live() -> None:
    earlier = torch.empty(64 * MEGABYTE, dtype=torch.uint8)  # what is there before does not count
    assert tensor_peak_bytes(CPU, two_at_once) == 5 * MEGABYTE
    assert tensor_peak_bytes(CPU, lambda: None) == 0
    del earlier


def test_the_process_grows_by_what_is_touched() -> None:
    size = 256 * MEGABYTE
    found = peak_bytes(CPU, lambda: torch.zeros(size, dtype=torch.uint8).add_(1))
    assert 0.9 * size < found < 1.5 * size
