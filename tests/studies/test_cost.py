"""What a layer costs: measured, written down, and growing as it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_helpers import composer, time_cell

from minitx.config import ConfigError
from minitx.sweeps.cells import read_measures
from minitx.training.run_folder import RunFolder

MEASURES = {"mixing_seconds", "training_seconds", "inference_seconds", "peak_bytes"}


def measured(classes: dict[str, Any], path: Path, *overrides: str) -> dict[str, float]:
    time_cell(composer(classes)(["model.n_layers=1", "model.dropout=0", *overrides]), "cost", path)
    results = RunFolder(path).results()
    assert results is not None and results["status"] == "finished"
    return {key.removeprefix("cost."): value for key, value in read_measures(path).items()}


def test_plain_attention_takes_the_square_in_memory(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    taken = {
        n: measured(tiny_classes, tmp_path / str(n), f"data.max_length={n}", "model.attention.backend=naive")
        for n in (128, 512)
    }
    assert set(taken[128]) == MEASURES | {"decoding_seconds", "mixing_flops"}
    width, n = 16, 512
    products = 3 * (4 * n * width * width + 2 * n * n * width) * 2  # forward once, backward twice
    assert taken[512]["mixing_flops"] == products
    assert all(value > 0 for value in taken[128].values())
    square = 4 * 512 * 512 * 4  # one float32 map of four heads
    assert taken[512]["peak_bytes"] > 2 * square
    assert 12 < (taken[512]["peak_bytes"] / taken[128]["peak_bytes"]) < 17


def test_a_convolution_takes_what_the_length_takes(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    taken = {n: measured(tiny_classes, tmp_path / str(n), "model=cnn", f"data.max_length={n}") for n in (128, 512)}
    assert set(taken[128]) == MEASURES
    assert 3.5 < (taken[512]["peak_bytes"] / taken[128]["peak_bytes"]) < 4.5


def test_a_recurrence_decodes_too(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    assert measured(tiny_classes, tmp_path, "model=lstm", "data.max_length=31")["decoding_seconds"] > 0


def test_a_linear_model_has_no_layer(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    from minitx.config import LinearConfig

    config = composer(tiny_classes)([]).model_copy(update={"model": LinearConfig()})
    with pytest.raises(ConfigError, match=r"model \(linear\) must be a net"):
        time_cell(config, "cost", tmp_path)


def test_a_timing_that_is_there_is_not_taken_again(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    """Two processes that run one study wait for each other, and the second finds the first one's numbers."""
    first = measured(tiny_classes, tmp_path, "data.max_length=32")
    assert measured(tiny_classes, tmp_path, "data.max_length=32") == first
