"""Parts that compare contestants: they take turns in rounds, then medians and ratios; training and inference."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from minitx.bench.jobs import CONTESTANTS, Contestant, Ids, Job, Size, Task
from minitx.bench.report import Bench, Summary, Table
from minitx.bench.worker import Life
from minitx.config import SpeedConfig
from minitx.errors import RunError

Item = TypeVar("Item")


def turn(items: Sequence[Item], number: int) -> list[Item]:
    """The order of round `number`: rotated by one from round to round."""
    shift = number % len(items) if items else 0
    return [*items[shift:], *items[:shift]]


def medians(measurements: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """{label: median over rounds of `key`}, of those that have been measured."""
    return {label: statistics.median(values.values()) for label, values in _by_label(measurements, key).items()}


def ratios(measurements: Sequence[Mapping[str, Any]], key: str, base: str) -> dict[str, dict[str, Any]]:
    """{opponent: {"median", "min", "max", "rounds"}}: `base` over the opponent within each round that has both."""
    by_label = _by_label(measurements, key)
    own = by_label.pop(base, {})
    found = {}
    for label, values in by_label.items():
        each = [own[number] / values[number] for number in sorted(own.keys() & values.keys())]
        if each:
            found[label] = {"median": statistics.median(each), "min": min(each), "max": max(each), "rounds": each}
    return found


def _by_label(measurements: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[int, float]]:
    """{label: {round: value}} of successful measurements."""
    found: dict[str, dict[int, float]] = {}
    for measured in measurements:
        if measured["status"] == "ok" and key in measured:
            found.setdefault(measured["label"], {})[measured["round"]] = measured[key]
    return found


def growth_exponent(points: Mapping[int, float], last: int = 3) -> float | None:
    """Slope of log y over log x through the `last` largest x by least squares; None for fewer points or y <= 0."""
    chosen = sorted((x, y) for x, y in points.items() if y > 0)[-last:]
    if len(chosen) < last:
        return None
    xs, ys = [math.log(x) for x, _ in chosen], [math.log(y) for _, y in chosen]
    return statistics.linear_regression(xs, ys).slope


Measured = Mapping[str, Any]
TRANSLATORS: tuple[Contestant, ...] = ("minitx", "torch")
OURS = "minitx"
OPPONENTS: tuple[Contestant, ...] = ("torch", "transformers")
GRAPH_WARMUPS = 4
"""Warm-up of CUDA graphs over that of others: a shape is recorded when it comes for the third time."""
GPU_ONLY, BOTH = ("resident",), ("fused_optimizer", "freeze_gc")
"""Switches for speed that matter on a GPU alone, and everywhere; the others are for the CPU."""


# --------------------------------------------------------------------------------------------------------------- peak


def peak(bench: Bench) -> None:
    for number in range(bench.plan.rounds):
        bench.measure("peak", number, bench.plan.peak)


def sum_peak(measurements: Sequence[Measured]) -> Summary:
    done = [m for m in measurements if m["status"] == "ok"]
    facts = {
        kind: {"gflops": statistics.median(m[kind]["gflops"] for m in done), "each": [m[kind]["gflops"] for m in done]}
        for kind in ("fp32", "bf16")
        if done and kind in done[0]
    }
    edge = done[0]["edge"] if done else 0
    rows = [[kind, f"{found['gflops']:,.0f}", _span(found["each"])] for kind, found in facts.items()]
    title = f"matrix product {edge} x {edge} x {edge}, GFLOP/s"
    return Summary({"edge": edge, **facts}, [Table(title, ["precision", "median", "min to max"], rows)])


def _span(values: Sequence[float], digits: int = 0) -> str:
    return f"{min(values):,.{digits}f} to {max(values):,.{digits}f}"


# ----------------------------------------------------------------------------------------------------------- training


def classification(bench: Bench) -> None:
    plan = bench.plan
    job = training_job(bench, plan.classification, plan.classification_ids)
    compare(bench, {**variants(bench, job), **contestants(job, OPPONENTS)})


def translation(bench: Bench) -> None:
    plan = bench.plan
    job = training_job(bench, plan.translation, plan.translation_ids, batch_tokens=plan.batch_tokens)
    compare(bench, {**variants(bench, job), **contestants(job, OPPONENTS[:1])})


def variants(bench: Bench, job: Job) -> dict[str, Job]:
    """Ours as it comes, and on a GPU as CUDA graphs, which meet their shapes over many steps."""
    if bench.plan.device != "cuda":
        return {OURS: job}
    graphs = job.model_copy(update={"how": "graphs", "warmup": GRAPH_WARMUPS * job.warmup})
    return {OURS: job, f"{OURS} graphs": graphs}


def training_job(bench: Bench, size: Size, ids: Ids, **changes: Any) -> Job:
    """The plan's training measurement on these ids, which are prepared and described first.

    Raises:
        RunError: there are none to be had.
    """
    job = bench.plan.base.model_copy(update={"size": size, "ids": ids, "rows": bench.plan.rows, **changes})
    found = bench.measure("ids", 0, job.model_copy(update={"work": "data"}))
    if found["status"] != "ok":
        raise RunError(found["error"])
    return job


def contestants(job: Job, names: Sequence[Contestant]) -> dict[str, Job]:
    """The job of each, by name."""
    return {name: job.model_copy(update={"contestant": name}) for name in names}


def life_of(bench: Bench) -> Life:
    """One process per contestant on a GPU: start-up would take longer than the measurements."""
    return "contestant" if bench.plan.device == "cuda" else "measurement"


def compare(bench: Bench, jobs: Mapping[str, Job], rounds: int | None = None) -> None:
    """Every job once per round, in turn, each round with its own peak; MFU is against that one."""
    life = life_of(bench)
    for number in range(rounds or bench.plan.rounds):
        ceiling = bench.measure("peak", number, bench.plan.peak, life)
        for label in turn(list(jobs), number):
            marks = {"peak_gflops": ceiling.get(jobs[label].precision, {}).get("gflops")}
            bench.measure(label, number, jobs[label], life, **marks)


def sum_training(measurements: Sequence[Measured], what: str) -> Summary:
    """Medians over rounds; ratios and MFU within each round."""
    trained = [_with_mfu(m) for m in measurements if m["label"] not in ("peak", "ids")]
    found = {key: medians(trained, key) for key in KEYS}
    against = ratios(trained, "tokens_per_second", OURS)
    labels = dict.fromkeys(m["label"] for m in trained)
    speed = [_speed_row(label, found, against, trained) for label in labels]
    steps = [_step_row(label, found) for label in labels if label in found["tokens_per_second"]]
    tables = [
        Table(f"{what}: training, medians over rounds", ["", "tokens/s", "MFU", "minitx / this [min, max]"], speed),
        Table(f"{what}: a step", ["", "tokens", "padding", "ms", "GFLOP/s"], steps),
    ]
    return Summary({"medians": found, "ratios": against}, tables)


KEYS = ("tokens_per_second", "tokens_per_step", "padding", "seconds_per_step", "flops_per_second", "mfu")


def _with_mfu(measured: Measured) -> dict[str, Any]:
    if measured["status"] != "ok":
        return dict(measured)
    found = {**measured, "seconds_per_step": measured["seconds"] / measured["steps"]}
    if measured.get("peak_gflops"):
        found["mfu"] = measured["flops_per_second"] / (1e9 * measured["peak_gflops"])
    return found


def _speed_row(
    label: str, found: Mapping[str, Mapping[str, float]], against: Mapping[str, Any], trained: Sequence[Measured]
) -> list[str]:
    if label not in found["tokens_per_second"]:
        return [label, state_of(label, trained), "", ""]
    mfu = f"{100 * found['mfu'][label]:.1f} %" if label in found["mfu"] else ""
    return [label, f"{found['tokens_per_second'][label]:,.0f}", mfu, shown_ratio(against.get(label))]


def _step_row(label: str, found: Mapping[str, Mapping[str, float]]) -> list[str]:
    value = {key: found[key].get(label, 0.0) for key in KEYS}
    return [
        label, f"{value['tokens_per_step']:,.0f}", f"{100 * value['padding']:.1f} %",
        f"{1e3 * value['seconds_per_step']:,.1f}", f"{1e-9 * value['flops_per_second']:,.1f}",
    ]  # fmt: skip


def state_of(label: str, measurements: Sequence[Measured]) -> str:
    """`not installed`, `failed`, ...: why there is no number."""
    return next((str(m["status"]) for m in measurements if m["label"] == label and m["status"] != "ok"), "")


def shown_ratio(ratio: Mapping[str, Any] | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]"


def switches(bench: Bench) -> None:
    """Ours with every switch for speed as training has it, with each one off, and with all off."""
    plan = bench.plan
    job = training_job(bench, plan.classification, plan.classification_ids)
    on_gpu = plan.device == "cuda"
    mattering = {name: value for name, value in SpeedConfig() if name in BOTH or (name in GPU_ONLY) == on_gpu}
    off = {name: "off" if isinstance(value, str) else False for name, value in mattering.items()}
    each = {f"{name} off": _switched(job, {name: value}) for name, value in off.items()}
    compare(bench, {OURS: job, **each, "all off": _switched(job, off)}, rounds=1 if on_gpu else None)


def _switched(job: Job, changes: Mapping[str, Any]) -> Job:
    return job.model_copy(update={"speed": job.speed.model_copy(update=dict(changes))})


# ---------------------------------------------------------------------------------------------------------- inference


def inference(bench: Bench) -> None:
    plan = bench.plan
    tasks = (
        (plan.classification, plan.classification_ids, CONTESTANTS),
        (plan.translation, plan.translation_ids, TRANSLATORS),
    )
    for size, ids, names in tasks:
        changes = {"work": "infer", "infer_rows": plan.infer_rows[size.task], "written": plan.written}
        job = training_job(bench, size, ids).model_copy(update=changes)
        jobs: dict[str, Job] = dict(contestants(job, names))
        if size.task == "translation" and plan.device == "cuda":
            jobs[f"{OURS} beam 5"] = job.model_copy(
                update={"beam": 5, "infer_rows": max(8, plan.infer_rows[size.task] // 4)}
            )
        for number in range(plan.rounds):
            for name in turn(list(jobs), number):
                bench.measure(f"{size.task} {name}", number, jobs[name], life_of(bench), task=size.task)


def sum_inference(measurements: Sequence[Measured]) -> Summary:
    facts: dict[str, Any] = {}
    tables = []
    units: dict[Task, str] = {"classification": "rows/s", "translation": "tokens/s"}
    for task, unit in units.items():
        own = [m for m in measurements if m.get("task") == task]
        if not own:
            continue
        speed, against = medians(own, "per_second"), ratios(own, "per_second", f"{task} {OURS}")
        labels = dict.fromkeys(m["label"] for m in own)
        rows = [
            [label, f"{speed[label]:,.1f}" if label in speed else state_of(label, own), shown_ratio(against.get(label))]
            for label in labels
        ]
        facts[task] = {"unit": unit, "medians": speed, "ratios": against}
        what = "classification, forward" if task == "classification" else "greedy decoding"
        tables.append(Table(f"inference: {what}", ["", unit, "minitx / this [min, max]"], rows))
    return Summary(facts, tables)
