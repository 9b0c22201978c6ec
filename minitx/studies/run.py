"""`python train.py -m study=NAME`: plan the cells, run them, and print the verdicts.

Study -> Plan -> outputs/studies/<study>/study-<tier>.json -> cells run -> cells-<tier>.csv, verdicts on the console
"""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from minitx.config import Config
from minitx.errors import RunError, Stopped
from minitx.studies.evidence import ClaimResult, Evidence, evaluate_claims, read_evidence
from minitx.studies.head_measures import add_across
from minitx.studies.plan import Plan, make_plan, make_tries
from minitx.studies.study import Study
from minitx.studies.tuning import Tuned, digest_of
from minitx.sweeps.cells import Cell, Place, cell_folders
from minitx.sweeps.executor import local_workers, run_cells
from minitx.sweeps.progress import CellStatus, ProgressTable
from minitx.training.console import Reporter
from minitx.training.run_folder import RunFolder, write_json

Compose = Callable[[Sequence[str]], Config]
Identify = Callable[[Config], str]
SECONDS = "seconds"
"""Left out of the table of cells, because the time of a training differs from run to run."""


def run_study(
    study: Study, root: Path, tuned_folder: Path, compose: Compose, identify: Identify, typed: Sequence[str]
) -> None:
    """Run or continue a study, or its tries, in `root`/<study>.

    tuned_folder: where records of tuning are. typed: overrides that the user gave, those of the study and those for
    every cell.

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
            _tune(study, folder, record, reporter, make_tries(study, compose, identify, for_cells))
            return
        tuned = Tuned.read(record, study)
        plan = make_plan(study, compose, identify, tuned, for_cells)
        _run(plan, folder, reporter, tuned, typed)
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


def _run(plan: Plan, folder: Path, reporter: Reporter, tuned: Tuned | None, typed: Sequence[str]) -> None:
    study = plan.study
    reporter.info(f"study   {study.name}, {study.tier}: {study.title}")
    status = CellStatus(plan.cells, cell_folders(plan.cells, folder))
    folders = [status.folder_of(cell).relative_to(folder.parent).as_posix() for cell in plan.cells]
    record = folder / f"study-{study.tier}.json"
    write_json(record, plan.record(command_of(study, typed), folders, tuned))
    _run_cells(study, status, folder, reporter)
    _compare_seeds(plan, status)
    evidence = read_evidence(record)
    write_cells(folder / f"cells-{study.tier}.csv", evidence)
    reporter.info("by itself; the report corrects over the contrasts of all studies:")
    _print_verdicts(reporter, evidence, evaluate_claims([evidence]))
    reporter.info(f"written {record}; all studies together: minitx report {folder.parent}")
    _end(status)


def _run_cells(study: Study, status: CellStatus, folder: Path, reporter: Reporter) -> None:
    with ProgressTable(f"{study.name} ({study.tier})", reporter) as table:
        run_cells(status, local_workers(study.workers, folder, reporter), table, reporter, study.on_error)


def _compare_seeds(plan: Plan, status: CellStatus) -> None:
    """Compare heads between seeds, where all runs of an arm and value have finished."""
    by_place: dict[Place, list[Cell]] = {}
    for cell in plan.cells:
        if cell.arm in plan.study.chosen.across:
            by_place.setdefault((cell.arm, cell.value), []).append(cell)
    for cells in by_place.values():
        if all(cell.hash in status.done for cell in cells):
            add_across([status.folder_of(cell) for cell in cells])


def _end(status: CellStatus) -> None:
    if status.failed:
        raise SystemExit(1)


def write_cells(path: Path, evidence: Evidence) -> None:
    """cells-<tier>.csv: one line a finished cell, with all its measures but the time of training."""
    names = sorted({name for seen in evidence.observations for name in seen.measures} - {SECONDS})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "value", "seed", *names])
        for seen in evidence.observations:
            value = "" if seen.value is None else seen.value
            writer.writerow([seen.arm, value, seen.seed, *(seen.measures.get(name, "") for name in names)])


def _print_verdicts(reporter: Reporter, evidence: Evidence, results: Sequence[ClaimResult]) -> None:
    """Every contrast, then the verdict on its claim."""
    for result in results:
        for one in result.contrasts:
            effect = one.effect
            interval = f"[{effect.low:+.4f}, {effect.high:+.4f}]"
            reporter.info(
                f"{result.id:4s} {one.name}: {effect.mean:+.4f} {interval} (delta {one.contrast.delta:g}, "
                f"{effect.n_seeds} seeds, expected {one.contrast.expect}): {effect.verdict}"
            )
        reporter.info(f"{result.id:4s} {result.claim.statement}: {(result.verdict or 'not tested here').upper()}")
    if evidence.missing:
        reporter.info(f"{len(evidence.missing)} cells are missing: {', '.join(evidence.missing[:5])}")


# -------------------------------------------------------------------------------------------------------------- tuning


def _tune(study: Study, folder: Path, record: Path, reporter: Reporter, tries: dict[str, dict[str, Cell]]) -> None:
    """Run every try and write its validation score into the record of tuning."""
    cells = [cell for named in tries.values() for cell in named.values()]
    reporter.info(f"tuning  {study.name}, {study.tier}: {len(cells)} tries")
    status = CellStatus(cells, cell_folders(cells, folder))
    _run_cells(study, status, folder, reporter)
    _end(status)
    scores: dict[str, dict[str, float]] = {}
    metric = ""
    for place, named in tries.items():
        for name, cell in named.items():
            results = RunFolder(status.folder_of(cell)).results()
            assert results is not None, "it has finished"
            metric, found = next(iter(results["metrics"]["validation"].items()))
            scores.setdefault(place, {})[name] = found["value"]
        reporter.info(f"{place}: {', '.join(f'{name} {score:.4f}' for name, score in scores[place].items())}")
    assert study.chosen.tuning is not None, "there were tries"
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, Tuned(study.chosen.tuning, digest_of(study.chosen), metric, scores).to_json())
    reporter.info(f"written {record}")
