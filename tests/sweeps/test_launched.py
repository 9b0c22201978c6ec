"""Cells by a launcher: one call for all, their state from their folders, and the tables that there would be without."""

from __future__ import annotations

import csv
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from study_helpers import composer, heads, study
from tiny import ROOT, tiny_overrides

from minitx.studies.run import run_study
from minitx.sweeps import launched
from minitx.sweeps.cells import Cell
from minitx.sweeps.executor import WORKERS_LOG
from minitx.training.run import hash_of
from minitx.training.run_folder import Busy


class LauncherHere:
    """Runs jobs one after the other in the thread that calls, and remembers the calls."""

    def __init__(self, before_return: Callable[[], object] = lambda: None, dies_at: int | None = None) -> None:
        """dies_at: number of the job that is killed when it has begun."""
        self.calls: list[int] = []
        self._before_return, self._dies_at = before_return, dies_at

    def make(self, task: Callable[[str], Any], folder: Path) -> LauncherHere:
        self._task = task
        return self

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        self.calls.append(len(job_overrides))
        returned = []
        for number, (parent, name) in enumerate(job_overrides, initial_job_idx):
            place = Path(parent.partition("=")[2].strip("'")) / name.partition("=")[2].strip("'")
            if number == self._dies_at:
                place.mkdir(parents=True)
                (place / "config.yaml").write_text("{}")
                raise RuntimeError(f"job {number} was killed")
            returned.append(SimpleNamespace(_return_value=self._task(str(place))))
        self._before_return()
        return returned


def run(root: Path, classes: dict[str, Any], launcher: Any, **changes: Any) -> None:
    declared = study(heads(seeds=[0, 1], **changes), workers=1)
    made = None if launcher is None else launcher.make
    run_study(declared, root, root / "tuned", composer(classes), hash_of, [], made)


def table(root: Path) -> str:
    return (root / "tiny" / "cells-quick.csv").read_text()


