"""What a study's table of cells keeps when their folders are gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from study_helpers import composer, heads, study

from minitx.studies.evidence import read_evidence
from minitx.studies.run import run_study
from minitx.sweeps.machine import machine_name
from minitx.training.run import hash_of


def test_a_timing_says_what_it_was_taken_on(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    compose = composer(tiny_classes)
    tier = heads(arms={"wide": {"kind": "cost"}}, values=[1], seeds=[0], contrasts={})
    run_study(study(tier, workers=1), tmp_path, tmp_path / "tuned", compose, hash_of, [])
    record = tmp_path / "tiny" / "study-quick.json"
    [here] = read_evidence(record).observations
    assert here.device == machine_name(compose([]).trainer)
    for folder in (tmp_path / "tiny").glob("arm-*"):
        shutil.rmtree(folder)
    [stored] = read_evidence(record).observations
    assert stored.device == here.device and stored.measures.items() <= here.measures.items()
    assert "cost.training_seconds" in stored.measures
