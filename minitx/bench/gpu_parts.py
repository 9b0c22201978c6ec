"""Parts of the gpu suite alone: a large model, the price of padding, the tests, and training as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minitx.bench.job import Ids, Job
from minitx.bench.process import PACKAGE_ROOT, end, start, tail
from minitx.bench.record import Bench, OutOfTime, Summary, Table
from minitx.bench.rounds import medians
from minitx.bench.throughput import compare, sum_training, training_job

Measured = Mapping[str, Any]
LARGE_ROWS = 32
TRAINING_MINUTES = {1: 1.0, 2: 0.4}
"""Of each run, by the number of runs: start-up, validations and the test come on top."""
SUMMARY_KEYS = ("status", "steps", "seconds", "tokens_per_second", "device", "precision", "n_params", "metrics")


# -------------------------------------------------------------------------------------------------- large and padding


def large(bench: Bench) -> None:
    """Full rows, bf16 on a GPU, compiled and not."""
    plan = bench.plan
    rows = 4 if plan.dry else LARGE_ROWS
    job = _full(plan.base.model_copy(update={"size": plan.large}), rows)
    jobs = {"minitx": job}
    if plan.device == "cuda":
        jobs["minitx compiled"] = job.model_copy(update={"how": "compiled"})
    else:
        bench.reporter.warn("large: compiling is measured with CUDA only")
    compare(bench, jobs, rounds=1)


def _full(job: Job, rows: int, length: int | None = None) -> Job:
    """The same job on full rows."""
    size = job.size if length is None else job.size.model_copy(update={"max_length": length})
    ids = Ids(source="full", rows=rows * (job.warmup + job.steps + 1))
    return job.model_copy(update={"size": size, "ids": ids, "rows": rows, "batch_tokens": rows * size.max_length})


def padding(bench: Bench) -> None:
    """Real lengths against full rows of the mean length: as many rows and real tokens, but nothing to pad."""
    plan = bench.plan
    real = training_job(bench, plan.classification, plan.classification_ids)
    mean = bench.measure("ids", 0, real.model_copy(update={"work": "data"}))["mean_length"]["src"]
    full = _full(real, plan.rows, round(mean))
    compare(bench, {"real lengths": real, "full rows": full}, rounds=min(2, plan.rounds))


def sum_padding(measurements: Sequence[Measured]) -> Summary:
    training = sum_training(measurements, "padding")
    speed = medians([m for m in measurements if m["label"] != "peak"], "tokens_per_second")
    facts, rows = dict(training.facts), []
    if "real lengths" in speed and "full rows" in speed:
        facts["cost"] = 1 - speed["real lengths"] / speed["full rows"]
        rows = [["real tokens/s lost to unequal lengths", f"{100 * facts['cost']:.1f} %"]]
    return Summary(facts, [*training.tables, Table("padding", ["", "cost"], rows)])


# --------------------------------------------------------------------------------------------------- tests and training


def tests(bench: Bench) -> None:
    """The tests that need a GPU; without one they skip themselves, and a dry run only collects them."""
    if not (PACKAGE_ROOT / "tests").is_dir():
        bench.note("pytest -m gpu", 0, {"status": "failed", "error": f"no folder tests beside {PACKAGE_ROOT}/minitx"})
        return
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    command += ["--collect-only", "tests/nn"] if bench.plan.dry else ["-rs"]
    bench.note("pytest -m gpu", 0, _said(bench, command, PACKAGE_ROOT))
    if bench.plan.device != "cuda":
        bench.reporter.warn("tests: the gpu tests need CUDA and skip themselves here")


def training(bench: Bench) -> None:
    """train.py with its own recipe, as a user types it, cut by the clock."""
    if not (PACKAGE_ROOT / "train.py").is_file():
        bench.note("train.py", 0, {"status": "failed", "error": f"no train.py beside {PACKAGE_ROOT}/minitx"})
        return
    runs: dict[str, list[str]] = {bench.plan.training_data: []}
    multi30k = bench.plan.translation_ids.path
    if multi30k is not None and not bench.plan.dry:
        runs["multi30k"] = [f"data.path={Path(multi30k).resolve() if Path(multi30k).exists() else multi30k}"]
    limit = [] if bench.plan.dry else [f"trainer.max_minutes={TRAINING_MINUTES[len(runs)]}"]
    for data, extra in runs.items():
        folder = (bench.folder / f"train-{data}").resolve()
        typed = [f"data={data}", f"trainer.device={bench.plan.device}", *extra, *limit, *bench.plan.training]
        typed += [f"data.cache_dir={(bench.folder / 'cache').resolve()}", f"hydra.run.dir={folder}"]
        said = _said(bench, [sys.executable, str(PACKAGE_ROOT / "train.py"), *typed], PACKAGE_ROOT)
        bench.note(f"train.py data={data}", 0, {**said, "results": _results(folder)})


def _results(folder: Path) -> dict[str, Any]:
    file = folder / "results.json"
    if not file.is_file():
        return {}
    results = json.loads(file.read_text(encoding="utf-8"))
    return {key: results.get(key) for key in SUMMARY_KEYS}


def _said(bench: Bench, command: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run a command within the part's time: its exit code, seconds and the end of what it said."""
    before = bench.seconds_left
    with tempfile.TemporaryFile() as output:
        process = start(command, output, stdout=output, cwd=folder, stdin=subprocess.DEVNULL)
        try:
            code = process.wait(max(0.0, before))
        except subprocess.TimeoutExpired:
            said = {"status": "timed out", "error": f"did not end within {before:.0f} s"}
            end(process)
            bench.note(" ".join(map(str, command[1:4])), 0, {**said, "tail": tail(output, 3000)})
            raise OutOfTime from None
        except BaseException:
            end(process)
            raise
        text = tail(output, 3000)
    last = (text.strip().splitlines() or ["it said nothing"])[-1]
    failed = {} if code in (0, 5) else {"error": f"exit code {code}: {last}"}  # 5: pytest found nothing to run
    status = "failed" if failed else "ok"
    return {"status": status, **failed, "exit_code": code, "seconds": before - bench.seconds_left, "tail": text}


def sum_commands(measurements: Sequence[Measured]) -> Summary:
    """Exit codes, and what train.py reached."""
    kept = ("status", "exit_code", "seconds", "results")
    facts = {m["label"]: {key: m[key] for key in kept if key in m} for m in measurements}
    rows = []
    for m in measurements:
        results = m.get("results") or {}
        said = (m.get("tail", "").strip().splitlines() or [m.get("error", "")])[-1]
        speed = f"{results['tokens_per_second']:,.0f} tokens/s" if results.get("tokens_per_second") else said
        rows.append([m["label"], str(m["status"]), f"{m.get('seconds', 0):.0f} s", speed])
    return Summary(facts, [Table("commands", ["", "status", "took", "said"], rows)])
