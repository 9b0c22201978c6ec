"""The fault campaign in short; `python -m tests.faults` is the whole, outputs/reference/faults.json its record."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.faults.__main__ import PARTS
from tests.faults.damage import damage, spoil
from tests.faults.fuzz import fuzz_files, fuzz_overrides
from tests.faults.fuzz_runs import fuzz_folders, fuzz_texts
from tests.faults.kills import interrupt
from tests.faults.system import system_faults

ROOT = Path(__file__).resolve().parents[2]
LONG = 600.0
"""Seconds: the number of tries ends a part here, not the clock."""


def test_interrupted_trainings_end_as_if_nobody_had(tmp_path: Path) -> None:
    found = interrupt(tmp_path, 3, seed=4, seconds=LONG, trainings=("ema and accumulation",))
    assert found.wrong == [] and found.n >= 3 and found.identical == found.compared > 0


def test_damage_is_noticed_or_does_no_harm(tmp_path: Path) -> None:
    found = damage(tmp_path, seed=2, kinds=("linear classification",), harms=("flip",), inside="run")
    assert found["wrong"] == [] and found["noticed"] > 4
    assert all(noticed for name, (noticed, _) in found["of_files"].items() if name.startswith("checkpoint"))


def test_spoiling_spoils(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for harm, size in (("flip", 10), ("cut", 5)):
        file.write_bytes(b"0123456789")
        spoil(file, harm, random.Random(0))
        assert len(file.read_bytes()) == size and file.read_bytes() != b"0123456789"
    spoil(file, "gone", random.Random(0))
    assert not file.exists()


def test_faults_of_the_system_are_told_and_lose_nothing(tmp_path: Path) -> None:
    found = system_faults(tmp_path, ("no room for a checkpoint", "a loss that is not a number"))
    assert found["wrong"] == []


def test_overrides_are_taken_or_refused_in_one_line(tmp_path: Path) -> None:
    found = fuzz_overrides(tmp_path, 120, number=3, seconds=LONG)
    assert found["wrong"] == [] and found["inputs"] == {"typed": 120, "resume": 120, "hydra": 12}
    assert found["taken"] > 3 and found["refused"] > 100


def test_files_give_their_rows_or_are_refused_in_one_line(tmp_path: Path) -> None:
    found = fuzz_files(tmp_path, 150, number=3, seconds=LONG)
    assert found["wrong"] == [] and min(found["taken"], found["refused"]) > 20 and len(found["inputs"]) == 5


def test_any_text_gets_one_answer(tmp_path: Path) -> None:
    found = fuzz_texts(tmp_path, 60, number=3, seconds=LONG)
    assert found["wrong"] == [] and found["taken"] == 60 and found["refused"] == 0


def test_a_damaged_folder_answers_as_before_or_is_refused_in_one_line(tmp_path: Path) -> None:
    found = fuzz_folders(tmp_path, 60, number=3, seconds=LONG)
    assert found["wrong"] == [] and min(found["taken"], found["refused"]) > 10


@pytest.mark.parametrize("part", PARTS)
def test_the_record_of_the_whole_campaign_has_nothing_wrong(part: str) -> None:
    record = json.loads((ROOT / "outputs" / "reference" / "faults.json").read_text(encoding="utf-8"))
    assert record[part]["wrong"] == []
