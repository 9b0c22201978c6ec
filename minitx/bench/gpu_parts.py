"""Parts of the gpu suite alone: the tests, the default run, a large model, the price of padding, parallel work."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minitx.bench.jobs import Ids, Job
from minitx.bench.parts import GRAPH_WARMUPS, compare, life_of, medians, sum_training, training_job
from minitx.bench.report import Bench, OutOfTime, Summary, Table
from minitx.bench.worker import PACKAGE_ROOT, end_process, start_process, tail

Measured = Mapping[str, Any]
LARGE_ROWS = 32


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
        bench.reporter.warning("large: compiling is measured with CUDA only")
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
    jobs = {"real lengths": real, "full rows": full}
    compare(bench, jobs, rounds=min(2, plan.rounds))


def sum_padding(measurements: Sequence[Measured]) -> Summary:
    training = sum_training(measurements, "padding")
    speed = medians([m for m in measurements if m["label"] != "peak"], "tokens_per_second")
    facts: dict[str, Any] = {**training.facts, "cost": {}}
    real, full = speed.get("real lengths"), speed.get("full rows")
    if real and full:
        facts["cost"]["padded"] = 1 - real / full
    rows = [[name, f"{100 * cost:.1f} %"] for name, cost in facts["cost"].items()]
    return Summary(facts, [*training.tables, Table("real tokens/s lost to unequal lengths", ["", "cost"], rows)])


# --------------------------------------------------------------------------------------------------- tests and training


def tests(bench: Bench) -> None:
    """The tests that need a GPU; without one they skip themselves, and a dry run only collects them."""
    if not (PACKAGE_ROOT / "tests").is_dir():
        bench.note("pytest -m gpu", 0, {"status": "failed", "error": f"no folder tests beside {PACKAGE_ROOT}/minitx"})
        return
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-n", "0", "-p", "no:cacheprovider"]
    command += ["--collect-only", "tests/nn"] if bench.plan.dry else ["-rs"]
    bench.note("pytest -m gpu", 0, _said(bench, command, PACKAGE_ROOT))
    if bench.plan.device != "cuda":
        bench.reporter.warning("tests: the gpu tests need CUDA and skip themselves here")


def recipe(bench: Bench) -> None:
    """The default run's own training with everything for speed off, then with each alone, and its first losses beside
    the CPU's in float32."""
    config = _recipe_config(bench)
    if config is None:
        return
    device, dry = bench.plan.device, bench.plan.dry
    for label, overrides in FIRST_LOSSES.items():
        where = "cpu" if label == "cpu fp32" else device
        job = Job(
            work="recipe", config=config, warmup=0, steps=2 if dry else 20, device=device,
            overrides=(f"trainer.device={where}", "trainer.log_every=1", *overrides),
        )  # fmt: skip
        bench.measure(f"losses {label}", 0, job, life_of(bench))
    for label, overrides in SPEEDS.items():
        if device == "cpu" and label not in ("all off", "default"):
            continue
        warm = GRAPH_WARMUPS if "graphs" in label and not dry else 1
        job = Job(
            work="recipe", config=config, device=device, overrides=(f"trainer.device={device}", *overrides),
            steps=bench.plan.recipe_steps, warmup=warm * bench.plan.base.warmup,
        )  # fmt: skip
        bench.measure(f"speed {label}", 0, job, life_of(bench))


OFF = ("trainer.cuda_graphs=off", "trainer.speed.resident=false", "trainer.speed.fused_optimizer=false")
FIRST_LOSSES: Mapping[str, tuple[str, ...]] = {
    "cpu fp32": ("trainer.precision=fp32",),
    "fp32": ("trainer.precision=fp32",),
    "bf16": ("trainer.precision=bf16",),
}
SPEEDS: Mapping[str, tuple[str, ...]] = {
    "all off": OFF,
    "resident": (*OFF[:1], "trainer.speed.resident=true", OFF[2]),
    "fused optimizer": (*OFF[:2], "trainer.speed.fused_optimizer=true"),
    "graphs": ("trainer.cuda_graphs=on", "trainer.speed.resident=true", "trainer.speed.fused_optimizer=true"),
    "default": (),
    "compiled": (OFF[0], "trainer.compile=true"),
}
"""The last takes minutes to compile: it comes last."""


def _recipe_config(bench: Bench) -> str | None:
    """Prepare the default run's data, and let `train.py` itself resolve its configuration."""
    if not (PACKAGE_ROOT / "train.py").is_file():
        bench.note("train.py", 0, {"status": "failed", "error": f"no train.py beside {PACKAGE_ROOT}/minitx"})
        return None
    folder = (bench.folder / "recipe").resolve()
    typed = [f"hydra.run.dir={folder}", f"data.cache_dir={(bench.folder / 'cache').resolve()}", *bench.plan.recipe]
    short = ["trainer.max_steps=1", "trainer.eval_rows=4", "trainer.attention_maps=0", "trainer.resume=auto"]
    command = [sys.executable, str(PACKAGE_ROOT / "train.py"), *typed, f"trainer.device={bench.plan.device}", *short]
    bench.note("train.py", 0, _said(bench, command, PACKAGE_ROOT))
    config = folder / "config.yaml"
    return str(config) if config.is_file() else None


