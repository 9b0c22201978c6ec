"""One thread in which the model computes, and requests that wait for it, answered together.

While a batch is computed, requests arrive and wait; all that ask alike go through the model as the next batch. So a
lone request waits for nothing, and a crowd is served in large batches. Everything here but the thread's work runs in
the event loop, so nothing needs a lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Answer = TypeVar("Answer")
Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class BusyError(RuntimeError):
    """More texts wait than are let in."""


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Key, Answer]):
    texts: Sequence[str]
    key: Key
    answers: asyncio.Future[list[Answer]]


class Batcher(Generic[Key, Answer]):
    """`await batcher.submit(texts, key)` gives an answer for each text; texts of equal key may share a batch.

    compute: from texts and their key to an answer each, in the model's thread. max_batch: texts of a batch, unless one
    request alone has more. max_waiting: texts that may wait. prepare: called once in the thread, before all else.
    """

    def __init__(
        self,
        compute: Callable[[list[str], Key], list[Answer]],
        *,
        max_batch: int,
        max_waiting: int,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.compute, self.max_batch, self.max_waiting = compute, max_batch, max_waiting
        self._waiting: deque[_Waiting[Key, Answer]] = deque()
        self._work: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "model", initializer=prepare)

    async def submit(self, texts: Sequence[str], key: Key) -> list[Answer]:
        """The answers to `texts`, in their order.

        Raises:
            BusyError: too many texts wait.
            Exception: whatever `compute` raises for these texts.
        """
        if sum(len(one.texts) for one in self._waiting) + len(texts) > self.max_waiting:
            raise BusyError(f"more than {self.max_waiting} texts wait")
        one = _Waiting(texts, key, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._answer_all())
        return await one.answers

    async def alone(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, called in the model's thread in its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """End the thread after what it computes now."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _answer_all(self) -> None:
        while batch := self._next():
            if await self._answer(batch) or len(batch) == 1:
                continue
            for one in batch:  # what is wrong with one request must not cost another its answer
                await self._answer([one])

    def _next(self) -> list[_Waiting[Key, Answer]]:
        """Requests of the first one's key, as many as fit a batch; those that nobody waits for any more are dropped."""
        present = [one for one in self._waiting if not one.answers.done()]
        batch: list[_Waiting[Key, Answer]] = []
        for one in present:
            n_texts = sum(len(chosen.texts) for chosen in batch) + len(one.texts)
            if not batch or (one.key == batch[0].key and n_texts <= self.max_batch):
                batch.append(one)
        self._waiting = deque(one for one in present if one not in batch)
        return batch

    async def _answer(self, batch: list[_Waiting[Key, Answer]]) -> bool:
        """Compute a batch and hand its answers out. An error goes to a request that is alone; else False says so."""
        texts = [text for one in batch for text in one.texts]
        try:
            answers = await self.alone(lambda: self.compute(texts, batch[0].key))
        except Exception as error:
            if len(batch) == 1 and not batch[0].answers.done():
                batch[0].answers.set_exception(error)
            return False
        start = 0
        for one in batch:
            if not one.answers.done():
                one.answers.set_result(answers[start : start + len(one.texts)])
            start += len(one.texts)
        return True
