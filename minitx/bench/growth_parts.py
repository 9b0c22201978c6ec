"""Parts that look at our own model: where a step's time goes, and how memory, time and speed grow."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from minitx.bench.jobs import BACKENDS, CLASSIFICATION, HEAD_WIDTH, Ids, Job
from minitx.bench.parts import TRANSLATORS, growth_exponent, life_of, training_job, turn
from minitx.bench.report import Bench, Summary, Table

Measured = Mapping[str, Any]


# -------------------------------------------------------------------------------------------------------------- split


def split(bench: Bench) -> None:
    plan = bench.plan
    tasks = (
        (plan.classification, plan.classification_ids, None),
        (plan.translation, plan.translation_ids, plan.batch_tokens),
    )
    for size, ids, tokens in tasks:
        job = training_job(bench, size, ids, batch_tokens=tokens)
        bench.measure(size.task, 0, job.model_copy(update={"work": "split"}))


def sum_split(measurements: Sequence[Measured]) -> Summary:
    found = {m["label"]: m for m in measurements if "parts" in m}
    facts = {label: {key: m[key] for key in ("parts", "step_ms", "bare_ms")} for label, m in found.items()}
    tables = [_split_table(label, m) for label, m in found.items()]
    return Summary(facts, tables)


def _split_table(label: str, measured: Measured) -> Table:
    """The parts in the order of a step, `other` last."""
    total = measured["step_ms"]
    parts = sorted(measured["parts"].items(), key=lambda item: item[0] == "other")
    rows = [[name, f"{ms:,.2f}", f"{100 * ms / total:.1f} %"] for name, ms in parts]
    title = f"a step of ours, {label}: {total:,.1f} ms with the clocks in it, {measured['bare_ms']:,.1f} ms without"
    return Table(title, ["part", "ms", "share"], [*rows, ["sum", f"{total:,.2f}", "100.0 %"]])


# ----------------------------------------------------------------------------------------------------- memory and cost


def memory(bench: Bench) -> None:
    """On the CPU every length in a fresh process: what an earlier one left behind would count."""
    for backend in BACKENDS:
        for length in bench.plan.lengths:
            bench.measure(backend, 0, _growth_job(bench, "memory", backend, (length,)), life_of(bench))


def cost(bench: Bench) -> None:
    for number in range(bench.plan.rounds):
        for backend in turn(BACKENDS, number):
            bench.measure(backend, number, _growth_job(bench, "cost", backend, bench.plan.lengths), life_of(bench))


def _growth_job(bench: Bench, work: str, backend: str, lengths: tuple[int, ...]) -> Job:
    plan = bench.plan
    changes = {"work": work, "backend": backend, "lengths": lengths, "size": plan.growth, "seconds": plan.cost_seconds}
    return plan.base.model_copy(update=changes)


def sum_memory(measurements: Sequence[Measured]) -> Summary:
    return _sum_growth(measurements, "bytes", 2**-20, "MiB", "highest memory of a training step")


def sum_cost(measurements: Sequence[Measured]) -> Summary:
    return _sum_growth(measurements, "seconds", 1e3, "ms", "time of a training step")


def _sum_growth(measurements: Sequence[Measured], key: str, scale: float, unit: str, what: str) -> Summary:
    """Medians over rounds by backend and length, and the exponent between the last three lengths."""
    values: dict[str, dict[int, list[float]]] = {}
    for measured in measurements:
        for length, value in measured.get(key, {}).items() if measured["status"] == "ok" else ():
            values.setdefault(measured["label"], {}).setdefault(int(length), []).append(value)
    points = {label: {n: statistics.median(v) for n, v in each.items()} for label, each in values.items()}
    exponents = {label: growth_exponent(each) for label, each in points.items()}
    lengths = sorted({n for each in points.values() for n in each})
    rows = [
        [label, *(f"{scale * each[n]:,.1f}" if n in each else "" for n in lengths), _shown(exponents[label])]
        for label, each in points.items()
    ]
    columns = ["backend", *(f"{n:,}" for n in lengths), "exponent"]
    title = f"{what}, {unit}, by length (one row, two layers); exponent of the last three"
    return Summary({"unit": key, "points": points, "exponents": exponents}, [Table(title, columns, rows)])


def _shown(exponent: float | None) -> str:
    return "" if exponent is None else f"{exponent:.2f}"


# ------------------------------------------------------------------------------------------------------------ scaling


def scaling(bench: Bench) -> None:
    """One factor at a time; full rows, so that everybody's batches are equal."""
    for factor, values in bench.plan.scaling.items():
        for position, value in enumerate(values):
            for name in turn(TRANSLATORS, position):
                job = _scaling_job(bench, factor, value).model_copy(update={"contestant": name})
                bench.measure(name, 0, job, life_of(bench), factor=factor, value=value)


def _scaling_job(bench: Bench, factor: str, value: int) -> Job:
    plan = bench.plan
    at = {**plan.scaling_base, factor: value}
    width, length = at["width"], at["length"]
    sizes = {
        "d_model": width, "n_heads": max(1, width // HEAD_WIDTH), "d_ff": 4 * width, "n_layers": at["layers"],
        "max_length": length, "vocab": plan.classification.vocab,
    }  # fmt: skip
    size = CLASSIFICATION.model_copy(update=sizes)
    rows = max(1, at["batch tokens"] // length)
    steps = plan.base.warmup + plan.scaling_steps
    changes = {
        "size": size, "ids": Ids(source="full", rows=rows * (steps + 1)), "rows": rows, "batch_tokens": rows * length,
        "steps": plan.scaling_steps, "threads": at.get("threads"),
    }  # fmt: skip
    return plan.base.model_copy(update=changes)


def sum_scaling(measurements: Sequence[Measured]) -> Summary:
    """{factor: {contestant: {value: tokens per second}}}, by median steps, so that no stall counts."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for m in measurements:
        if m["status"] == "ok":
            speed = m["tokens_per_step"] / statistics.median(m["step_seconds"])
            found.setdefault(m["factor"], {}).setdefault(m["label"], {})[m["value"]] = speed
    tables = []
    for factor, by_name in found.items():
        values = sorted({v for each in by_name.values() for v in each})
        rows = [[n, *(f"{each[v]:,.0f}" if v in each else "" for v in values)] for n, each in by_name.items()]
        tables.append(Table(f"training tokens/s by {factor}, two layers", ["", *(f"{v:,}" for v in values)], rows))
    return Summary({"tokens_per_second": found}, tables)
