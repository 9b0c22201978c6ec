"""A tiny translator to serve, and a server in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_client import Client
from tiny import TINY_MODEL, TINY_TRAINER

from minitx.config.load import load
from minitx.predictor import Predictor
from minitx.serve.app import make_app
from minitx.serve.limits import Limits
from minitx.serve.server import listen, make_server
from minitx.training.run import run


@pytest.fixture(scope="session")
def translator_run(tmp_path_factory: pytest.TempPathFactory, tiny_data: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("served") / "run"
    run(load({"data": tiny_data, "model": TINY_MODEL, "trainer": TINY_TRAINER}), folder, quiet=True)
    return folder


@pytest.fixture
def serving() -> Iterator[Callable[..., Client]]:
    """serving(predictor, seconds=0.5, ...) starts a server with these limits."""
    started: list[tuple[Any, threading.Thread]] = []

    def start(predictor: Predictor, **limits: Any) -> Client:
        allowed = Limits(**limits)
        sock = listen("127.0.0.1", 0)
        server = make_server(make_app(predictor, allowed), allowed)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        started.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return Client(sock.getsockname()[1])

    yield start
    for server, thread in started:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()
