"""A tiny classifier to export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from export_helpers import train_classifier


@pytest.fixture(scope="session")
def classifier(tiny_classes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = ["model.position=rotary", "model.attention.span=window", "model.attention.window=2"]
    return train_classifier(tiny_classes, overrides, tmp_path_factory.mktemp("classifier") / "run")
