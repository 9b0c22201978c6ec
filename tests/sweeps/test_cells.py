"""A sweep names its cells, skips and resumes them, lives through failures, and ends in a table."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tiny import ROOT, Output, tiny_overrides

from minitx.sweeps.sweep import ArmSummary, Mean, summarise, write_plot
from minitx.training import loop

Train = Callable[..., Output]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_sweep_ends_in_a_table_and_typed_again_runs_nothing(train_py: Train, tmp_path: Path) -> None:
    line = ("-m", "model.n_heads=1,2", "seed=0,1")
    first = train_py(*line)
    assert (first.code, first.err) == (0, "")
    [folder] = (tmp_path / "outputs" / "sweeps").glob("spelling-n_heads-seed-*")
    cells = sorted(p.name for p in folder.iterdir() if p.is_dir())
    assert [c.rsplit("-", 1)[0] for c in cells] == [
        "n_heads-1_seed-0", "n_heads-1_seed-1", "n_heads-2_seed-0", "n_heads-2_seed-1",
    ]  # fmt: skip
    table = rows_of(folder / "table.csv")
    assert [(row["model.n_heads"], row["n_seeds"]) for row in table] == [("1", "2"), ("2", "2")]
    for row in table:
        pers = [
            json.loads((folder / cell / "results.json").read_text())["metrics"]["test"]["per"]["value"]
            for cell in cells
            if cell.startswith(f"n_heads-{row['model.n_heads']}_")
        ]
        low, high = stats.t.interval(0.95, 1, loc=np.mean(pers), scale=stats.sem(pers))
        assert float(row["per_mean"]) == pytest.approx(np.mean(pers))
        assert float(row["per_ci95_half_width"]) == pytest.approx((high - low) / 2)
    assert len(rows_of(folder / "cells.csv")) == 4 and (folder / "table.png").read_bytes()[:4] == b"\x89PNG"
    assert "n_heads=2" in first.out and "± " in first.out

    before = {p: p.stat().st_mtime_ns for p in folder.rglob("results.json")}
    again = train_py(*line)
    assert again.code == 0 and "already done: 4 of 4 cells" in again.out and "[4/4]" not in again.out
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("results.json")} == before
    assert rows_of(folder / "table.csv") == table


def test_workers_give_the_same_table(train_py: Train, tmp_path: Path) -> None:
    """Cells run one after the other in this process, or two at a time in processes of their own."""
    line = ("-m", "model.n_heads=1,3", "seed=0,1", "trainer.threads=1")
    alone = train_py(*line, "hydra.sweep.dir=alone")
    beside = train_py(*line, "hydra.sweep.dir=beside", "hydra.sweeper.workers=2")
    assert alone.code == beside.code == 1, beside.err
    assert "workers 2" in beside.out and beside.out.count("FAILED: model.d_model (16)") == 2
    for name in ("table.csv", "cells.csv"):
        assert rows_of(tmp_path / "beside" / name) == rows_of(tmp_path / "alone" / name)


def test_failures_are_printed_at_once_and_do_not_end_the_sweep(train_py: Train, tmp_path: Path) -> None:
    ended = train_py("-m", "model.n_heads=3,2", "optim.lr=1e30,1e-3", "optim.clip=null", "optim.warmup_steps=0")
    assert ended.code == 1
    assert ended.out.count("FAILED: model.d_model (16) must be divisible by model.n_heads (3)") == 2
    assert ended.out.count("FAILED: loss is ") == 1
    [cells] = tmp_path.glob("outputs/sweeps/spelling-n_heads-lr-*/cells.csv")
    rows = rows_of(cells)
    assert [bool(row["per"]) for row in rows] == [False, False, False, True]
    assert "must be divisible" in rows[0]["error"] and "loss is" in rows[2]["error"]
    assert "Traceback" not in ended.out + ended.err


def test_arms_of_different_tasks_stand_in_one_table(train_py: Train, tmp_path: Path) -> None:
    ended = train_py("-m", "data=cmudict_stress,digits", "data.train_size=300", "trainer.max_steps=3", bare=True)
    assert ended.code == 0, ended.err
    [table] = tmp_path.glob("outputs/sweeps/sweep-data-*/table.csv")
    assert [row["data"] for row in rows_of(table)] == ["cmudict_stress", "digits"]


def test_cells_that_differ_in_nothing_run_once_with_a_warning(train_py: Train) -> None:
    ended = train_py("-m", "trainer.log_every=2,3", "trainer.max_steps=3")
    assert ended.code == 0 and "warning: 1 cells differ in nothing that changes a result" in ended.out


def test_ctrl_c_ends_the_sweep_and_the_same_line_goes_on(
    train_py: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.Loop._train_step

    def step(self: loop.Loop) -> None:
        original(self)
        if self.counters.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Loop, "_train_step", step)
        stopped = train_py("-m", "seed=0,1", "hydra.sweep.dir=mine")
    assert stopped.code == 130 and stopped.out.endswith("\nstopped; type the same line again to go on\n")
    again = train_py("-m", "seed=0,1", "hydra.sweep.dir=mine")
    assert again.code == 0, again.err
    statuses = [json.loads(p.read_text())["status"] for p in (tmp_path / "mine").rglob("results.json")]
    assert statuses == ["finished", "finished"]


def test_a_sweep_refuses_to_resume_one_run(train_py: Train) -> None:
    ended = train_py("-m", "trainer.resume=some/run", "seed=0,1")
    assert ended.code == 1 and ended.out.count("trainer.resume (some/run) must be null in a sweep") == 2


def test_train_size_sweeps_over_nested_subsets(train_py: Train, tmp_path: Path) -> None:
    ended = train_py("-m", "data.train_size=64,256", "hydra.sweep.dir=mine")
    assert ended.code == 0
    sizes = [json.loads(p.read_text())["n_train"] for p in (tmp_path / "mine").rglob("results.json")]
    assert sorted(sizes) == [64, 256]


@pytest.mark.slow
def test_killed_five_times_the_table_is_the_same(tmp_path: Path, tiny_data: dict[str, Any]) -> None:
    """SIGKILL at uneven moments while cells train; the same line is typed again until it ends."""
    line = [
        sys.executable, str(ROOT / "train.py"), "-m", *tiny_overrides(tiny_data), "model.n_heads=1,2", "seed=0,1",
        "trainer.save_every=5", "trainer.max_steps=60",
    ]  # fmt: skip

    def tables(folder: Path) -> list[list[dict[str, str]]]:
        [swept] = folder.glob("outputs/sweeps/spelling-n_heads-seed-*")
        return [rows_of(swept / name) for name in ("table.csv", "cells.csv")]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    subprocess.run(line, cwd=whole, check=True, capture_output=True)
    kills = 0
    for number in range(5):
        process = subprocess.Popen(line, cwd=killed, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for_lines(killed, process, 6 + 17 * number)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    subprocess.run(line, cwd=killed, check=True, capture_output=True)
    assert kills == 5
    assert tables(killed) == tables(whole)


def _wait_for_lines(folder: Path, process: subprocess.Popen[bytes], count: int) -> None:
    """Until the cells' logs have `count` lines in all, so that each kill finds work done and work to do."""
    while process.poll() is None:
        logs = folder.glob("outputs/sweeps/*/*/metrics.jsonl")
        if sum(log.read_bytes().count(b"\n") for log in logs) >= count:
            return


