"""One bit flipped, the end cut off, or the whole file gone, in every file of a run folder and of the cache.

Whatever is then asked of the run (predict, evaluate, go on) must say what is wrong in one line, or answer as before:
what must never be is another answer, or a traceback. A file that was damaged and did no harm is not read for that.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minitx.config.load import load
from minitx.errors import ConfigError, RunError
from minitx.training import run as session
from tests.faults.trainings import configuration, write_data
from tests.tiny import fingerprint

Question = Callable[[Path, dict[str, Any]], Any]
HARMS = ("flip", "flip", "cut", "gone")
"""What is done to each file, one at a time; a log gets the first."""
KINDS = ("transformer classification", "linear classification")


def damage(
    folder: Path, seed: int, kinds: tuple[str, ...] = KINDS, harms: tuple[str, ...] = HARMS, inside: str = ""
) -> dict[str, Any]:
    """Damage each file of each kind of run; how often it was noticed, did no harm, or was wrong. inside: the folder
    whose files are damaged, `run` or `cache`; all of them without."""
    rng, noticed, harmless, wrong = random.Random(seed), Counter[str](), Counter[str](), list[str]()
    write_data(folder / "data")
    for kind in kinds:
        place = folder / kind.replace(" ", "-")
        tree = configuration(kind, folder / "data", place / "cache")
        session.run(load(tree), place / "run", quiet=True)
        expected = {name: _asked(ask, _copied(place, folder / "whole"), tree)[0] for name, ask in QUESTIONS.items()}
        files = sorted(p for p in (place / inside).rglob("*") if p.is_file() and not p.is_symlink())
        for file in files:
            for harm in harms[:1] if _kind_of(file.relative_to(place)) == "log" else harms:
                what = _outcome(folder / "damaged", place, file, harm, tree, expected, rng)
                name = f"{_kind_of(file.relative_to(place))}, {harm}"
                if what == "noticed":
                    noticed[name] += 1
                elif what == "harmless":
                    harmless[name] += 1
                else:
                    wrong.append(f"{kind}: {file.relative_to(place)}, {harm}: {what}")
    return {
        "damaged": sum(noticed.values()) + sum(harmless.values()) + len(wrong),
        "noticed": sum(noticed.values()),
        "harmless": sum(harmless.values()),
        "of_files": {name: [noticed[name], harmless[name]] for name in sorted({*noticed, *harmless})},
        "wrong": wrong,
    }


def _kind_of(path: Path) -> str:
    """`checkpoint model.safetensors`, `cache`, `log`, ..."""
    if path.parts[0] == "cache":
        return "cache"
    if "checkpoints" in path.parts:
        return f"checkpoint {path.name}"
    return "log" if path.name in ("metrics.jsonl", "train.log") or "tfevents" in path.name else path.name


def _outcome(
    work: Path, place: Path, file: Path, harm: str, tree: dict[str, Any], expected: dict[str, Any], rng: random.Random
) -> str:
    """noticed, harmless, or what was wrong."""
    _copied(place, work)
    spoil(work / file.relative_to(place), harm, rng)
    told = False
    for name, ask in QUESTIONS.items():
        try:
            answer, warned = _asked(ask, work, tree)
        except (ConfigError, RunError) as error:
            if "\n" in str(error):
                return f"{name} says it in several lines: {error}"
            told = True
        except Exception as error:
            return f"{name} ends in {type(error).__name__}: {error}"
        else:
            told = told or warned
            if answer != expected[name] and not warned:
                return f"{name} answers otherwise, and nothing is said"
    return "noticed" if told else "harmless"


def _copied(place: Path, copy: Path) -> Path:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(place, copy, symlinks=True)
    return copy


def _asked(ask: Question, place: Path, tree: dict[str, Any]) -> tuple[Any, bool]:
    """The answer, and whether a warning came with it."""
    log = place / "run" / "train.log"
    before = len(log.read_bytes()) if log.exists() else 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = ask(place, tree)
    logged = log.read_bytes()[before:] if log.exists() else b""
    return answer, bool(caught) or b"warning" in logged


def spoil(file: Path, harm: str, rng: random.Random) -> None:
    """flip: one bit. cut: the last half is lost. gone: the file is."""
    content = bytearray(file.read_bytes())
    if harm == "gone" or not content:
        file.unlink()
        return
    if harm == "cut":
        del content[len(content) // 2 :]
    else:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(content))


def _predict(place: Path, tree: dict[str, Any]) -> Any:
    """What the run answers to a few texts."""
    from minitx.predictor import Predictor

    return Predictor.from_run(place / "run").predict(["abcd", "a red stone of a river"])


def _go_on(place: Path, tree: dict[str, Any]) -> Any:
    """Weights after a few steps more. A linear model is finished with its first: its results are asked for."""
    longer = {**tree["trainer"], "max_steps": 22}
    inside = {**tree["data"], "cache_dir": str(place / "cache")}
    results = session.run(load({**tree, "trainer": longer, "data": inside}), place / "run", quiet=True)
    prints = fingerprint(place / "run")
    prints.pop("log")
    return [results["metrics"], prints]


QUESTIONS: dict[str, Question] = {"predict": _predict, "go on": _go_on}
