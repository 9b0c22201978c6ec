"""Workers run a study's cells; kills, failures and studies that share cells leave the results that there would be."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from study_helpers import composer, heads, study
from tiny import ROOT

from minitx.studies.evidence import read_evidence
from minitx.studies.run import run_study
from minitx.sweeps.machine import WAITS, TimingLock
from minitx.training.run import hash_of
from minitx.training.run_folder import RunFolder

TESTS = Path(__file__).parent


def run(declared: Any, root: Path, classes: dict[str, Any]) -> None:
    run_study(declared, root, root / "tuned", composer(classes), hash_of, [])


def test_cells_run_once_and_are_shared(tiny_classes: dict[str, Any], tmp_path: Path, capfd: Any) -> None:
    root = tmp_path / "studies"
    run(study(heads(seeds=[0, 1]), workers=2), root, tiny_classes)
    output = capfd.readouterr()
    assert "[4/4]" in output.out and "UNDECIDED" in output.out and output.err == ""
    evidence = read_evidence(root / "tiny" / "study-quick.json")
    assert not evidence.missing and len(evidence.observations) == 4
    for seen in evidence.observations:
        results = RunFolder(root / seen.folder).results()
        assert results is not None
        assert seen.measures["test.accuracy"] == results["metrics"]["test"]["accuracy"]["value"]
        assert seen.intervals["test.accuracy"] == tuple(results["metrics"]["test"]["accuracy"]["ci95"])

    before = {p: p.stat().st_mtime_ns for p in root.rglob("results.json")}
    run(study(heads(seeds=[0, 1]), workers=2), root, tiny_classes)
    other = study(heads(seeds=[0, 1], values=[2, 4], contrasts={})).model_copy(update={"name": "other"})
    run(other, root, tiny_classes)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    folders = [seen.folder.split("/")[0] for seen in read_evidence(root / "other" / "study-quick.json").observations]
    assert folders == ["tiny", "tiny", "other", "other"]


@pytest.mark.parametrize("on_error", ["continue", "stop"])
def test_a_failing_cell_is_recorded(tiny_classes: dict[str, Any], tmp_path: Path, on_error: str, capfd: Any) -> None:
    """The measure of over-fitting needs training rows that were evaluated; one arm has none."""
    tier = heads(
        values=[1], seeds=[0], measures=["fit"], contrasts={},
        arms={"bad": {}, "good": {"overrides": ["trainer.eval_train_rows=20", "optim.lr=0.002"]}},
    )  # fmt: skip
    with pytest.raises(SystemExit) as end:
        run(study(tier, on_error=on_error, workers=1), tmp_path, tiny_classes)  # the bad one first
    assert end.value.code == 1
    output = capfd.readouterr().out
    assert "trainer.eval_train_rows (0) must be set" in output
    [trace] = tmp_path.glob("tiny/*/error.txt")
    assert "Traceback" in trace.read_text()
    assert ("] arm=good n_heads=1 seed=0  accuracy" in output) == (on_error == "continue")


def start(root: Path, classes: dict[str, Any], workers: int, steps: int) -> subprocess.Popen[bytes]:
    script = [
        sys.executable,
        str(TESTS / "run_tiny_study.py"),
        str(root),
        json.dumps(classes),
        str(workers),
        str(steps),
    ]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(TESTS)])
    with (root.parent / f"{root.name}.log").open("ab") as log:
        return subprocess.Popen(
            script, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def log_of(root: Path) -> str:
    """What the processes in `root` have output so far."""
    return (root.parent / f"{root.name}.log").read_text()


def test_a_killed_study_ends_in_the_same_table(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    """Killed hard at random moments, its workers too, until it has finished."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert start(straight, tiny_classes, 2, 30).wait(120) == 0
    rng, kills = random.Random(0), int(os.environ.get("MINITX_KILLS", "2"))
    for _ in range(kills):
        process = start(killed, tiny_classes, 2, 30)
        time.sleep(rng.uniform(4, 9))
        os.kill(process.pid, rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]))
        process.wait(60)
    assert start(killed, tiny_classes, 2, 30).wait(120) == 0, log_of(killed)
    table = straight / "tiny" / "cells-quick.csv"
    assert len(table.read_text().splitlines()) == 7
    assert (killed / "tiny" / "cells-quick.csv").read_text() == table.read_text()


def test_a_study_waits_for_the_timing_of_another(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "studies"
    with TimingLock() as other:
        assert other.admits(training=False, idle=True)
        process = start(root, tiny_classes, 1, 6)
        deadline = time.monotonic() + 60
        while WAITS not in log_of(root) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert log_of(root).count(WAITS) == 1 and not list(root.glob("tiny/*/config.yaml"))
    assert process.wait(120) == 0, log_of(root)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_study_saves_and_goes_on(tiny_classes: dict[str, Any], tmp_path: Path, workers: int) -> None:
    """Whatever the workers do: one trains, the other may still read data, or not have begun."""
    root = tmp_path / "studies"
    process = start(root, tiny_classes, workers, 3000)
    deadline = time.monotonic() + 60
    while not list(root.glob("tiny/*/checkpoints/last/state.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, log_of(root)
    assert "stopped; type the same line again to go on" in log_of(root)
    ends = [json.loads(path.read_text())["status"] for path in root.glob("tiny/*/results.json")]
    assert 1 <= len(ends) <= workers and set(ends) == {"stopped"}, "one that has not begun leaves nothing"