def sum_recipe(measurements: Sequence[Measured]) -> Summary:
    """Speeds against everything off, and the largest relative difference of the first losses from the CPU's."""
    done = {m["label"]: m for m in measurements if m["status"] == "ok" and "losses" in m}
    base = done.get("speed all off", {}).get("tokens_per_second")
    reference = done.get("losses cpu fp32", {}).get("losses")
    facts: dict[str, Any] = {"speed": {}, "loss_difference": {}}
    speeds, losses = [], []
    for label, m in done.items():
        kind, _, name = label.partition(" ")
        if kind == "speed":
            facts["speed"][name] = {key: m[key] for key in ("tokens_per_second", "ms_per_step", "precision")}
            times = f"{m['tokens_per_second'] / base:.2f}" if base else ""
            speeds.append([name, f"{m['tokens_per_second']:,.0f}", f"{m['ms_per_step']:.2f}", times])
        elif reference and m is not done["losses cpu fp32"]:
            pairs = zip(reference, m["losses"], strict=False)
            facts["loss_difference"][name] = max(abs(a - b) / a for a, b in pairs)
            losses.append([name, f"{facts['loss_difference'][name]:.1e}"])
    tables = [
        Table("the default run: training", ["", "tokens/s", "ms a step", "times all off"], speeds),
        Table("its first losses against the CPU's in fp32", ["", "largest relative difference"], losses),
    ]
    return Summary(facts, tables)


def parallel(bench: Bench) -> None:
    """A training step of a layer, Transformer and LSTM, on the CPU and here."""
    plan = bench.plan
    size = plan.classification.model_copy(update={"n_layers": 1})
    job = Job(work="parallel", size=size, rows=plan.rows, lengths=plan.parallel_lengths, device=plan.device)
    bench.measure("parallel", 0, job, life_of(bench))


def sum_parallel(measurements: Sequence[Measured]) -> Summary:
    """How many times as fast each is here as on the CPU, by length."""
    done = [m for m in measurements if m["status"] == "ok"]
    if not done or len(done[0]["seconds"]) < 2:  # a dry run on the CPU has nothing to compare
        return Summary({"measured": len(done)}, [])
    cpu, gpu = done[0]["seconds"].values()
    gain = {name: {n: cpu[name][n] / gpu[name][n] for n in cpu[name]} for name in cpu}
    lengths = list(next(iter(gain.values())))
    rows = [[name, *(f"{each[n]:.1f}" for n in lengths)] for name, each in gain.items()]
    title = "a training step of one layer: times as fast as on the CPU, by length"
    return Summary({"seconds": done[0]["seconds"], "gain": gain}, [Table(title, ["", *lengths], rows)])


def _said(bench: Bench, command: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run a command within the part's time: its exit code, seconds and the end of what it said."""
    before = bench.seconds_left
    with tempfile.TemporaryFile() as output:
        process = start_process(command, output, stdout=output, cwd=folder, stdin=subprocess.DEVNULL)
        try:
            code = process.wait(max(0.0, before))
        except subprocess.TimeoutExpired:
            said = {"status": "timed out", "error": f"did not end within {before:.0f} s"}
            end_process(process)
            bench.note(" ".join(map(str, command[1:4])), 0, {**said, "tail": tail(output, 3000)})
            raise OutOfTime from None
        except BaseException:
            end_process(process)
            raise
        text = tail(output, 3000)
    last = (text.strip().splitlines() or ["it said nothing"])[-1]
    failed = {} if code in (0, 5) else {"error": f"exit code {code}: {last}"}  # 5: pytest found nothing to run
    status = "failed" if failed else "ok"
    return {"status": status, **failed, "exit_code": code, "seconds": before - bench.seconds_left, "tail": text}


def sum_commands(measurements: Sequence[Measured]) -> Summary:
    """Exit codes, and the last line of what was printed."""
    kept = ("status", "exit_code", "seconds")
    facts = {m["label"]: {key: m[key] for key in kept if key in m} for m in measurements}
    rows = []
    for m in measurements:
        last = (m.get("tail", "").strip().splitlines() or [m.get("error", "")])[-1]
        rows.append([m["label"], str(m["status"]), f"{m.get('seconds', 0):.0f} s", last])
    return Summary(facts, [Table("commands", ["", "status", "took", "said"], rows)])