def test_all_cells_go_in_one_call_and_are_seen_before_it_returns(
    tiny_classes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher returns only once the study has seen every cell."""
    monkeypatch.setattr("minitx.sweeps.launched.SECONDS_BETWEEN_LOOKS", 0.05)
    seen, real = threading.Event(), launched.LaunchedCells.__exit__

    def leave(self: launched.LaunchedCells, *error: Any) -> None:
        seen.set()
        real(self, *error)

    monkeypatch.setattr(launched.LaunchedCells, "__exit__", leave)
    launcher = LauncherHere(before_return=lambda: seen.wait(60) or pytest.fail("nobody looked"))
    run(tmp_path / "launched", tiny_classes, launcher)
    assert launcher.calls == [4]
    run(tmp_path / "here", tiny_classes, None)
    assert table(tmp_path / "launched") == table(tmp_path / "here")
    run(tmp_path / "launched", tiny_classes, launcher)
    assert launcher.calls == [4], "what has finished is not launched again"


def test_what_the_launcher_dies_of_is_each_cells_error(
    tiny_classes: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuse() -> None:
        raise RuntimeError("no such partition: night\nsecond line")

    launcher = LauncherHere()
    monkeypatch.setattr(launcher, "launch", lambda *_, **__: refuse())
    with pytest.raises(SystemExit) as end:
        run(tmp_path, tiny_classes, launcher)
    assert end.value.code == 1
    output = capfd.readouterr().out
    assert output.count("FAILED: no such partition: night\n") == 4
    assert "second line" not in output


def test_a_job_that_dies_fails_its_cell_alone(
    tiny_classes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A launcher then gives no results at all: cells that had finished count, and those not yet begun go in again."""
    launcher, left = LauncherHere(dies_at=1), list[dict[str, Any]]()
    real = launched.LaunchedCells.__exit__

    def leave(self: launched.LaunchedCells, *error: Any) -> None:
        left.append(self._futures)
        real(self, *error)

    monkeypatch.setattr(launched.LaunchedCells, "__exit__", leave)
    with pytest.raises(SystemExit) as end:
        run(tmp_path, tiny_classes, launcher)
    assert end.value.code == 1
    assert left == [{}], "a cell that is run elsewhere would be given an old result"
    assert launcher.calls == [4, 2]
    output = capfd.readouterr().out
    assert output.count("FAILED: job 1 was killed") == 1 and output.count("accuracy") >= 3
    run(tmp_path, tiny_classes, launcher)
    assert launcher.calls == [4, 2, 1]


def test_a_cell_that_is_run_elsewhere_is_launched_again(
    tiny_classes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitx.sweeps.executor.SECONDS_BEFORE_RETRY", 0.01)
    real, busy = launched.run_cell, ["first"]

    def once_busy(cell: Cell, path: Path) -> None:
        if cell.seed == 1 and busy:
            busy.pop()
            raise Busy("another process has it")
        real(cell, path)

    monkeypatch.setattr(launched, "run_cell", once_busy)
    launcher = LauncherHere()
    run(tmp_path, tiny_classes, launcher)
    assert launcher.calls == [4, 1]


def test_timings_stay_here(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    launcher = LauncherHere()
    run(tmp_path, tiny_classes, launcher, arms={"wide": {"kind": "cost"}}, contrasts={})
    assert launcher.calls == []
    assert len(list(tmp_path.glob("tiny/*/measures.json"))) == 4
    assert (tmp_path / "tiny" / WORKERS_LOG).is_file()


# ------------------------------------------------------------------------------------------------------ real launchers

EXTRAS = {"joblib": "hydra_plugins.hydra_joblib_launcher", "submitit_local": "hydra_plugins.hydra_submitit_launcher"}


def sweep(folder: Path, data: dict[str, Any], *more: str, seeds: str = "0,1,2") -> subprocess.Popen[bytes]:
    """In `folder`."""
    typed = [*tiny_overrides(data), f"seed={seeds}", "trainer.threads=1", f"hydra.sweep.dir={folder}", *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), "-m", *typed], env=environment, cwd=folder.parent,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def cells(folder: Path) -> list[dict[str, str]]:
    with (folder / "cells.csv").open(newline="") as lines:
        return [{k: v for k, v in row.items() if k not in ("seconds", "folder")} for row in csv.DictReader(lines)]


def skip_without(launcher: str) -> None:
    if importlib.util.find_spec("hydra_plugins") is None or importlib.util.find_spec(EXTRAS[launcher]) is None:
        pytest.skip(f'{launcher} is not installed; pip install -e ".[cluster]"')


@pytest.mark.parametrize("launcher", EXTRAS)
def test_a_sweep_whose_driver_is_killed_ends_in_the_same_table(
    launcher: str, tiny_data: dict[str, Any], tmp_path: Path
) -> None:
    """Killed when the first cell has finished; jobs that were begun may go on, and the same line waits for them."""
    skip_without(launcher)
    here, there = tmp_path / "here", tmp_path / "there"
    assert sweep(here, tiny_data).wait(120) == 0
    typed = [f"hydra/launcher={launcher}", *(["hydra.launcher.n_jobs=1"] if launcher == "joblib" else [])]
    driver, deadline = sweep(there, tiny_data, *typed), time.monotonic() + 100
    while not list(there.glob("*/results.json")) and time.monotonic() < deadline:
        assert driver.poll() is None, (tmp_path / "there.log").read_text()
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait(10)
    assert sweep(there, tiny_data, *typed).wait(120) == 0, (tmp_path / "there.log").read_text()
    assert "launch  " in (tmp_path / "there.log").read_text()
    assert cells(there) == cells(here)


@pytest.mark.slow
def test_two_tasks_of_a_job_train_a_cell_as_one_process_does(tiny_data: dict[str, Any], tmp_path: Path) -> None:
    """In float32, whose sums are rounded otherwise when they are split."""
    skip_without("submitit_local")
    here, there = tmp_path / "here", tmp_path / "there"
    assert sweep(here, tiny_data, "trainer.accumulate=2", seeds="3").wait(120) == 0
    together = ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2", "trainer.accumulate=2"]
    assert sweep(there, tiny_data, *together, seeds="3").wait(240) == 0, (tmp_path / "there.log").read_text()
    assert len(list(there.rglob("*_1_log.out"))) == 1, "the second task"
    one, two = (
        load_file(next(folder.glob("*/checkpoints")) / "last" / "model.safetensors") for folder in (here, there)
    )
    assert one.keys() == two.keys()
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=1e-5)
