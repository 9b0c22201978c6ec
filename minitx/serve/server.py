"""Listening, and running the application until it is told to stop."""

from __future__ import annotations

import logging
import os
import socket

import uvicorn
from fastapi import FastAPI

from minitx.config import rule
from minitx.serve.limits import Limits, Protocol, WithoutNoise

GOODBYE_SECONDS = 5
"""For requests under way to be answered after Ctrl-C."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. port: 0 = any that is free.

    Raises:
        ConfigError: the port is taken or not allowed, or the host is none of this machine.
    """
    if not 0 <= port <= 65535:
        raise rule("--port", port, "lie between 0 and 65535")
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise rule("--host", host, f"be an address of this machine ({error.strerror})", "e.g. 127.0.0.1") from None
    try:
        return socket.create_server(place[:2], family=family)
    except OSError as error:
        must = f"be free for a server on {host} ({os.strerror(error.errno or 0).lower()})"
        raise rule("--port", port, must, "end the other program or choose another port, 0 = any that is free") from None


def address(sock: socket.socket) -> str:
    """What a browser is to open."""
    host, port = sock.getsockname()[:2]
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def make_server(app: FastAPI, limits: Limits) -> uvicorn.Server:
    """`server.run(sockets=[sock])` serves until SIGINT or SIGTERM."""
    logging.getLogger("uvicorn.error").addFilter(WithoutNoise())
    config = uvicorn.Config(
        app,
        http=Protocol.within(limits),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=max(5, round(limits.seconds)),
        timeout_graceful_shutdown=GOODBYE_SECONDS,
        backlog=1024,
    )
    return uvicorn.Server(config)


def serve(app: FastAPI, sock: socket.socket, limits: Limits) -> None:
    """Serve until Ctrl-C, which is how a server ends, and no error."""
    try:
        make_server(app, limits).run(sockets=[sock])
    except KeyboardInterrupt:
        return
