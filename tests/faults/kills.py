"""Trainings that are interrupted at random moments, resumed, and compared bit for bit with one that nobody disturbed.

A moment is drawn in two ways, and the earlier one counts: any time that an undisturbed run takes; or a phase
(start-up, cache writing, ... as `Phase` follows them) and a delay after the process has come there, so that the short
phases, where files are written, are hit too.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.faults.trainings import PHASES, TRAININGS, Phase, configuration, server, start, write_data
from tests.tiny import fingerprint

SIGNALS = ("SIGKILL", "SIGKILL", "SIGKILL", "SIGTERM", "SIGINT", "double SIGINT", "SIGSTOP")
"""What is sent, as often as it is named; SIGSTOP is followed by SIGCONT."""
ROUND = 4
"""Interruptions of one training before it may end and is compared."""
PATIENCE = 180
"""Seconds for one attempt, on a machine that does other things."""


@dataclass
class Kills:
    """What came of it."""

    asked: int
    sent: Counter[str] = field(default_factory=Counter)
    """Signal -> times."""
    phases: Counter[str] = field(default_factory=Counter)
    trainings: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    """Interrupted trainings that were brought to their end."""
    identical: int = 0
    wrong: list[str] = field(default_factory=list)
    """A line each: what differed, a traceback, a process that hung."""

    @property
    def n(self) -> int:
        return sum(self.sent.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "interruptions": self.n,
            "signals": dict(sorted(self.sent.items())),
            "phases": {phase: self.phases[phase] for phase in PHASES},
            "trainings": dict(sorted(self.trainings.items())),
            "compared": self.compared,
            "identical": self.identical,
            "wrong": self.wrong,
        }


def interrupt(folder: Path, n_kills: int, seed: int, seconds: float, trainings: tuple[str, ...] = TRAININGS) -> Kills:
    """At least `n_kills` interruptions, in turn over the trainings, or as many as `seconds` allow."""
    rng, context, found = random.Random(seed), server(), Kills(asked=n_kills)
    write_data(folder / "data")
    straight: dict[str, dict[str, Any]] = {}
    ends, number = time.monotonic() + seconds, 0
    while found.n < n_kills and time.monotonic() < ends:
        name = trainings[number % len(trainings)]
        if name not in straight:
            straight[name] = _undisturbed(context, folder, name)
        _round(context, folder / f"round-{number}", folder / "data", name, straight[name], rng, found)
        if not found.wrong:  # else it is left to be looked at
            shutil.rmtree(folder / f"round-{number}", ignore_errors=True)
        number += 1
        print(f"{found.n} of {n_kills} interruptions, {found.identical} of {found.compared} identical", flush=True)
    return found


@dataclass(frozen=True)
class Straight:
    """A training that nobody disturbed."""

    fingerprint: dict[str, Any]
    seconds: float


def _undisturbed(context: ForkServerContext, folder: Path, name: str) -> Straight:
    place = folder / "straight" / name.replace(" ", "-")
    tree = configuration(name, folder / "data", place / "cache")
    place.mkdir(parents=True)
    began = time.monotonic()
    process = start(context, tree, place / "run", None, place / "log")
    if _ended(process) != 0:
        raise RuntimeError(f"{name} fails without any interruption: {(place / 'log').read_text()}")
    return Straight(fingerprint(place / "run"), time.monotonic() - began)


def _round(
    context: ForkServerContext,
    place: Path,
    data: Path,
    name: str,
    straight: Straight,
    rng: random.Random,
    found: Kills,
) -> None:
    """Interrupt one training ROUND times, or until it has ended all the same; then let it end, and compare."""
    place.mkdir(parents=True)
    tree, log = configuration(name, data, place / "cache"), place / "log"
    sent: list[str] = []
    code: int | None = None
    while len(sent) < ROUND and code != 0:
        phase, kind = Phase(context), rng.choice(SIGNALS)
        process = start(context, tree, place / "run", phase, log)
        hit = _hit(process, phase, kind, straight.seconds, rng)
        code = _ended(process)
        if hit is not None:
            sent.append(f"{kind} in {hit}")
            found.sent[kind] += 1
            found.phases[hit] += 1
            found.trainings[name] += 1
        elif code != 0:
            break  # it cannot go on by itself: an error, which the comparison finds
        if code is None:
            found.wrong.append(f"{name} after {', '.join(sent)}: did not end within {PATIENCE} s")
            return
    if code != 0:
        code = _ended(start(context, tree, place / "run", None, log))
    _compare(name, sent, code, place, straight.fingerprint, found)


def _compare(name: str, sent: list[str], code: int | None, place: Path, straight: dict[str, Any], found: Kills) -> None:
    if not sent:
        return
    found.compared += 1
    text = (place / "log").read_text(errors="replace")
    said = f"{name} after {', '.join(sent)}"
    if code != 0 or "Traceback" in text:
        found.wrong.append(f"{said}: exit code {code}: {text.strip().splitlines()[-1:]}")
        return
    ended = fingerprint(place / "run")
    differing = [key for key in {**straight, **ended} if straight.get(key) != ended.get(key)]
    if differing:
        found.wrong.append(f"{said}: other {', '.join(differing)}")
    else:
        found.identical += 1


def _hit(process: BaseProcess, phase: Phase, kind: str, seconds: float, rng: random.Random) -> str | None:
    """Wait for the moment, and send the signal. Returns the phase in which it came; None where the process ended
    before."""
    while not phase.has_begun and process.is_alive():
        time.sleep(0.0005)
    wanted, latest = rng.choice(PHASES[1:]), time.monotonic() + seconds * rng.random()
    delay = rng.choice((0.0, 0.001, 0.005, 0.02)) * rng.random()
    while phase.now != wanted and time.monotonic() < latest and process.is_alive():
        time.sleep(0.0005)
    time.sleep(delay)
    now, pid = phase.now, process.pid
    if pid is None or not process.is_alive():
        return None
    send(pid, kind, rng)
    return now


def send(pid: int, kind: str, rng: random.Random) -> None:
    """One kind of interruption; a process that ends meanwhile is as good."""
    try:
        if kind == "SIGSTOP":
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.2 * rng.random())
            os.kill(pid, signal.SIGCONT)
        elif kind == "double SIGINT":
            os.kill(pid, signal.SIGINT)
            time.sleep(0.02 * rng.random())
            os.kill(pid, signal.SIGINT)
        else:
            os.kill(pid, signal.Signals[kind])
    except ProcessLookupError:
        return


def _ended(process: BaseProcess) -> int | None:
    """The exit code; None of a process that hangs, which is killed."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
        return None
    return process.exitcode
