"""Faults of the system: no room on the disk, folders that cannot be written or are gone, two processes at once, a
loss that is no number. Each either changes nothing of the result, or is told in one line with nothing lost."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from tests.faults.trainings import configuration, server, start, write_data
from tests.tiny import fingerprint

NAME = "transformer classification"
PATIENCE = 180


class Case:
    """A folder of its own with data, and a training that was not disturbed to compare with."""

    def __init__(self, context: ForkServerContext, folder: Path, straight: Mapping[str, Any]) -> None:
        self.context, self.folder, self.straight = context, folder, straight
        write_data(folder / "data")
        self.tree = configuration(NAME, folder / "data", folder / "cache")

    def train(self, **limits: int) -> tuple[int | None, str]:
        """(exit code, what was printed) of a training in `run`."""
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        process = start(self.context, self.tree, self.folder / "run", None, log, limits)
        process.join(PATIENCE)
        if process.exitcode is None:
            process.kill()
        return process.exitcode, log.read_text(errors="replace") if log.exists() else ""

    def told(self, code: int | None, text: str, *words: str) -> str | None:
        """None where the training ended with one line that has these words; else what was wrong."""
        lines = text.strip().splitlines()
        if code in (0, None) or "Traceback" in text:
            return f"exit code {code}: {lines[-1:]}"
        return None if all(word in text for word in words) else f"said {lines[-1:]}, not {words}"

    def same(self, code: int | None, text: str) -> str | None:
        """None where the run has ended as the undisturbed one."""
        if code != 0 or "Traceback" in text:
            return f"exit code {code}: {text.strip().splitlines()[-1:]}"
        return None if fingerprint(self.folder / "run") == self.straight else "other weights, logs or metrics"


def file_too_large(case: Case) -> str | None:
    """No file may grow beyond a few kilobytes, as on a disk that is full: the prepared data has no room, then, with the
    data there, the checkpoint; then there is room again, and the run goes on."""
    code, text = case.train(file_size=6000)
    wrong = case.told(code, text, "data.cache_dir", "must have room for the prepared data")
    case.train(steps=1)
    shutil.rmtree(case.folder / "run")
    code, text = case.train(file_size=16_000)
    return wrong or case.told(code, text, "not written") or case.same(*case.train())


def folder_read_only(case: Case) -> str | None:
    """Root may write everywhere: a file in the folder's place stops everybody."""
    (case.folder / "run").write_text("")
    code, text = case.train()
    (case.folder / "run").unlink()
    return case.told(code, text, "hydra.run.dir", "must be a folder that can be written") or case.same(*case.train())


def cache_read_only(case: Case) -> str | None:
    (case.folder / "cache").write_text("")
    code, text = case.train()
    (case.folder / "cache").unlink()
    return case.told(code, text, "data.cache_dir", "must be a folder that can be written") or case.same(*case.train())


def folder_deleted(case: Case) -> str | None:
    """The run folder goes away while it trains."""
    log = case.folder / "log"
    process = start(case.context, case.tree, case.folder / "run", None, log)
    ends = time.monotonic() + PATIENCE
    while not (case.folder / "run" / "checkpoints").is_dir() and time.monotonic() < ends:
        time.sleep(0.002)
    shutil.move(case.folder / "run", case.folder / "moved")
    process.join(PATIENCE)
    text = log.read_text(errors="replace")
    if process.exitcode == 0:  # it had come to its end
        return None
    shutil.rmtree(case.folder / "run", ignore_errors=True)
    mine = text.partition("checkpoint of step")[2]  # TensorBoard's own thread has its trace besides
    return case.told(process.exitcode, mine, "not written") or case.same(*case.train())


def data_deleted(case: Case) -> str | None:
    """The file is gone when the run goes on; it comes back."""
    case.train(steps=7)
    file = case.folder / "data" / "colours.csv"
    kept = file.read_bytes()
    file.unlink()
    gone = case.train()
    file.write_bytes(kept)
    return case.told(*gone, "data.path", "must be an existing file") or case.same(*case.train())


def two_on_one_run(case: Case) -> str | None:
    """The second is refused, and the first is not disturbed."""
    first, second = (
        start(case.context, case.tree, case.folder / "run", None, case.folder / f"log{i}") for i in range(2)
    )
    first.join(PATIENCE)
    second.join(PATIENCE)
    texts = [(case.folder / f"log{i}").read_text() for i in range(2)]
    codes = sorted((first.exitcode or 0, second.exitcode or 0))
    if codes == [0, 2]:
        wrong = None if "another process is training in it" in "".join(texts) else f"said {texts}"
    else:
        wrong = None if codes == [0, 0] else f"exit codes {codes}"  # one after the other
    return wrong or case.same(0, "")


def two_on_one_cache(case: Case) -> str | None:
    """Both prepare the same data at once, and both end as one alone."""
    first, second = (
        start(case.context, case.tree, case.folder / name, None, case.folder / f"log-{name}")
        for name in ("run", "other")
    )
    first.join(PATIENCE)
    second.join(PATIENCE)
    if (first.exitcode, second.exitcode) != (0, 0):
        return f"exit codes {first.exitcode}, {second.exitcode}"
    return case.same(0, "") if fingerprint(case.folder / "other") == case.straight else "the other differs"


def not_a_number(case: Case) -> str | None:
    """A loss that is no number stops the run with the step and the rows, and the checkpoint before it stays."""
    code, text = case.train(nan_at=11)
    return case.told(code, text, "loss is nan", "at step 11", "train rows") or case.same(*case.train())


def clock_set_back(case: Case) -> str | None:
    """By a day, between two parts of a run."""
    case.train(steps=7)
    old = time.time() - 86_400
    for path in (case.folder / "run").rglob("*"):
        if not path.is_symlink():
            os.utime(path, (old + 2 * 86_400,) * 2)
    return case.same(*case.train())


CASES: Mapping[str, Callable[[Case], str | None]] = {
    "no room for a checkpoint": file_too_large,
    "run folder that cannot be written": folder_read_only,
    "cache that cannot be written": cache_read_only,
    "run folder moved away while it trains": folder_deleted,
    "data gone when the run goes on": data_deleted,
    "two processes on one run": two_on_one_run,
    "two processes on one cache": two_on_one_cache,
    "a loss that is not a number": not_a_number,
    "files from the future": clock_set_back,
}


def system_faults(folder: Path, names: tuple[str, ...] = tuple(CASES)) -> dict[str, Any]:
    """Every case by itself: `ok`, or what was wrong."""
    context = server()
    write_data(folder / "straight" / "data")
    tree = configuration(NAME, folder / "straight" / "data", folder / "straight" / "cache")
    process = start(context, tree, folder / "straight" / "run", None, folder / "straight" / "log")
    process.join(PATIENCE)
    straight = fingerprint(folder / "straight" / "run")
    found = {name: CASES[name](Case(context, folder / name.replace(" ", "-"), straight)) for name in names}
    return {
        "cases": {name: wrong or "ok" for name, wrong in found.items()},
        "wrong": [f"{name}: {wrong}" for name, wrong in found.items() if wrong],
    }
