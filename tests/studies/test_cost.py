"""What a layer costs: measured, written down, and growing as it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_helpers import composer, time_cell

from minitx.config import ConfigError
from minitx.studies import timings
from minitx.sweeps.cells import read_measures
from minitx.training.run_folder import RunFolder

SECONDS = {"mixing_seconds", "training_seconds", "inference_seconds", "peak_bytes"}
MEASURES = SECONDS | {"mixing_flops", "training_flops"}
DECODING = {"decoding_seconds", "cache_bytes"}


def measured(classes: dict[str, Any], path: Path, *overrides: str) -> dict[str, float]:
    layers = [] if "model=bag" in overrides else ["model.n_layers=1"]
    time_cell(composer(classes)([*layers, "model.dropout=0", *overrides]), "cost", path)
    results = RunFolder(path).results()
    assert results is not None and results["status"] == "finished"
    return {key.removeprefix("cost."): value for key, value in read_measures(path).items()}


def test_plain_attention_takes_the_square_in_memory(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    taken = {
        n: measured(tiny_classes, tmp_path / str(n), f"data.max_length={n}", "model.attention.backend=naive")
        for n in (128, 512)
    }
    assert set(taken[128]) == MEASURES | DECODING
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


def test_operations_are_those_of_the_products(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    """By hand, forward once and backward twice, 2 operations per product: four projections of 20 by 20 and two maps;
    the feed-forward layer's two of 20 by 37. The fused kernel counts as the plain one does."""
    sizes = ["data.max_length=53", "model.d_model=20", "model.n_heads=2", "model.d_ff=37"]
    attention, feed_forward = 4 * 53 * 20 * 20 + 2 * 53 * 53 * 20, 2 * 53 * 20 * 37
    for backend in ("naive", "sdpa"):
        found = measured(tiny_classes, tmp_path / backend, *sizes, f"model.attention.backend={backend}")
        assert found["mixing_flops"] == 6 * attention
        assert found["training_flops"] == 6 * (attention + feed_forward)


def test_operations_of_a_convolution_and_a_recurrence(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    """By hand. A convolution: 11 channels of 3 positions of 20, and back to 20. An LSTM in both directions: 4 gates of
    the input and the state, and back to 20; its first state is constant, so no gradient of it is computed."""
    n = 53
    cnn = measured(
        tiny_classes, tmp_path / "cnn", "model=cnn", "data.max_length=53", "model.d_model=20", "model.channels=11",
        "model.kernel=3",
    )  # fmt: skip
    assert cnn["mixing_flops"] == cnn["training_flops"] == 6 * n * (11 * 3 * 20 + 11 * 20)
    lstm = measured(
        tiny_classes, tmp_path / "lstm", "model=lstm", "data.max_length=53", "model.d_model=20", "model.hidden=7"
    )
    each_way = 6 * n * 4 * 7 * (20 + 7) - 2 * 4 * 7 * 7
    assert lstm["mixing_flops"] == lstm["training_flops"] == 2 * each_way + 6 * n * 14 * 20


def test_what_is_too_long_or_not_counted_is_left_out(
    tiny_classes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(measured(tiny_classes, tmp_path / "bag", "model=bag", "data.max_length=31")) == SECONDS
    monkeypatch.setattr(timings, "MOST_COUNTED", 30)
    assert set(measured(tiny_classes, tmp_path / "long", "data.max_length=31")) == SECONDS | DECODING


def test_a_cache_holds_keys_and_values_or_a_state(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    """By hand, float32: of 31 tokens, in each of 3 layers, a key and a value of 16; of an LSTM, however long, two
    states of 7 in each layer."""
    found = measured(tiny_classes, tmp_path / "transformer", "data.max_length=31", "model.n_decoder_layers=3")
    assert found["cache_bytes"] == 3 * 2 * 31 * 16 * 4
    for n in (31, 61):
        sizes = [f"data.max_length={n}", "model.n_decoder_layers=3", "model.hidden=7"]
        found = measured(tiny_classes, tmp_path / f"lstm-{n}", "model=lstm", *sizes)
        assert found["cache_bytes"] == 3 * 2 * 7 * 4 and found["decoding_seconds"] > 0


def test_a_linear_model_has_no_layer(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    from minitx.config import LinearConfig

    config = composer(tiny_classes)([]).model_copy(update={"model": LinearConfig()})
    with pytest.raises(ConfigError, match=r"model \(linear\) must be a net"):
        time_cell(config, "cost", tmp_path)


def test_a_timing_that_is_there_is_not_taken_again(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    """Two processes that run one study wait for each other, and the second finds the first one's numbers."""
    first = measured(tiny_classes, tmp_path, "data.max_length=32")
    assert measured(tiny_classes, tmp_path, "data.max_length=32") == first
