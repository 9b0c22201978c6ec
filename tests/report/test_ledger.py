"""Every claim has a line; verdicts are those of the statistics; a folder without studies says how to run one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import synthetic_studies
from tiny import ROOT

from minitx.errors import ConfigError
from minitx.report.ledger import Entry, Ledger, command_of, declared_claims, read_ledger

VERDICTS = {
    "C7": "supported", "C8a": "contradicted", "C8d": None, "C8b": None, "C8c": "contradicted", "C9": None,
    "C5": "supported", "C4": "undecided", "C1": "contradicted", "C2": "undecided", "C3": None, "C6": None, "C10": None,
}  # fmt: skip


def test_all_claims_in_order_with_their_verdicts(ledger: Ledger) -> None:
    assert [entry.id for entry in ledger.entries] == list(VERDICTS)
    assert {entry.id: entry.verdict for entry in ledger.entries} == VERDICTS
    assert [entry.id for entry, _ in ledger.tested] == ["C7", "C8a", "C8c", "C9", "C5", "C4", "C1", "C2"]


def test_what_an_entry_knows(entries: Mapping[str, Entry]) -> None:
    assert (entries["C7"].anchor, entries["C3"].anchor) == ("C7-data_size-quick", "C3")
    assert entries["C4"].anchor == "C4-distance-full"
    assert entries["C7"].command == "python train.py -m study=data_size"
    assert entries["C3"].command == "python train.py -m study=classic_vs_self"
    assert [claim for claim, entry in entries.items() if entry.exploratory] == ["C2"]
    assert list(entries["C9"].unmeasured) == ["full-width heads"] and not entries["C7"].unmeasured
    assert command_of("span", "full") == "python train.py -m study=span study.tier=full"


def test_both_tiers_of_a_study_are_judged(tmp_path: Path) -> None:
    synthetic_studies.distance(tmp_path)
    first = tmp_path / "distance" / "study-full.json"
    text = first.read_text().replace('"tier": "full", "full":', '"tier": "quick", "quick":')
    (tmp_path / "distance" / "study-quick.json").write_text(text)
    tiers = [e.result.tier for e in read_ledger(tmp_path).entries if e.result is not None]
    assert tiers == ["full", "quick"]


def test_a_folder_without_studies(tmp_path: Path) -> None:
    must = r"FOLDER \(.*\) must be a folder of studies.*; run a study first: python train.py -m study=head_count"
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match=must):
            read_ledger(folder)


def test_a_record_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "study-quick.json").write_text("{")
    with pytest.raises(ConfigError, match=r"study-quick.json must be a study's record"):
        read_ledger(tmp_path)


def test_a_claim_is_declared_in_its_study_file_alone(tmp_path: Path) -> None:
    claim = "{statement: Bees fly, prediction: They do., would_change: A bee that walks.}"
    (tmp_path / "bees.yaml").write_text(f"name: bees\nclaims:\n  C99: {claim}\n")
    [entry] = declared_claims(tmp_path)
    assert (entry.id, entry.claim.statement, entry.study) == ("C99", "Bees fly", "bees")
    assert entry.command == "python train.py -m study=bees" and entry.verdict is None
    (tmp_path / "wasps.yaml").write_text(f"name: wasps\nclaims:\n  C99: {claim}\n")
    with pytest.raises(ConfigError, match=r"study.claims.C99 \(wasps.yaml\) must be in one file, .* bees.yaml too"):
        declared_claims(tmp_path)


def test_every_study_file_declares_claims() -> None:
    assert {entry.study for entry in declared_claims()} == {
        path.stem for path in (ROOT / "conf" / "study").glob("*.yaml") if path.stem not in ("none", "all")
    }
