"""`minitx doctor`: facts, self-tests that pass, and one that fails."""

from __future__ import annotations

import json
import platform

import pytest
from tiny import lines_of

from minitx.cli import doctor, main


def test_it_says_what_a_report_needs_and_tests_itself(capsys: pytest.CaptureFixture[str]) -> None:
    lines = lines_of(capsys, "doctor")
    said = {line.split("  ")[0].strip(): line for line in lines}
    assert platform.python_version() in said["python"] and "usable cores" in said["cpu"]
    assert {"torch", "minitx", "system", "threads", "load", "gpu", "cache", "disk"} <= set(said)
    tests = [line for name, line in said.items() if name.startswith("test: ")]
    assert len(tests) == 3 and all("  ok, " in line for line in tests)


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads("\n".join(lines_of(capsys, "doctor", "--json")))
    assert set(found) == {"machine", "self_tests"} and "torch" in found["machine"]


def test_a_failure_is_named_after_all_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise ValueError("no kernels")

    monkeypatch.setattr(doctor, "_attention", broken)
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    printed = capsys.readouterr()
    assert (
        stop.value.code == 1 and "FAILED: ValueError: no kernels" in printed.out and "test: checkpoint" in printed.out
    )
    assert printed.err == "the self-test of attention has failed; please report it with the lines above\n"
