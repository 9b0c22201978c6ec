"""The committed results of studies, made from their folders, and the report made again from what is committed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import synthetic_studies

from minitx.report import reference
from minitx.studies.evidence import read_evidence, write_cells


def test_the_report_is_made_again_from_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, stored = tmp_path / "studies", tmp_path / "reference"
    monkeypatch.setattr(reference, "REFERENCE", stored)
    record = synthetic_studies.distance(folder)
    write_cells(folder / "distance" / "cells-full.csv", read_evidence(record))
    (stored / "studies").mkdir(parents=True)
    (stored / "studies" / "old.csv").write_text("")
    with pytest.raises(SystemExit, match=r"power\.json is missing; run python -m minitx\.studies\.power"):
        reference.write_studies(folder)
    assert (stored / "studies" / "old.csv").exists(), "nothing is lost by a call that cannot succeed"
    (folder / "power.json").write_text("{}")
    reference.write_studies(folder)
    written = {p.relative_to(stored).as_posix(): p.read_bytes() for p in stored.rglob("*") if p.is_file()}
    assert {"report.md", "claims.json", "power.json", "studies/distance/study-full.json"} <= set(written)
    assert "index.html" not in written and "studies/old.csv" not in written
    assert any(name.startswith("figures/C4-distance-full-") for name in written)
    [claim] = [claim for claim in json.loads(written["claims.json"]) if claim["id"] == "C4"]
    assert claim["verdict"] == "undecided" and len(claim["parts"][0]["values"]) == 5
    assert b"](studies/distance)" in written["report.md"], "no link leads to a run's folder that is not there"
    shutil.rmtree(folder)
    (stored / "claims.json").unlink()
    reference.write_ledger()
    assert {p.relative_to(stored).as_posix(): p.read_bytes() for p in stored.rglob("*") if p.is_file()} == written
