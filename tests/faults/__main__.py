"""What we tried to break, by one command: kills, damage, faults of the system, hostile overrides and files.

    python -m tests.faults --json outputs/reference/faults.json                  everything
    python -m tests.faults --only kills --kills 200 --seconds 900 --json FILE    one part; the others stay as they were

Exits with 1 where something came out wrong. Trainings are tiny and run on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Part = Callable[[Path, argparse.Namespace], dict[str, Any]]


def _kills(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from tests.faults.kills import interrupt

    return interrupt(folder, asked.kills, asked.seed, asked.seconds).to_json()


def _damage(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from tests.faults.damage import damage

    return damage(folder, asked.seed)


def _system(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from tests.faults.system import system_faults

    return system_faults(folder)


def _overrides(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from tests.faults.fuzz import fuzz_overrides

    return fuzz_overrides(folder, asked.examples, asked.seed, asked.seconds)


def _files(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from tests.faults.fuzz import fuzz_files

    return fuzz_files(folder, asked.examples, asked.seed, asked.seconds)


def _texts(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from tests.faults.fuzz_runs import fuzz_texts

    return fuzz_texts(folder, asked.examples // 4, asked.seed, asked.seconds)


def _folders(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    from tests.faults.fuzz_runs import fuzz_folders

    return fuzz_folders(folder, asked.examples // 10, asked.seed, asked.seconds)


PARTS: dict[str, Part] = {
    "kills": _kills, "damage": _damage, "system": _system, "overrides": _overrides, "files": _files, "texts": _texts,
    "folders": _folders,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="a part; may be given again (all of them)")
    parser.add_argument("--kills", type=int, default=200, help="interruptions (200)")
    parser.add_argument(
        "--examples",
        type=int,
        default=20_000,
        help="inputs to try on each path; a quarter of it texts, a tenth folders (20,000)",
    )
    parser.add_argument("--seconds", type=float, default=900, help="a part goes on for so long at most (900)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write what came of it")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wrong = 0
    for name in asked.only or PARTS:
        folder = Path(tempfile.mkdtemp(prefix=f"faults-{name}-"))
        began = time.monotonic()
        found = {**PARTS[name](folder, asked), "seconds": round(time.monotonic() - began)}
        wrong += len(found["wrong"])
        _write(asked.json, name, found)
        if not found["wrong"]:  # else it is left to be looked at
            shutil.rmtree(folder)
    return 1 if wrong else 0


def _write(file: Path | None, name: str, found: dict[str, Any]) -> None:
    if file is None:
        print(json.dumps({name: found}, indent=1, ensure_ascii=False))
        return
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    text = json.dumps({**before, name: found}, indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
