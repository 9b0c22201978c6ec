"""The suite: which parts, in which order, within which limits; a table of each as it ends, and bench.json throughout.

Options -> Plan -> part by part: workers measure -> bench.json, tables -> figures
"""

from __future__ import annotations

import datetime
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn

from minitx.bench import gpu_parts
from minitx.bench import growth_parts as anatomy
from minitx.bench import parts as throughput
from minitx.bench.jobs import Job, Options, make_plan
from minitx.bench.measure import FORMULA
from minitx.bench.report import NOTES, Bench, Summary
from minitx.bench.worker import Workers
from minitx.config import ConfigError, rule
from minitx.errors import RunError
from minitx.training.console import Reporter
from minitx.training.signals import EXIT_BASE

START_SECONDS = 120.0


@dataclass(frozen=True)
class Part:
    """How it is measured, and how it is summed up (also when it was interrupted)."""

    run: Callable[[Bench], None]
    summarise: Callable[[Sequence[Any]], Summary]


def _training_part(run: Callable[[Bench], None], what: str) -> Part:
    return Part(run, lambda measurements: throughput.sum_training(measurements, what))


PARTS = {
    "peak": Part(throughput.peak, throughput.sum_peak),
    "classification": _training_part(throughput.classification, "classification"),
    "translation": _training_part(throughput.translation, "translation"),
    "inference": Part(throughput.inference, throughput.sum_inference),
    "split": Part(anatomy.split, anatomy.sum_split),
    "memory": Part(anatomy.memory, anatomy.sum_memory),
    "cost": Part(anatomy.cost, anatomy.sum_cost),
    "scaling": Part(anatomy.scaling, anatomy.sum_scaling),
    "switches": _training_part(throughput.switches, "switches for speed, classification"),
    "large": _training_part(gpu_parts.large, "large model"),
    "padding": Part(gpu_parts.padding, gpu_parts.sum_padding),
    "tests": Part(gpu_parts.tests, gpu_parts.sum_commands),
    "recipe": Part(gpu_parts.recipe, gpu_parts.sum_recipe),
    "parallel": Part(gpu_parts.parallel, gpu_parts.sum_parallel),
}


def run_suite(options: Options) -> Path:
    """Run the parts asked for; returns bench.json.

    Raises:
        ConfigError: an option that does not fit this machine or the suite.
        SystemExit: 130 or 143 after Ctrl-C or SIGTERM; what was measured is saved.
    """
    parts = options.parts
    workers = Workers("suite" if options.dry_run else "measurement")
    with _term_as_interrupt():
        try:
            return _run(options, parts, workers)
        finally:
            workers.end()


def _run(options: Options, parts: Sequence[str], workers: Workers) -> Path:
    machine = workers.ask(Job(work="machine"), START_SECONDS)
    if machine.pop("status") != "ok":
        raise RunError(
            f"the first measuring process failed ({machine['error']}); `python -m minitx.bench.worker` is it"
        )
    device = _device(options, machine)
    plan = make_plan(options, device, int(machine["usable_cores"]))
    folder = _folder(options)
    reporter = Reporter(folder / "bench.log")
    bench = Bench(plan, folder, reporter, workers)
    settings = {**asdict(options), "output": str(folder), "device_used": device, "rounds_used": plan.rounds}
    bench.begin(machine, sys.argv, {**settings, "steps_used": plan.base.steps, "warmup": plan.base.warmup})
    _introduce(bench, machine)
    stopped: int | None = None
    try:
        for name in parts:
            if bench.is_done(name):
                continue
            bench.run_part(name, PARTS[name].run, PARTS[name].summarise)
            bench.report["load_average_after"] = _load()
        bench.report["status"] = "finished"
    except KeyboardInterrupt as interrupt:
        stopped = interrupt.args[0] if interrupt.args else signal.SIGINT
        bench.report["status"] = "interrupted"
    _finish(bench)
    if stopped is not None:
        raise SystemExit(EXIT_BASE + stopped)
    return bench.file


def _device(options: Options, machine: dict[str, Any]) -> Literal["cpu", "cuda"]:
    """auto: the CPU for the cpu suite, a GPU for the other."""
    wanted = {"cpu": "cpu", "gpu": "cuda"}[options.suite] if options.device == "auto" else options.device
    if options.suite == "gpu" and wanted == "cpu" and not options.dry_run:
        raise rule("--device", "cpu", "be cuda, because --suite is gpu", "add --dry-run to walk through it on the CPU")
    if wanted == "cuda" and machine["gpu"] is None:
        if options.dry_run and options.device == "auto":
            return "cpu"
        remedy = "use --suite cpu, or --suite gpu --dry-run --device cpu to walk through it"
        raise rule("--device", "cuda", "name a device that is there (torch sees no GPU)", remedy)
    return "cuda" if wanted == "cuda" else "cpu"


def _folder(options: Options) -> Path:
    """--output, or a new folder named by the time."""
    folder = options.output or Path("outputs/bench") / f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output ({folder}) must be a folder that can be written ({error.strerror})") from None
    return folder


def _introduce(bench: Bench, machine: dict[str, Any]) -> None:
    info = bench.reporter.info
    info(f"bench   {bench.folder}" + ("  DRY RUN: tiny sizes, numbers mean nothing" if bench.plan.dry else ""))
    gpu = "" if machine["gpu"] is None else f", {machine['gpu']['name']}"
    versions = machine["versions"]
    packages = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if versions.get(name))
    info(f"on      {machine['cpu']}, {machine['usable_cores']} cores, {machine['threads']} threads{gpu}; {packages}")
    load = machine["load_average"][0]
    if load > 0.5 and not bench.plan.dry:
        bench.reporter.warning(f"the machine is not idle (load average {load}); ratios suffer less than numbers do")
    info(f"FLOPs   {FORMULA}")
    for note in NOTES:
        info(f"note    {note}")


def _finish(bench: Bench) -> None:
    """Figures of what there is, and where everything lies."""
    from minitx.bench.report import write_figures

    figures = write_figures(bench.report, bench.folder)
    bench.report["figures"] = [path.name for path in figures]
    bench.save()
    bench.reporter.info(f"written {', '.join(str(path) for path in (bench.file, *figures))}")
    if bench.report["status"] != "finished":
        bench.reporter.info(f"{bench.report['status']}; --only runs the parts that are missing")
    bench.reporter.close()


def _load() -> list[float]:
    return [round(load, 2) for load in os.getloadavg()]


@contextmanager
def _term_as_interrupt() -> Iterator[None]:
    """SIGTERM, which a time limit sends, ends the suite as Ctrl-C does: children gone, JSON kept."""

    def raise_interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(number)

    # SIGINT too: a shell starts background jobs with it ignored, and then Python installs no handler of its own.
    before = {number: signal.signal(number, raise_interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
