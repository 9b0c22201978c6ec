"""A client of a server on this machine."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Client:
    """Requests to a server on this port."""

    port: int

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status, and the answer's JSON or text. body: bytes as they are, else as JSON."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, raw, {"content-type": "application/json", **names})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, json.loads(text) if "json" in answer.headers["content-type"] else text

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        return self.send("POST", path, body, **headers)