# ----------------------------------------------------------------------------------------------------------- table


def result(value: float, seconds: float = 1.0) -> dict[str, Any]:
    return {"metrics": {"test": {"accuracy": {"value": value}}}, "n_params": 5, "seconds": seconds}


def test_arms_group_everything_but_the_seed_in_order_of_appearance() -> None:
    cells = [({"a": a, "seed": s}, result(float(a) + float(s))) for a in ("2", "1") for s in ("0", "1", "2")]
    arms = summarise(cells)
    assert [(arm.values["a"], arm.n_seeds, arm.metrics["accuracy"].mean) for arm in arms] == [
        ("2", 3, 3.0),
        ("1", 3, 2.0),
    ]


def test_interval_is_scipys_and_one_seed_has_none() -> None:
    values = (0.3, 0.5, 0.45, 0.61)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert Mean(values).half_width == pytest.approx((high - low) / 2)
    assert Mean((0.3,)).half_width is None and Mean((0.3,)).text == "0.3000"


def test_plot_places_numbers_on_a_true_axis_and_names_in_order(tmp_path: Path) -> None:
    for values in (("1", "2", "16"), ("rotary", "none", "learned")):
        arms = [ArmSummary(values={"k": v}, metrics={"m": Mean((0.1, 0.2))}, n_params=1, seconds=1.0) for v in values]
        write_plot(tmp_path / "plot.png", arms, ["k"])
        assert (tmp_path / "plot.png").stat().st_size > 5_000
