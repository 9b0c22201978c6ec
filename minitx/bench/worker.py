"""One measuring process: a `Job` as a line on standard input, its result as a line of JSON on standard output.

Run as `python -m minitx.bench.worker`. Whatever libraries print goes to the error stream.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Any

from minitx.bench.job import Job
from minitx.errors import ConfigError

MODULES = {"minitx": "ours", "torch": "torch_models", "transformers": "transformers_trainer"}
ELSEWHERE = {"machine": "machine", "peak": "peak", "split": "step_split", "data": "data_facts"}
OPTIONAL = ("transformers", "accelerate")
"""Packages that a contestant needs and minitx does not."""


def main() -> None:
    """Answer jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(line)), file=answers, flush=True)


def answer(line: str) -> dict[str, Any]:
    """The result with `status` ok, or why there is none."""
    try:
        job = Job.model_validate_json(line)
        return {"status": "ok", **_work(job)(job)}
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] in OPTIONAL:
            return {"status": "not installed", "error": f"{error.name} is not installed: pip install 'minitx[bench]'"}
        return _failed(error)
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> dict[str, Any]:
    traceback.print_exc()
    lines = str(error).strip().splitlines() or [""]
    kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
    return {"status": "failed", "error": kind + lines[0]}


def _work(job: Job) -> Callable[[Job], dict[str, Any]]:
    """The function that does a job; imported only now, so that nobody pays for another's libraries."""
    module = MODULES[job.contestant] if job.work in ("train", "infer") else ELSEWHERE.get(job.work, "growth")
    function: Callable[[Job], dict[str, Any]] = getattr(import_module(f"minitx.bench.{module}"), job.work)
    return function


if __name__ == "__main__":
    main()
