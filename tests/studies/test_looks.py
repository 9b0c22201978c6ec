"""A study goes on until it is decided, or another look would take too long; its table stands in for its runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from study_helpers import composer, heads, study

from minitx.report import read_ledger
from minitx.studies.claims import evaluate_claims
from minitx.studies.evidence import read_evidence
from minitx.studies.run import run_study, verdict_line
from minitx.sweeps.cells import Cell, write_measure
from minitx.training.run import hash_of
from minitx.training.run_folder import RunFolder


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Cells that train nothing: accuracy .8 with two heads, but for odd seeds below 10, .6 with one; the seeds run."""
    ran: list[int] = []

    def run_cell(cell: Cell, path: Path) -> None:
        assert cell.config is not None
        folder = RunFolder(path)
        folder.create()
        folder.begin(cell.config)
        noise = 0.21 if cell.seed % 2 and cell.seed < 8 else 0.001 * (cell.seed % 5)
        accuracy = 0.6 if cell.value == 1 else 0.8 - noise
        metrics = {"validation": {"accuracy": {"value": accuracy}}, "test": {"accuracy": {"value": accuracy}}}
        folder.write_results({"status": "finished", "seconds": 60.0, "metrics": metrics, "loss": {}})
        for one in cell.measures:
            write_measure(path, one.name, one.version, {})
        ran.append(cell.seed)

    from minitx.sweeps import executor

    monkeypatch.setattr("minitx.studies.run.local_workers", lambda *_: lambda cells: executor.InThisProcess(run_cell))
    return ran


def run(root: Path, classes: dict[str, Any], measure: str = "test.accuracy", **keys: Any) -> dict[str, Any]:
    tier = heads(seeds=[*range(40)])
    tier["contrasts"]["C8a"]["more"]["measure"] = measure
    declared = study(tier, **keys)
    run_study(declared, root, root / "tuned", composer(classes), hash_of, [])
    record: dict[str, Any] = json.loads((root / "tiny" / "study-quick.json").read_text())
    return record


def test_it_goes_on_until_it_is_decided(tiny_classes: dict[str, Any], tmp_path: Path, made_up: list[int]) -> None:
    record = run(tmp_path, tiny_classes)
    assert record["study"]["quick"]["looks"] == [5, 10, 20] and len(record["cells"]) == 2 * 20
    assert len(made_up) == 2 * 20, "no cell is run twice"
    [result] = evaluate_claims([read_evidence(tmp_path / "tiny" / "study-quick.json")])
    assert (result.verdict, result.n_seeds) == ("supported", 20) and verdict_line(result) == "SUPPORTED (20 seeds)"
    assert "look 3 of 4: 20 seeds" in (tmp_path / "tiny" / "quick.log").read_text()
    run(tmp_path, tiny_classes)
    assert len(made_up) == 2 * 20, "typed again, it looks at what is there and ends at the same look"


def test_it_ends_where_another_look_would_take_too_long(
    tiny_classes: dict[str, Any], tmp_path: Path, made_up: list[int]
) -> None:
    """A minute a cell on one worker: ten cells are within 15 minutes, twenty are not."""
    record = run(tmp_path, tiny_classes, minutes=15, workers=1)
    assert len(record["cells"]) == 10 == len(made_up)
    log = (tmp_path / "tiny" / "quick.log").read_text()
    assert "ends here: 10 seeds would take 20 minutes in all, and study.minutes is 15" in log
    [result] = evaluate_claims([read_evidence(tmp_path / "tiny" / "study-quick.json")])
    assert result.verdict == "undecided" and "0 of 1 parts hold" in verdict_line(result)


def test_a_look_that_is_there_costs_nothing(tiny_classes: dict[str, Any], tmp_path: Path, made_up: list[int]) -> None:
    """Twenty cells would be 20 minutes; they are done, so that fewer minutes take no seed away."""
    run(tmp_path, tiny_classes, looks=[5, 10], workers=1)
    record = run(tmp_path, tiny_classes, looks=[5, 10], minutes=1, workers=1)
    assert len(record["cells"]) == 20 == len(made_up)


def test_more_seeds_do_not_give_what_finished_cells_lack(
    tiny_classes: dict[str, Any], tmp_path: Path, made_up: list[int]
) -> None:
    record = run(tmp_path, tiny_classes, measure="fit.mean_gap")
    assert len(record["cells"]) == 10 == len(made_up)
    assert "ends here: some finished cells lack what C8a measures" in (tmp_path / "tiny" / "quick.log").read_text()


def test_fewer_looks(tiny_classes: dict[str, Any], tmp_path: Path, made_up: list[int]) -> None:
    assert len(run(tmp_path, tiny_classes, looks=[10])["cells"]) == 2 * 10


def test_the_table_of_cells_stands_in_for_their_folders(
    tiny_classes: dict[str, Any], tmp_path: Path, made_up: list[int]
) -> None:
    record = run(tmp_path, tiny_classes)
    before = [entry.result for entry in read_ledger(tmp_path).entries if entry.result is not None]
    for cell in record["cells"]:
        shutil.rmtree(tmp_path / cell["folder"])
    after = [entry.result for entry in read_ledger(tmp_path).entries if entry.result is not None]
    assert [(r.verdict, r.n_seeds, r.contrasts) for r in after] == [(r.verdict, r.n_seeds, r.contrasts) for r in before]
    (tmp_path / "tiny" / "cells-quick.csv").unlink()
    [entry] = [entry for entry in read_ledger(tmp_path).entries if entry.result is not None]
    assert entry.verdict is None and len(entry.result.evidence.missing) == 40  # type: ignore[union-attr]
