"""The requests of the load test: right ones, and every way of being wrong, too large or slow.

Each function makes one, as steps: bytes to send and seconds to wait.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

Step = bytes | float
BODY_LIMIT = 1 << 20
"""The server's own, which requests that are too large exceed."""
SYLLABLES = ("ba", "ren", "ti", "col", "mu", "sta", "ver", "ing", "o", "pli")


def word(rng: random.Random) -> str:
    """An invented one."""
    return "".join(rng.choices(SYLLABLES, k=rng.randint(1, 5)))


def request(method: str, path: str, body: bytes = b"", kind: str = "application/json") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {kind}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def post(path: str, value: object) -> bytes:
    return request("POST", path, json.dumps(value).encode())


def predict(rng: random.Random) -> list[Step]:
    return [post("/predict", {"texts": [word(rng) for _ in range(rng.choice((1, 1, 1, 2, 7)))]})]


def answers(rng: random.Random) -> list[Step]:
    return [post("/predict", {"texts": [word(rng)], "answers": rng.choice((1, 3))})]


def attention(rng: random.Random) -> list[Step]:
    return [post("/attention", {"text": word(rng), "effects": rng.random() < 0.5})]


def malformed(rng: random.Random) -> list[Step]:
    bodies = (
        b"",
        b"{",
        b'{"texts":["a"',
        b"texts=a",
        b"[" * 100_000,
        b'{"texts":["a"],"answers":' + b"9" * 9999 + b"}",
    )
    return [request("POST", "/predict", rng.choice(bodies))]


def not_utf8(rng: random.Random) -> list[Step]:
    return [request("POST", "/predict", b'{"texts":["' + bytes(rng.choices(range(128, 256), k=9)) + b'\xff"]}')]


def wrong(rng: random.Random) -> list[Step]:
    values: tuple[object, ...] = (
        {}, [], 7, {"texts": "a"}, {"texts": [7]}, {"texts": []}, {"texts": ["a"], "beam": 3}, {"texts": ["a"] * 257},
        {"texts": ["a"], "answers": -1}, {"texts": ["\ud800"]}, {"texts": [None]},
    )  # fmt: skip
    no_such_head = {"text": "a", "off": [{"kind": "encoder", "layer": 99, "head": 0}]}
    bodies = [*(("/predict", value) for value in values), ("/attention", no_such_head)]
    return [post(*rng.choice(bodies))]


def elsewhere(rng: random.Random) -> list[Step]:
    paths = (("GET", "/nothing"), ("GET", "/predict"), ("DELETE", "/run"), ("POST", "/"), ("GET", "/../etc/passwd"))
    return [request(*rng.choice(paths))]


def oversized(rng: random.Random) -> list[Step]:
    size = rng.choice((2, 5)) * BODY_LIMIT
    if rng.random() < 0.5:
        return [request("POST", "/predict", b"x" * size)]
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *([b"10000\r\n" + b"x" * 0x10000 + b"\r\n"] * (size // 0x10000)), b"0\r\n\r\n"]


def no_http(rng: random.Random) -> list[Step]:
    return [rng.choice((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"hello\r\n\r\n", b"GET /run\r\n\r\n\r\n"))]


def slow(rng: random.Random) -> list[Step]:
    whole = post("/predict", {"texts": [word(rng)]})
    pieces = [whole[start : start + 40] for start in range(0, len(whole), 40)]
    return [step for piece in pieces for step in (piece, rng.uniform(0.1, 0.3))]


def stalled_body(rng: random.Random) -> list[Step]:
    return [post("/predict", {"texts": [word(rng)]})[:-2]]


def stalled_headers(rng: random.Random) -> list[Step]:
    return [b"POST /predict HTTP/1.1\r\nhost: local"]


@dataclass(frozen=True)
class Kind:
    """A kind of request, how many of a thousand are of it, and what a right answer's status is."""

    make: Callable[[random.Random], list[Step]]
    per_thousand: int
    right: tuple[int, ...]


KINDS = (
    Kind(predict, 600, (200,)), Kind(answers, 80, (200,)), Kind(attention, 50, (200,)), Kind(malformed, 60, (400, 422)),
    Kind(not_utf8, 50, (400,)), Kind(wrong, 60, (422,)), Kind(elsewhere, 20, (404, 405)), Kind(oversized, 20, (413,)),
    Kind(no_http, 10, (400,)), Kind(slow, 40, (200,)), Kind(stalled_body, 6, (408,)), Kind(stalled_headers, 4, (408,)),
)  # fmt: skip


def requests(n: int, seed: int = 0) -> list[tuple[Kind, list[Step]]]:
    """`n` requests of all kinds by their shares, at least one of each, in random order."""
    rng = random.Random(seed)
    rest = [kind for kind in KINDS[1:] for _ in range(max(1, round(n * kind.per_thousand / 1000)))]
    kinds = [*([KINDS[0]] * (n - len(rest))), *rest]
    rng.shuffle(kinds)
    return [(kind, kind.make(rng)) for kind in kinds]
