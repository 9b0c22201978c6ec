"""How many cells go at a time, and the name that timings have of a machine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from study_helpers import composer, heads, name_of, study

from minitx.config import TrainerConfig
from minitx.studies import plan
from minitx.sweeps import machine

CORES = 7


@pytest.fixture(autouse=True)
def seven_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: CORES)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("threads", "workers"),
    [
        pytest.param([1, 1, 1], 7, id="one thread each"),
        pytest.param([1, 3], 2, id="the widest counts"),
        pytest.param([11], 1, id="more threads than cores"),
        pytest.param([1, None], 1, id="one takes all"),
        pytest.param([], 1, id="timings alone"),
    ],
)
def test_trainings_keep_the_cores_busy(threads: list[int | None], workers: int) -> None:
    trainers = [TrainerConfig(threads=n) for n in threads]
    assert machine.workers_for(None, trainers) == workers
    assert machine.workers_for(5, trainers) == 5


def test_a_gpu_trains_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert machine.workers_for(None, [TrainerConfig(threads=1)]) == 1
    assert machine.workers_for(None, [TrainerConfig(threads=1, device="cpu")]) == 7


def test_a_timing_belongs_to_its_machine(tiny_classes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    declared = study(heads(arms={"wide": {}, "timed": {"kind": "cost", "tuned": False}}, contrasts={}, seeds=[0]))

    def hashes() -> dict[str, set[str]]:
        cells = plan.make_plan(declared, composer(tiny_classes), name_of, None).cells
        return {arm: {cell.hash for cell in cells if cell.arm == arm} for arm in ("wide", "timed")}

    here = hashes()
    assert hashes() == here and all(name.endswith("-cost") for name in here["timed"])
    monkeypatch.setattr(machine, "cpu_name", lambda: "another")
    there = hashes()
    assert there["wide"] == here["wide"] and not there["timed"] & here["timed"]


def test_the_name_counts_threads() -> None:
    names = [machine.machine_name(TrainerConfig(threads=n)) for n in (1, 3, None)]
    assert [name.split(", ")[-1] for name in names] == ["1 threads", "3 threads", "7 threads"]
