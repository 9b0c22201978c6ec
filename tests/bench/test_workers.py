"""Workers that answer, fail, die, hang, or lack a package."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import pytest

from minitx.bench import worker as process
from minitx.bench.jobs import Ids, Job, Size
from minitx.bench.worker import Worker, Workers

TINY = Size(d_model=16, n_layers=2, n_heads=2, d_ff=24, vocab=60, max_length=16)
JOB = Job(work="train", size=TINY, ids=Ids(rows=120), rows=8, steps=3, warmup=1)


def script(body: str) -> tuple[str, ...]:
    return (sys.executable, "-c", body)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One real process for all jobs of this file: what they set in it does not reach the tests."""
    started = Worker()
    yield started
    started.end()


@pytest.mark.parametrize("name", ["minitx", "torch"])
def test_a_training_measurement(worker: Worker, name: str) -> None:
    found = worker.ask(JOB.model_copy(update={"contestant": name}), 60)
    assert found["status"] == "ok", found
    assert found["steps"] == 3 and len(found["step_seconds"]) == 3
    assert sum(found["step_seconds"]) == pytest.approx(found["seconds"], abs=1e-4)
    assert found["tokens_per_second"] == pytest.approx(found["tokens"] / found["seconds"])
    assert found["flops_per_second"] == pytest.approx(found["flops"]["training"] / found["seconds"])
    assert 0 <= found["padding"] < 0.6


def test_everybody_writes_the_same_number_of_tokens(worker: Worker) -> None:
    size = TINY.model_copy(update={"task": "translation"})
    job = Job(work="infer", size=size, ids=Ids(rows=20), rows=4, infer_rows=12, written=9)
    for name in ("minitx", "torch"):
        assert worker.ask(job.model_copy(update={"contestant": name}), 60)["count"] == 12 * 9


@pytest.mark.parametrize("task", ["classification", "translation"])
def test_the_parts_of_a_step_are_the_step(worker: Worker, task: str) -> None:
    size = TINY.model_copy(update={"task": task})
    found = worker.ask(JOB.model_copy(update={"work": "split", "size": size, "batch_tokens": 128}), 60)
    assert found["status"] == "ok", found
    assert sum(found["parts"].values()) == pytest.approx(found["step_ms"])
    assert 1e3 * sum(found["step_seconds"]) / 3 == pytest.approx(found["step_ms"], rel=0.1)
    computing = [
        f"{way} {part}" for way in ("forward", "backward") for part in ("embedding", "attention", "feed-forward")
    ]
    for part in (*computing, "batch", "head and loss", "clip", "optimizer"):
        assert found["parts"][part] > 0, f"{part} took no time: its hook never fired"


def test_memory_of_the_naive_kernel_grows_with_the_square(worker: Worker) -> None:
    """Scores of 1024 x 1024, two heads, float32, forwards and backwards: at least 16 MiB, and more than sdpa needs."""
    job = Job(work="memory", size=TINY, lengths=(1024,))
    naive, sdpa = (
        worker.ask(job.model_copy(update={"backend": backend}), 60)["bytes"]["1024"] for backend in ("naive", "sdpa")
    )
    assert naive > 16 * 2**20 and naive > 2 * sdpa


def test_a_failing_job_says_why_and_the_process_goes_on(worker: Worker) -> None:
    ids, size = Ids(source="dataset", path="/no/such/folder"), TINY.model_copy(update={"vocab": 300})
    bad = worker.ask(JOB.model_copy(update={"ids": ids, "size": size}), 60)
    assert bad["status"] == "failed" and "data.path" in bad["error"]
    assert worker.ask(JOB, 60)["status"] == "ok"


def test_a_worker_that_dies_is_reported() -> None:
    dying = Worker(script("import os, sys; sys.stdin.readline(); sys.stderr.write('out of luck\\n'); os._exit(3)"))
    found = dying.ask(JOB, 30)
    assert found["status"] == "failed" and "exit code 3" in found["error"] and "out of luck" in found["error"]
    killed = Worker(script("import os, sys; sys.stdin.readline(); os.kill(os.getpid(), 9)"))
    assert "SIGKILL" in killed.ask(JOB, 30)["error"]
    dying.end()
    killed.end()


def test_a_worker_that_hangs_is_ended() -> None:
    hanging = Worker(script("import time; time.sleep(60)"))
    started = time.monotonic()
    assert hanging.ask(JOB, 0.2)["status"] == "timed out"
    assert time.monotonic() - started < 10 and not hanging.alive


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = "import sys; sys.modules['transformers'] = None; from minitx.bench.worker import main; main()"
    monkeypatch.setattr(process, "COMMAND", script(hidden))
    workers = Workers()
    found = workers.ask(JOB.model_copy(update={"contestant": "transformers"}), 60)
    workers.end()
    assert found["status"] == "not installed"
    assert found["error"].endswith("pip install 'minitx[bench]'")


def test_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process per measurement, per contestant, or one for all."""
    echo = (
        "import json, os, sys\nfor _ in sys.stdin: print(json.dumps({'status': 'ok', 'pid': os.getpid()}), flush=True)"
    )
    monkeypatch.setattr(process, "COMMAND", script(echo))
    other = JOB.model_copy(update={"contestant": "torch"})
    for life, distinct in (("measurement", 3), ("contestant", 2), ("suite", 1)):
        workers = Workers()
        workers.life = life  # type: ignore[assignment]
        pids = {workers.ask(job, 30)["pid"] for job in (JOB, other, JOB)}
        assert len(pids) == distinct, life
        workers.end()
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
