"""What a GPU runs, run without one, in its own process: torch takes a new device only before its first backward."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT

CHECKS = Path(__file__).with_name("device_checks.py")


@pytest.mark.slow
def test_what_a_gpu_runs_runs_without_one() -> None:
    """Every model and task: no value asked for, no mixing of devices, and whole runs with resume (device_checks.py)."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", str(CHECKS)]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert checked.returncode == 0, checked.stdout[-3000:]
