"""`python train.py -m study=NAME`: plan the cells, run them, and print the verdicts.

Study -> Plan -> outputs/studies/<study>/study-<tier>.json -> cells run -> cells-<tier>.csv, verdicts on the console
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from minitx.config import Config
from minitx.errors import RunError, Stopped
from minitx.studies.claims import ClaimResult, evaluate_claims
from minitx.studies.evidence import Evidence, read_evidence, write_cells
from minitx.studies.head_measures import add_across
from minitx.studies.plan import Plan, make_plan, make_tries
from minitx.studies.study import Study
from minitx.studies.tuning import Tuned, digest_of
from minitx.sweeps.cells import Cell, Place, cell_folders, is_done
from minitx.sweeps.executor import Backend, local_workers, run_cells
from minitx.sweeps.launched import MakeLauncher, launched
from minitx.sweeps.machine import workers_for
from minitx.sweeps.progress import CellStatus, ProgressTable
from minitx.training.console import Reporter
from minitx.training.run_folder import RunFolder, write_json

Compose = Callable[[Sequence[str]], Config]
Identify = Callable[[Config], str]


def run_study(
    study: Study,
    root: Path,
    tuned_folder: Path,
    compose: Compose,
    identify: Identify,
    typed: Sequence[str],
    make_launcher: MakeLauncher | None = None,
) -> None:
    """Run or continue a study, or its tries, in `root`/<study>.

    tuned_folder: where records of tuning are. typed: overrides that the user gave, those of the study and those for
    every cell. make_launcher: for trainings; None = processes on this machine.

    Raises:
        ConfigError: the study cannot be run as it is declared.
        SystemExit: 1 when a cell failed, 130 or 143 when it was stopped.
    """
    assert study.name is not None
    folder = root / study.name
    tuning = study.chosen.tuning
    record = tuned_folder / f"{(tuning and tuning.record) or study.name}-{study.tier}.json"
    folder.mkdir(parents=True, exist_ok=True)
    reporter = Reporter(folder / f"{study.tier}.log")
    for_cells = [override for override in typed if not re.match(r"[+~]?study[.=]", override)]
    try:
        if study.phase == "tune":
            _tune(study, folder, record, reporter, make_tries(study, compose, identify, for_cells), make_launcher)
            return
        tuned = Tuned.read(record, study)
        _run(
            study,
            folder,
            reporter,
            tuned,
            typed,
            lambda at_look: make_plan(at_look, compose, identify, tuned, for_cells),
            make_launcher,
        )
    except (RunError, Stopped) as end:
        reporter.info(str(end))
        raise SystemExit(end.exit_code) from None
    finally:
        reporter.close()


def command_of(study: Study, typed: Sequence[str]) -> str:
    """The line that runs the study again. typed: overrides beside the name; those of how to run it are left out."""
    rest = [override for override in typed if not re.match(r"study\.(tier|workers|on_error|phase)=", override)]
    words = ["python", "train.py", "-m", f"study={study.name}", f"study.tier={study.tier}", *rest]
    return shlex.join(words)


def _run(
    study: Study,
    folder: Path,
    reporter: Reporter,
    tuned: Tuned | None,
    typed: Sequence[str],
    plan_of: Callable[[Study], Plan],
    make_launcher: MakeLauncher | None,
) -> None:
    """Look after look, until every claim is decided, the looks are over, or another would take too long."""
    looks = study.chosen.looks
    reporter.info(f"study   {study.name}, {study.tier}: {study.title}")
    record, evidence, failed = folder / f"study-{study.tier}.json", None, False
    for number, n_seeds in enumerate(looks, 1):
        plan = plan_of(study.at_look(n_seeds))
        status = CellStatus(plan.cells, cell_folders(plan.cells, folder))
        minutes = _minutes_to(plan, status, looks[number - 2]) if evidence is not None else 0.0
        if study.chosen.minutes is not None and minutes > study.chosen.minutes:
            reporter.info(
                f"ends here: {n_seeds} seeds would take {minutes:.0f} minutes in all, and study.minutes is "
                f"{study.chosen.minutes:g}"
            )
            break
        folders = [status.folder_of(cell).relative_to(folder.parent).as_posix() for cell in plan.cells]
        write_json(record, plan.record(command_of(study, typed), folders, tuned))
        look = f"look {number} of {len(looks)}: {n_seeds} seeds"
        reporter.info(look)
        _run_cells(study, status, folder, reporter, look, make_launcher)
        _compare_seeds(plan, status)
        failed = bool(status.failed)
        evidence = read_evidence(record)
        results = evaluate_claims([evidence])
        _print_verdicts(reporter, evidence, results)
        if failed or all(result.decided for result in results):
            break
        lacking = [result.id for result in results if result.verdict is None]
        if lacking and not evidence.missing:  # every cell has finished, so that more of them would lack it too
            reporter.warning(f"ends here: some finished cells lack what {', '.join(lacking)} measures")
            break
    assert evidence is not None, "there is one look at least"
    write_cells(folder / f"cells-{study.tier}.csv", evidence)
    reporter.info(f"written {record}; all studies together: minitx report {folder.parent}")
    if failed:
        raise SystemExit(1)


def _minutes_to(plan: Plan, status: CellStatus, n_before: int) -> float:
    """Of all cells of a look, at the pace of the look before, which had `n_before` seeds: whether the study was killed
    since, and how far it had come, changes nothing. 0 where all of them are done."""
    if all(is_done(cell, status.folder_of(cell)) for cell in plan.cells if cell.config is not None):
        return 0.0
    before = set(plan.study.chosen.seeds[:n_before])
    taken: dict[bool, list[float]] = {True: [], False: []}
    for cell in plan.cells:
        results = RunFolder(status.folder_of(cell)).results() or {}
        if cell.seed in before and "seconds" in results:
            taken[cell.timing is None].append(results["seconds"])
    trainers = [cell.config.trainer for cell in plan.cells if cell.config is not None and cell.timing is None]
    trainings = _mean(taken[True]) * len(trainers) / workers_for(plan.study.workers, trainers)
    return (trainings + _mean(taken[False]) * (len(plan.cells) - len(trainers))) / 60


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _run_cells(
    study: Study,
    status: CellStatus,
    folder: Path,
    reporter: Reporter,
    what: str,
    make_launcher: MakeLauncher | None,
) -> None:
    backend: Callable[[Sequence[Cell]], Backend] = local_workers(study.workers, folder, reporter)
    if make_launcher is not None:
        backend = launched(make_launcher, status, folder, reporter)
    with ProgressTable(f"{study.name} ({study.tier}), {what}", reporter) as table:
        run_cells(status, backend, table, reporter, study.on_error)


def _compare_seeds(plan: Plan, status: CellStatus) -> None:
    """Compare heads between seeds, where all runs of an arm and value have finished."""
    by_place: dict[Place, list[Cell]] = {}
    for cell in plan.cells:
        if cell.arm in plan.study.chosen.across:
            by_place.setdefault((cell.arm, cell.value), []).append(cell)
    for cells in by_place.values():
        if all(cell.hash in status.done for cell in cells):
            add_across([status.folder_of(cell) for cell in cells])


def _print_verdicts(reporter: Reporter, evidence: Evidence, results: Sequence[ClaimResult]) -> None:
    """Every contrast, then the verdict on its claim."""
    for result in results:
        for one in result.contrasts:
            effect = one.effect
            interval = f"[{effect.low:+.4f}, {effect.high:+.4f}]"
            reporter.info(
                f"{result.id:4s} {one.name}: {effect.mean:+.4f} {interval} (delta {one.contrast.delta:g}, "
                f"{effect.n_seeds} values, expected {one.contrast.expect}): {effect.finding}, {effect.state}"
            )
        reporter.info(f"{result.id:4s} {result.claim.statement}: {verdict_line(result)}")
    if evidence.missing:
        reporter.info(f"{len(evidence.missing)} cells are missing: {', '.join(evidence.missing[:5])}")


def verdict_line(result: ClaimResult) -> str:
    """`SUPPORTED (10 seeds)`, `UNDECIDED (40 seeds): 2 of 3 parts hold, about 120 values would decide`"""
    if result.verdict is None:
        return "NOT TESTED HERE"
    line = f"{result.verdict.upper()} ({result.n_seeds} seeds)"
    if result.decided:
        return line
    line += f": {result.n_holding} of {len(result.contrasts)} parts hold"
    needed = result.seeds_needed
    return line if needed is None else f"{line}, about {needed} values would decide"


# -------------------------------------------------------------------------------------------------------------- tuning


def _tune(
    study: Study,
    folder: Path,
    record: Path,
    reporter: Reporter,
    tries: dict[str, dict[str, list[Cell]]],
    make_launcher: MakeLauncher | None,
) -> None:
    """Run every try and write its validation score, the mean over seeds, into the record of tuning."""
    cells = [cell for named in tries.values() for seeds in named.values() for cell in seeds]
    reporter.info(f"tuning  {study.name}, {study.tier}: {len(cells)} cells")
    status = CellStatus(cells, cell_folders(cells, folder))
    _run_cells(study, status, folder, reporter, "tuning", make_launcher)
    if status.failed:
        raise SystemExit(1)
    scores: dict[str, dict[str, float]] = {}
    metric = ""
    for place, named in tries.items():
        for name, seeds in named.items():
            found = []
            for cell in seeds:
                results = RunFolder(status.folder_of(cell)).results()
                assert results is not None, "it has finished"
                metric, score = next(iter(results["metrics"]["validation"].items()))
                found.append(score["value"])
            scores.setdefault(place, {})[name] = _mean(found)
        reporter.info(f"{place}: {', '.join(f'{name} {score:.4f}' for name, score in scores[place].items())}")
    assert study.chosen.tuning is not None, "there were tries"
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, Tuned(study.chosen.tuning, digest_of(study.chosen), metric, scores).to_json())
    reporter.info(f"written {record}")
