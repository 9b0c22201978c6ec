"""`minitx bench`: dry runs of both suites as a user types them, interruption, time limits, and wrong options."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import ROOT

from minitx.bench import worker as process
from minitx.bench.jobs import CPU_PARTS, GPU_PARTS, GPU_SHARES, Options, make_plan
from minitx.bench.parts import peak, sum_peak
from minitx.bench.report import Bench, write_figures
from minitx.bench.suite import PARTS, run_suite
from minitx.bench.worker import Workers
from minitx.config import ConfigError
from minitx.training.console import Reporter

# Answers at once, but for training, which never ends.
STUBBORN = """
import json, os, sys, time
machine = {"cpu": "x", "usable_cores": 1, "threads": 1, "gpu": None, "versions": {}, "load_average": [0, 0, 0]}
for line in sys.stdin:
    work = json.loads(line)["work"]
    if work == "train":
        open(os.environ["PID_FILE"], "w").write(str(os.getpid()))
        time.sleep(60)
    speeds = {"fp32": {"gflops": 5.0}} if work == "peak" else {}
    print(json.dumps({"status": "ok", "edge": 4, **speeds, **(machine if work == "machine" else {})}), flush=True)
"""


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "bench.json").read_text())
    return found


def dry(folder: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "minitx.cli", "bench", "--dry-run", "-o", str(folder), *options]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert said.returncode == 0, said.stderr
    assert "DRY RUN" in said.stdout
    return report(folder)


def assert_complete(found: dict[str, Any], parts: tuple[str, ...]) -> None:
    assert found["status"] == "finished" and found["dry_run"] is True
    assert tuple(found["parts"]) == parts
    for name, part in found["parts"].items():
        assert part["status"] == "done" and part["summary"] and part["measurements"], name
        for measured in part["measurements"]:
            allowed = ("ok", "not installed") if "transformers" in measured["label"] else ("ok",)
            assert measured["status"] in allowed, (name, measured)


@pytest.mark.slow
def test_a_dry_run_of_the_cpu_suite(tmp_path: Path) -> None:
    found = dry(tmp_path)
    assert_complete(found, CPU_PARTS)
    assert {"cpu", "cores", "threads", "versions", "git", "date", "load_average"} <= set(found["machine"])
    ids = [m for name in ("classification", "inference") for m in found["parts"][name]["measurements"] if "sha256" in m]
    assert len({m["sha256"] for m in ids if m["mean_length"].keys() == {"src"}}) == 1, "everybody has the same ids"
    assert (tmp_path / "memory.png").stat().st_size > 0 and (tmp_path / "scaling.png").stat().st_size > 0


@pytest.mark.slow
def test_a_dry_run_of_the_gpu_suite_on_the_cpu(tmp_path: Path) -> None:
    found = dry(tmp_path, "--suite", "gpu", "--device", "cpu")
    assert_complete(found, GPU_PARTS)
    recipe = found["parts"]["recipe"]["summary"]
    assert recipe["loss_difference"].keys() == {"fp32", "bf16"} and recipe["loss_difference"]["fp32"] == 0
    assert recipe["speed"]["default"]["tokens_per_second"] > 0
    again = dry(tmp_path, "--suite", "gpu", "--device", "cpu")
    assert again["parts"] == found["parts"], "a second call has nothing left to do"
    assert "needs CUDA" in (log := (tmp_path / "bench.log").read_text()) or "need CUDA" in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_keeps_the_json_and_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    pid_file = tmp_path / "pid"
    script = (
        f"from minitx.bench import worker; worker.COMMAND = ({sys.executable!r}, '-c', {STUBBORN!r});"
        f"from minitx.cli import main;"
        f"main(['bench', '--dry-run', '--only', 'peak', 'classification', '-o', {str(tmp_path)!r}])"
    )
    environment = {**os.environ, "PID_FILE": str(pid_file)}
    suite = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline and suite.poll() is None
        time.sleep(0.02)
    suite.send_signal(number)
    assert suite.wait(30) == 128 + number
    found = report(tmp_path)
    assert found["status"] == "interrupted"
    assert found["parts"]["peak"]["summary"]["fp32"]["gflops"] == 5.0
    assert found["parts"]["classification"]["status"] == "interrupted"
    assert [m["label"] for m in found["parts"]["classification"]["measurements"]] == ["ids", "peak"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_part_that_overruns_is_ended_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", STUBBORN))
    plan = make_plan(Options(suite="gpu", dry_run=True), "cpu", 1)
    short = dict.fromkeys(plan.part_seconds, 1.0)
    workers = Workers("suite")
    bench = Bench(type(plan)(**{**vars(plan), "part_seconds": short}), tmp_path, Reporter(quiet=True), workers)
    bench.begin({}, [], {})
    bench.run_part("classification", PARTS["classification"].run, PARTS["classification"].summarise)
    bench.run_part("peak", peak, sum_peak)
    workers.end()
    found = report(tmp_path)["parts"]
    assert found["classification"]["status"] == "timed out" and "limit of 1 s" in found["classification"]["error"]
    assert "timed out" in [m["status"] for m in found["classification"]["measurements"]]
    assert found["peak"]["status"] == "done", "the next part goes on"


def test_a_part_that_breaks_does_not_end_the_others(tmp_path: Path) -> None:
    def broken(_: Bench) -> None:
        raise ZeroDivisionError("by hand")

    bench = Bench(make_plan(Options(dry_run=True), "cpu", 1), tmp_path, Reporter(quiet=True), Workers())
    bench.begin({}, [], {})
    bench.run_part("peak", broken, sum_peak)
    assert report(tmp_path)["parts"]["peak"]["error"] == "ZeroDivisionError: by hand"


def test_the_parts_of_the_gpu_suite_share_the_minutes() -> None:
    plan = make_plan(Options(suite="gpu", minutes=3), "cuda", 1)
    assert set(GPU_SHARES) == set(GPU_PARTS) <= set(PARTS)
    assert sum(plan.part_seconds.values()) == pytest.approx(180)


def test_a_second_call_measures_what_is_missing(tmp_path: Path) -> None:
    """Parts that are done stay; one that failed, and one of another machine, are measured again."""
    parts = {"peak": {"status": "done"}, "cost": {"status": "timed out"}}
    earlier = {"dry_run": True, "machine": {"gpu": {"name": "a"}}, "parts": parts}
    (tmp_path / "bench.json").write_text(json.dumps(earlier))
    for gpu, done in (("a", True), ("b", False)):
        bench = Bench(make_plan(Options(dry_run=True), "cpu", 1), tmp_path, Reporter(quiet=True), Workers())
        bench.begin({"gpu": {"name": gpu}}, [], {})
        assert (bench.is_done("peak"), bench.is_done("cost")) == (done, False)


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match=r"--only \(larg\) must be a part of the suite; .*scaling"):
        run_suite(Options(only=("larg",)))
    with pytest.raises(ConfigError, match=r"--only \(large\) must"):
        run_suite(Options(only=("large",)))


def test_the_gpu_suite_needs_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", STUBBORN))
    with pytest.raises(ConfigError, match=r"--device \(cuda\) must name a device that is there .*--dry-run"):
        run_suite(Options(suite="gpu", output=tmp_path))
    with pytest.raises(ConfigError, match=r"--device \(cpu\) must be cuda, because --suite is gpu; add --dry-run"):
        run_suite(Options(suite="gpu", device="cpu", output=tmp_path))


def test_figures_take_the_reports_keys_as_json_has_them(tmp_path: Path) -> None:
    """And a value of zero, which no logarithm has, is left out."""
    points = {"sdpa": {"64": 0.0, "128": 2.0, "256": 4.0}, "naive": {"64": 1.0, "128": 4.0, "256": 16.0}}
    grown = {"summary": {"points": points, "exponents": {"sdpa": None, "naive": 2.0}}}
    scaling = {"summary": {"tokens_per_second": {"threads": {"minitx": {"1": 5.0}, "torch": {"1": 4.0}}}}}
    parts = {"memory": grown, "cost": grown, "scaling": scaling, "peak": {"summary": {}}}
    found = write_figures({"dry_run": True, "parts": parts}, tmp_path)
    assert [path.name for path in found] == ["memory.png", "scaling.png"]
    assert write_figures({"dry_run": False, "parts": {}}, tmp_path) == []
