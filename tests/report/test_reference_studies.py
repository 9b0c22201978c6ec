"""The committed results of studies, made from their folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import synthetic_studies

from minitx.report import reference


def test_studies_replace_what_was_kept_only_when_all_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, stored = tmp_path / "studies", tmp_path / "reference"
    monkeypatch.setattr(reference, "REFERENCE", stored)
    synthetic_studies.distance(folder)
    (folder / "distance" / "cells-full.csv").write_text("arm,value,seed\n")
    (stored / "studies").mkdir(parents=True)
    (stored / "studies" / "old.csv").write_text("")
    with pytest.raises(SystemExit, match=r"power\.json is missing; run python -m minitx\.studies\.power"):
        reference.write_studies(folder)
    assert (stored / "studies" / "old.csv").exists(), "nothing is lost by a call that cannot succeed"
    (folder / "power.json").write_text("{}")
    reference.write_studies(folder)
    names = {path.name for path in (stored / "studies").iterdir()}
    assert "distance-full.csv" in names and "old.csv" not in names
    assert any(name.startswith("C4-distance-full-") and name.endswith(".svg") for name in names)
    assert "C4" in {claim["id"] for claim in json.loads((stored / "claims.json").read_text())}
    assert (stored / "power.json").read_text() == "{}"
