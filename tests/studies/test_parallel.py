"""What a wider machine gains: measured on both in turns, with the number of threads that each has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from study_helpers import composer, time_cell

from minitx.config import ConfigError
from minitx.studies import timings
from minitx.studies.timings import LayerBench
from minitx.sweeps.cells import read_measures
from minitx.training.run_folder import RunFolder

OVERRIDES = ["model.n_layers=1", "model.dropout=0", "data.max_length=13", "trainer.batch_rows=3"]


@pytest.fixture(autouse=True)
def same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def measured(classes: dict[str, Any], path: Path, *overrides: str) -> dict[str, float]:
    time_cell(composer(classes)([*OVERRIDES, *overrides]), "parallel", path)
    results = RunFolder(path).results()
    assert results is not None and results["status"] == "finished" and results["kind"] == "parallel"
    return {key.removeprefix("parallel."): value for key, value in read_measures(path).items()}


@pytest.mark.parametrize("model", ["transformer", "lstm", "cnn"])
def test_both_machines_take_the_same_step(
    tiny_classes: dict[str, Any], tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timings, "PARALLEL_SECONDS", 1e-9)
    found = measured(tiny_classes, tmp_path, f"model={model}", "trainer.threads=2")
    assert set(found) == {"narrow_seconds", "wide_seconds", "speedup", "log_speedup"}
    assert found["speedup"] == pytest.approx(found["narrow_seconds"] / found["wide_seconds"])
    assert found["log_speedup"] == pytest.approx(math.log(found["speedup"]))


def test_turns_alternate_and_the_median_counts(
    tiny_classes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that takes 6 s with a thread and 2 s with three, and each time begins with a slow step of a minute."""
    threads: list[int] = []

    def seconds(bench: LayerBench, work: Callable[[], object]) -> float:
        threads.append(torch.get_num_threads())
        assert bench.states.shape == (3, 13, 16)
        return 60.0 if threads.count(threads[-1]) == 1 else 6.0 / threads[-1]

    monkeypatch.setattr(LayerBench, "seconds", seconds)
    found = measured(tiny_classes, tmp_path, "trainer.threads=3")
    assert threads == [1, 3, 3, 1, 1, 3, 3, 1]
    assert found == {"narrow_seconds": 6.0, "wide_seconds": 2.0, "speedup": 3.0, "log_speedup": math.log(3)}


def test_one_thread_gains_nothing_over_one(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"trainer.threads \(1\) must be above 1, because one thread .*; give it more"
    ):
        measured(tiny_classes, tmp_path, "trainer.threads=1")


@pytest.mark.gpu
def test_a_gpu_is_the_wide_machine(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    assert measured(tiny_classes, tmp_path, "trainer.threads=1", "trainer.device=cuda")["speedup"] > 0
