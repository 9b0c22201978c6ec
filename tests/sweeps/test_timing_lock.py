"""Timings run alone on a machine: studies in processes of their own, killed hard."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import ROOT

from minitx.sweeps.machine import TimingLock

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(own_locks: Path) -> Iterator[Start]:
    """Starts another study that trains or times; it has asked when this returns."""
    begun: list[subprocess.Popen[str]] = []

    def begin(what: str) -> subprocess.Popen[str]:
        script = [sys.executable, str(Path(__file__).parent / "hold_timing_lock.py"), what]
        process = subprocess.Popen(
            script, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "TMPDIR": str(own_locks)}, stdout=subprocess.PIPE, text=True
        )
        begun.append(process)
        assert next_line(process) == "asks"
        return process

    yield begin
    for process in begun:
        end(process)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture
def lock(own_locks: Path) -> Iterator[TimingLock]:
    with TimingLock() as one:
        yield one


def test_trainings_of_two_studies_go_together(start: Start, lock: TimingLock) -> None:
    assert next_line(start("train")) == "works"
    assert lock.admits(training=True, idle=True) and lock.admits(training=True, idle=False)


def test_a_timing_waits_for_trainings_and_no_training_begins_before_it(start: Start, lock: TimingLock) -> None:
    training = start("train")
    assert next_line(training) == "works"
    assert not lock.admits(training=False, idle=True)
    later = start("train")
    end(training)
    assert lock.admits(training=False, idle=True)
    assert lock.admits(training=False, idle=True), "its next timing follows at once"
    assert lock.admits(training=True, idle=True), "a training of its own, asked for again"
    assert next_line(later) == "works"


def test_a_killed_timing_frees_the_machine(start: Start, lock: TimingLock) -> None:
    timing = start("time")
    assert next_line(timing) == "works"
    assert not lock.admits(training=True, idle=True) and not lock.admits(training=False, idle=True)
    end(timing)
    assert lock.admits(training=True, idle=True)


def test_two_studies_that_trained_and_then_time_do_not_wait_for_each_other(start: Start, lock: TimingLock) -> None:
    assert lock.admits(training=True, idle=True)
    timing = start("time")
    while lock.admits(training=True, idle=False):
        pass
    assert not lock.admits(training=False, idle=True), "the other was first"
    assert next_line(timing) == "works"
    end(timing)
    assert lock.admits(training=False, idle=True)
