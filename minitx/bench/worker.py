"""Worker processes: started, given one job a line with a time limit, and ended with all their children.

Each measurement gets a fresh process, so that nobody profits or suffers from another's allocator, threads or caches.
`python -m minitx.bench.worker` is such a process; whatever libraries print goes to its error stream.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from minitx.bench.jobs import Job
from minitx.errors import ConfigError

COMMAND = (sys.executable, "-m", "minitx.bench.worker")
PACKAGE_ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_END = 5.0
Life = Literal["measurement", "contestant", "suite"]
"""How long a process serves. `contestant` saves start-up where many small points are measured, `suite` is for a dry
run: their numbers are told apart by what uses them."""


class Worker:
    """One process that answers jobs, one line each."""

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = start_process(command or COMMAND, self._errors, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._rest = b""

    def ask(self, job: Job, seconds: float) -> dict[str, Any]:
        """The answer, with a `status`: ok, failed, not installed, or timed out (then the process has been ended)."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(job.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return self._dead()
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            chunk = self._read(deadline)
            if chunk is None:
                self.end()
                return {"status": "timed out", "error": f"no result within {seconds:.0f} s"}
            if not chunk:
                return self._dead()
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        if found["status"] == "failed":
            print(self.error_tail(), file=sys.stderr)
        return found

    def _read(self, deadline: float) -> bytes | None:
        """What has been written; b"" at the end of the stream, None when time is up."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        return os.read(self._process.stdout.fileno(), 1 << 16) if ready else None

    def _dead(self) -> dict[str, Any]:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        print(self.error_tail(), file=sys.stderr)
        last = (self.error_tail().strip().splitlines() or ["it said nothing"])[-1]
        return {"status": "failed", "error": f"the process ended with {how}: {last}"}

    def error_tail(self, size: int = 2000) -> str:
        """The end_process of what went to the error stream."""
        return tail(self._errors, size)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        end_process(self._process)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


class Workers:
    """Hands out processes as `life` says, and ends every one of them."""

    def __init__(self, life: Life = "measurement") -> None:
        self.life = life
        self._kept: dict[str, Worker] = {}

    def ask(self, job: Job, seconds: float, life: Life | None = None) -> dict[str, Any]:
        """Measure; `life` overrides the default for this job, unless that is `suite`."""
        chosen = self.life if self.life == "suite" or life is None else life
        key = {"measurement": "", "contestant": job.contestant, "suite": "all"}[chosen]
        worker = self._kept.pop(key, None) if key else None
        if worker is None or not worker.alive:
            worker = Worker()
        self._kept[key or "now"] = worker
        answer = worker.ask(job, seconds)
        if not key or not worker.alive:
            self._kept.pop(key or "now").end()
        return answer

    def end(self) -> None:
        """End what still runs."""
        while self._kept:
            self._kept.popitem()[1].end()


def start_process(command: Sequence[str], errors: Any, **options: Any) -> subprocess.Popen[bytes]:
    """A process in a session of its own, so that Ctrl-C reaches us alone and we end it with its children."""
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        command, stderr=errors, start_new_session=True, env={**os.environ, "PYTHONPATH": path}, **options
    )


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Ask the process and its children to end, then make them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(SECONDS_TO_END)
            return
        except subprocess.TimeoutExpired:
            continue


def tail(file: Any, size: int) -> str:
    """The last `size` bytes of an open file, as text."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - size))
    return str(file.read().decode(errors="replace"))


MODULES = {"minitx": "ours", "torch": "torch_models", "transformers": "transformers_trainer"}
ELSEWHERE = {"machine": "measure", "peak": "measure", "data": "workloads", "recipe": "ours"}
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
    module = MODULES[job.contestant] if job.work in ("train", "infer") else ELSEWHERE.get(job.work, "anatomy")
    function: Callable[[Job], dict[str, Any]] = getattr(import_module(f"minitx.bench.{module}"), job.work)
    return function


if __name__ == "__main__":
    main()
