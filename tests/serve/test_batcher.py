"""Which requests share a batch, and that each has its own answers, errors and end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from minitx.serve.batcher import Batcher, BusyError


class Recorder:
    """Answers each text with itself and the key; keeps the batches. The first one waits until `go` is set."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], int]] = []
        self.threads: set[int] = set()
        self.go = threading.Event()

    def __call__(self, texts: list[str], key: int) -> list[str]:
        self.threads.add(threading.get_ident())
        self.go.wait(30)
        self.batches.append((texts, key))
        if "bad" in texts:
            raise ValueError("bad")
        return [f"{text}/{key}" for text in texts]


def served(recorder: Recorder, *jobs: tuple[list[str], int], max_batch: int = 7, max_waiting: int = 100) -> list[Any]:
    """What each request is answered, or its error; all arrive while the first is computed."""

    async def all_jobs() -> list[Any]:
        batcher = Batcher(recorder, max_batch=max_batch, max_waiting=max_waiting)
        tasks = []
        for texts, key in jobs:
            tasks.append(asyncio.create_task(batcher.submit(texts, key)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        recorder.go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        batcher.close()
        return found

    return asyncio.run(all_jobs())


def test_requests_that_wait_share_a_batch_and_keep_their_answers() -> None:
    recorder = Recorder()
    found = served(recorder, (["a"], 0), (["b", "c"], 0), (["d"], 0), ([], 0), (["e"], 0))
    assert found == [["a/0"], ["b/0", "c/0"], ["d/0"], [], ["e/0"]]
    assert recorder.batches == [(["a"], 0), (["b", "c", "d", "e"], 0)]
    assert len(recorder.threads) == 1 and threading.get_ident() not in recorder.threads


def test_another_key_is_another_batch() -> None:
    recorder = Recorder()
    found = served(recorder, (["a"], 0), (["b"], 3), (["c"], 0), (["d"], 3))
    assert found == [["a/0"], ["b/3"], ["c/0"], ["d/3"]]
    assert recorder.batches == [(["a"], 0), (["b", "d"], 3), (["c"], 0)]


def test_a_batch_has_its_limit_but_a_large_request_goes_alone() -> None:
    recorder = Recorder()
    letters = [[letter] * n for letter, n in zip("abcde", (1, 2, 3, 11, 5), strict=True)]
    found = served(recorder, *((texts, 0) for texts in letters), max_batch=7)
    assert found == [[f"{text}/0" for text in texts] for texts in letters]
    assert [len(texts) for texts, _ in recorder.batches] == [1, 5, 11, 5]


def test_an_error_is_of_its_own_request() -> None:
    recorder = Recorder()
    first, second, third = served(recorder, (["a"], 0), (["bad"], 0), (["c"], 0))
    assert first == ["a/0"] and third == ["c/0"] and isinstance(second, ValueError)


def test_too_many_texts_are_refused_at_once() -> None:
    recorder = Recorder()
    found = served(recorder, (["a"], 0), (["b"] * 4, 0), (["c"], 0), (["d"], 0), max_waiting=5)
    assert found[:3] == [["a/0"], ["b/0"] * 4, ["c/0"]] and isinstance(found[3], BusyError)


def test_nobody_s_texts_are_not_computed() -> None:
    """A request that was given up while it waited costs nothing."""
    recorder = Recorder()

    async def give_up() -> list[str]:
        batcher = Batcher(recorder, max_batch=7, max_waiting=9)
        first = asyncio.create_task(batcher.submit(["a"], 0))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.submit(["b"], 0), 0.01)
        last = asyncio.create_task(batcher.submit(["c"], 0))
        await asyncio.sleep(0)
        recorder.go.set()
        await first
        found = await last
        batcher.close()
        return found

    assert asyncio.run(give_up()) == ["c/0"]
    assert [texts for texts, _ in recorder.batches] == [["a"], ["c"]]


def test_the_thread_is_prepared_once_before_it_works() -> None:
    seen: list[str] = []

    def compute(texts: list[str], _: int) -> list[str]:
        seen.append("work")
        return texts

    async def use() -> None:
        batcher: Batcher[int, str] = Batcher(compute, max_batch=7, max_waiting=9, prepare=lambda: seen.append("ready"))
        work: list[Coroutine[Any, Any, Any]] = [batcher.submit(["a"], 0), batcher.alone(lambda: seen.append("alone"))]
        await asyncio.gather(*work)
        await batcher.submit(["b"], 0)
        batcher.close()

    asyncio.run(use())
    assert seen[0] == "ready" and sorted(seen[1:]) == ["alone", "work", "work"]
