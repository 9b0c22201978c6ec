"""What tests of commands share: one tiny trained translator a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import TINY_MODEL, TINY_TRAINER

from minitx.config.load import load
from minitx.training.run import run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_data: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    raw = {"data": tiny_data, "model": TINY_MODEL, "trainer": TINY_TRAINER}
    run(load(raw), folder, quiet=True)
    return folder
