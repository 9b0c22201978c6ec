"""Limits of size, time and number of requests: around the application, and where a connection's first bytes arrive."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server lets in."""

    seconds: float = 30.0
    """For a request's headers to arrive, again for its body, and again for its answer to be computed."""
    body_bytes: int = 1 << 20
    texts: int = 256
    """Of one request."""
    answers: int = 20
    """Of one text."""
    waiting_texts: int = 8192
    """Of all requests that wait for the model."""
    requests: int = 256
    """At the same time."""
    attention_tokens: int = 512
    """Of a text whose attention is asked for: maps grow with the square."""


DRAINED = 16
"""Of a body that is too large, so many times its limit is read and thrown away before the answer: a client that sends
all before it reads would not hear an answer that comes earlier, but a broken connection."""


LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")


class LocalRequests:
    """The application for requests alone that name this machine as their host. A page of another site can make its own
    name mean this machine (DNS rebinding), and its requests then name that site."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value.decode("latin-1") for name, value in scope.get("headers", []) if name == b"host"]
        if scope["type"] != "http" or all(re.sub(r":\d+$", "", host) in LOCAL_HOSTS for host in hosts):
            await self.app(scope, receive, send)
        else:
            must = f"the header host ({hosts[0]:.80}) must be one of {', '.join(LOCAL_HOSTS)}"
            await _refuse(send, 400, f"{must}; minitx serve --host lets others in")


class LimitRequests:
    """The application within its limits: what breaks one is answered in JSON, with 413, 408, 503 or 504."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits, self.n_active = app, limits, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self.n_active >= self.limits.requests:
            await _refuse(send, 503, f"the server is busy: {self.n_active} requests at once; try again in a moment")
        else:
            self.n_active += 1
            try:
                await self._answer(scope, receive, send)
            finally:
                self.n_active -= 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit, seconds = self.limits.body_bytes, self.limits.seconds
        try:
            async with asyncio.timeout(seconds):
                body = await _read(receive, limit)
        except TimeoutError:
            return await _refuse(send, 408, f"the request's body must arrive within {seconds:g} s")
        except ConnectionError:
            return None  # nobody is left to answer
        if len(body) > limit:
            return await _refuse(send, 413, f"the request's body must have at most {limit:,} bytes; send several")
        replies = _Replies(send)
        try:
            async with asyncio.timeout(seconds):
                await self.app(scope, _replayed(body, receive), replies)
        except TimeoutError:
            if not replies.started:
                await _refuse(send, 504, f"no answer within {seconds:g} s; send shorter or fewer texts, or try later")
        return None


class _Replies:
    """Passes an answer on and knows whether it has begun."""

    def __init__(self, send: Send) -> None:
        self.send, self.started = send, False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self.send(message)


async def _read(receive: Receive, limit: int) -> bytes:
    """A request's body; of one longer than `limit` the first part, which shows that it is, the rest thrown away.

    Raises:
        ConnectionError: the client has gone.
    """
    body, n_bytes = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        n_bytes += len(message.get("body", b""))
        if len(body) <= limit:
            body += message.get("body", b"")
        if not message.get("more_body", False) or n_bytes > DRAINED * limit:
            return bytes(body[: limit + 1])


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` of a body that was read already; then the connection's own."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(send: Send, status: int, error: str) -> None:
    """Answer in the application's place and close the connection, of which something may be unread."""
    body = json.dumps({"error": error}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *([(b"retry-after", b"1")] if status == 503 else []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Protocol(H11Protocol):
    """uvicorn's HTTP connection, which otherwise waits for a request's headers without end."""

    header_seconds: ClassVar[float]

    @classmethod
    def within(cls, limits: Limits) -> type[Protocol]:
        """The class with its limit: uvicorn makes the connections itself."""
        return type("LimitedProtocol", (cls,), {"header_seconds": limits.seconds})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:  # in the middle of the headers
            self._wait_for_headers()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.header_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        body = json.dumps({"error": f"the request's headers must arrive within {self.header_seconds:g} s"}).encode()
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(b"HTTP/1.1 408 Request Timeout\r\n" + head.encode() + body)
        self.transport.close()


class WithoutNoise(logging.Filter):
    """Leaves out what uvicorn logs of requests that are no HTTP (their senders are answered; a scan must not flood a
    log), and of a connection that opens while the server ends."""

    NOISE = ("Invalid HTTP request", "Cancel 0 running task")

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.NOISE)
