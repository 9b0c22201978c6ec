"""The synthetic studies, and the report on all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import synthetic_studies

from minitx.report import Ledger, read_ledger, write_report
from minitx.report.ledger import Entry


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "studies"
    synthetic_studies.write_all(root)
    return root


@pytest.fixture(scope="session")
def ledger(studies: Path) -> Ledger:
    return read_ledger(studies)


@pytest.fixture(scope="session")
def entries(ledger: Ledger) -> Mapping[str, Entry]:
    """By claim; no synthetic claim has two."""
    return {entry.id: entry for entry in ledger.entries}


@pytest.fixture(scope="session")
def report(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written outside the folder of studies."""
    out = tmp_path_factory.mktemp("written") / "a report"
    write_report(ledger, out)
    return out
