"""Both entries bound the waiting of OpenMP before torch is loaded; its own report says what it has read."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from tiny import ROOT

from minitx.openmp import SPINS

ENTRIES = {
    "train.py": ["train.py", "--cfg", "job"],
    "minitx": ["-c", "from minitx.cli import main\ntry: main(['evaluate', 'no-run'])\nexcept SystemExit: import torch"],
}


def spins(arguments: list[str], **variables: str) -> str:
    """What GNU's OpenMP says it took for the number of spins."""
    here = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = {**here, "OMP_DISPLAY_ENV": "verbose", **variables}
    shown = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    found = re.search(r"GOMP_SPINCOUNT = '(\w+)'", shown.stderr)
    if found is None:
        pytest.skip("torch brings another OpenMP than GNU's")
    return found.group(1)


@pytest.mark.parametrize("entry", ENTRIES)
def test_waiting_is_bounded_before_torch_is_loaded(entry: str) -> None:
    assert spins(ENTRIES[entry]) == SPINS


@pytest.mark.parametrize("name, value, wanted", [("GOMP_SPINCOUNT", "17", "17"), ("OMP_WAIT_POLICY", "passive", "0")])
def test_what_the_user_has_set_stays(name: str, value: str, wanted: str) -> None:
    assert spins(ENTRIES["train.py"], **{name: value}) == wanted
