"""A server in this process: its answers are the predictor's, and every mistake is one line of JSON."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serve_client import Client
from tiny import TINY_TRAINER

import minitx
from minitx.analysis.head_maps import LayerId
from minitx.config.load import load
from minitx.predictor import Predictor
from minitx.training.run import run

Serving = Callable[..., Client]


@pytest.fixture(scope="module")
def predictor(translator_run: Path) -> Predictor:
    return minitx.load(str(translator_run))


def test_predictions_are_those_of_the_predictor(predictor: Predictor, serving: Serving) -> None:
    client, texts = serving(predictor), ["bad", "", "cabbage" * 20, "dab"]
    status, found = client.post("/predict", {"texts": texts, "answers": 3})
    assert status == 200
    assert [one["output"] for one in found["predictions"]] == predictor.predict(texts)
    best = predictor.likeliest(texts, 3)
    assert [len(answers) for answers in best] == [3, 0, 3, 3]
    for one, answers in zip(found["predictions"], best, strict=True):
        assert [answer["text"] for answer in one["answers"]] == [answer.text for answer in answers]
        assert [a["probability"] for a in one["answers"]] == pytest.approx([a.probability for a in answers], rel=1e-4)
    assert [one["cut"] for one in found["predictions"]] == [False, False, True, False]
    _, plain = client.post("/predict", {"texts": texts[:1]})
    assert plain["predictions"] == [{"output": predictor.predict(texts[:1])[0], "answers": [], "cut": False}]


def test_clients_at_once_get_their_own_answers(predictor: Predictor, serving: Serving) -> None:
    client = serving(predictor)
    texts = [f"{a}{b}{c}" for a in "abc" for b in "defg" for c in "abcde"]
    with ThreadPoolExecutor(13) as clients:
        found = list(clients.map(lambda text: client.post("/predict", {"texts": [text]}), texts))
    assert [answer["predictions"][0]["output"] for _, answer in found] == predictor.predict(texts)


def test_attention_in_numbers_and_in_bytes(predictor: Predictor, serving: Serving) -> None:
    client = serving(predictor)
    status, found = client.post("/attention", {"text": "cab", "effects": True, "encoding": "numbers"})
    [whole] = predictor.inspections(["cab"])
    assert status == 200 and found["output"] == whole.output and found["n_tokens"] == 4 and not found["cut"]
    assert [view["kind"] for view in found["views"]] == ["cross", "encoder", "decoder"]
    for view, of in zip(found["views"], whole.views, strict=True):
        np.testing.assert_allclose(view["weights"], of.weights, atol=6e-5)
        assert of.value_weighted is not None and of.loss_without is not None
        np.testing.assert_allclose(view["value_weighted"], of.value_weighted, atol=6e-5)
        np.testing.assert_allclose(view["loss_without"], of.loss_without, atol=1e-5)
    _, short = client.post("/attention", {"text": "cab"})
    assert all(isinstance(view["weights"], str) and view["loss_without"] is None for view in short["views"])


def test_heads_are_off_for_one_request_alone(predictor: Predictor, serving: Serving) -> None:
    client = serving(predictor)
    off = [{"kind": "encoder", "layer": 0, "head": head} for head in (0, 1)]
    _, before = client.post("/attention", {"text": "cab", "encoding": "numbers"})
    _, without = client.post("/attention", {"text": "cab", "encoding": "numbers", "off": off})
    _, after = client.post("/attention", {"text": "cab", "encoding": "numbers"})
    assert before == after
    [expected] = predictor.inspections(["cab"], off=[(LayerId("encoder", 0), 0), (LayerId("encoder", 0), 1)])
    assert [a["probability"] for a in without["answers"]] == pytest.approx([a.probability for a in expected.answers])
    assert without["answers"] != before["answers"]
    status, found = client.post("/attention", {"text": "cab", "off": [{"kind": "cross", "layer": 1, "head": 0}]})
    assert status == 422 and found["error"].startswith("head 0 of cross layer 1 (from 0) must be one of the model's")


def test_a_classifier_and_the_page(classifier: Path, serving: Serving) -> None:
    digits = minitx.load(str(classifier))
    client = serving(digits)
    _, found = client.post("/predict", {"texts": ["1 2 3"], "answers": 20})
    [one] = found["predictions"]
    assert len(one["answers"]) == 10 and one["answers"][0]["text"] == one["output"] == digits.predict(["1 2 3"])[0]
    assert sum(answer["probability"] for answer in one["answers"]) == pytest.approx(1, abs=1e-5)
    status, page = client.send("GET", "/")
    assert status == 200 and 'id="ask"' in page and "connect-src 'self'" in page
    _, about = client.send("GET", "/run")
    assert about["task"] == "classification" and about["labels"] == [*"0123456789"]


@pytest.mark.parametrize("model", [{"kind": "linear"}, {"kind": "bag", "d_model": 8}], ids=["linear", "bag"])
def test_a_model_without_attention_answers(
    model: dict[str, Any], tiny_classes: dict[str, Any], tmp_path: Path, serving: Serving
) -> None:
    run(load({"data": tiny_classes, "model": model, "trainer": TINY_TRAINER}), tmp_path / "run", quiet=True)
    client = serving(minitx.load(str(tmp_path / "run")))
    status, found = client.post("/attention", {"text": "a red lamp", "effects": True})
    assert status == 200 and found["views"] == [] and found["output"] == found["answers"][0]["text"]
    status, found = client.post("/attention", {"text": "a", "off": [{"kind": "encoder", "layer": 0, "head": 0}]})
    assert status == 422 and found["error"]


def test_the_schema_says_what_is_taken(predictor: Predictor, serving: Serving) -> None:
    _, schema = serving(predictor).send("GET", "/openapi.json")
    assert set(schema["paths"]) == {"/run", "/predict", "/attention"}
    for path in ("/predict", "/attention"):
        answers = schema["paths"][path]["post"]["responses"]
        name = answers["422"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert name == "ErrorReply" and "200" in answers
    texts = schema["components"]["schemas"]["PredictRequest"]["properties"]["texts"]
    assert (texts["minItems"], texts["maxItems"]) == (1, 256)


MISTAKES = {
    "no JSON": (b"{", 422, "the body must be JSON ("),
    "not UTF-8": (b'{"texts":["\xff"]}', 400, "the body must be JSON in UTF-8"),
    "nested": (b"[" * 100_000, 400, "the body must be JSON in UTF-8"),
    "a number": ({"texts": ["a", 7]}, 422, "texts.1: Input should be a valid string; see /openapi.json"),
    "no texts": ({"texts": []}, 422, "texts: List should have at least 1 item"),
    "too many": ({"texts": ["a"] * 257}, 422, "texts: List should have at most 256 items"),
    "half a character": (
        b'{"texts":["\\ud800"]}',
        422,
        "texts.0: Value error, a text must consist of whole characters",
    ),
    "unknown key": ({"texts": ["a"], "beam": 3}, 422, "beam: Extra inputs are not permitted"),
    "negative": ({"texts": ["a"], "answers": -1}, 422, "answers: Input should be greater than or equal to 0"),
    "nothing": (b"", 422, "the body: Field required"),
}


def test_a_mistake_is_one_line(predictor: Predictor, serving: Serving) -> None:
    client = serving(predictor)
    for name, (body, status, error) in MISTAKES.items():
        got, answer = client.post("/predict", body)
        assert got == status and answer["error"].startswith(error) and "\n" not in answer["error"], (name, answer)
    assert client.post("/predict", {"texts": ["a"]}, content_type="text/plain") == (
        422, {"error": "the header content-type (text/plain) must be application/json; see /openapi.json"}
    )  # fmt: skip
    assert client.send("GET", "/nothing") == (404, {"error": "there is no /nothing; see /openapi.json"})
    assert client.send("GET", "/predict") == (405, {"error": "/predict does not take GET; see /openapi.json"})


def test_another_site_s_name_is_refused(predictor: Predictor, serving: Serving) -> None:
    client = serving(predictor)
    for host in ("localhost", "localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert client.send("GET", "/run", host=host)[0] == 200, host
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", ""):
        status, answer = client.send("GET", "/run", host=host)
        assert status == 400 and answer["error"].startswith(f"the header host ({host}) must be one of localhost"), host


def test_what_is_too_large_is_refused(predictor: Predictor, serving: Serving) -> None:
    client = serving(predictor, body_bytes=101, attention_tokens=7)
    right = json.dumps({"texts": ["a"]}).encode()
    assert client.post("/predict", right.ljust(101))[0] == 200
    error = {"error": "the request's body must have at most 101 bytes; send several"}
    assert client.post("/predict", right.ljust(102)) == (413, error)
    assert client.post("/predict", b"x" * 1700) == (413, error)
    assert client.post("/attention", {"text": "abcabc"})[0] == 200  # and [EOS]
    status, answer = client.post("/attention", {"text": "abcabca"})
    assert status == 422 and answer["error"].startswith("text must have at most 7 tokens, it has 8")


def raw(port: int, sent: bytes) -> bytes:
    """All that comes back for these bytes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        sock.sendall(sent)
        while received := sock.recv(1 << 16):
            answer += received
    return answer


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"POST /predict HT", b"the request's headers must arrive within 0.5 s"),
        (b"", b"the request's headers must arrive within 0.5 s"),
        (b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{", b"the request's body must arrive"),
    ],
    ids=["headers", "nothing", "body"],
)
def test_what_does_not_arrive_is_answered(predictor: Predictor, serving: Serving, sent: bytes, error: bytes) -> None:
    answer = raw(serving(predictor, seconds=0.5).port, sent)
    assert answer.startswith(b"HTTP/1.1 408 ") and error in answer


def test_what_is_no_http_is_answered(predictor: Predictor, serving: Serving) -> None:
    client = serving(predictor)
    assert raw(client.port, b"\x16\x03\x01hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert client.send("GET", "/run")[0] == 200


class Blocked:
    """Makes a predictor's next predictions wait until `go` is set."""

    def __init__(self, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        plain = Predictor.predict

        def wait(_: Predictor, texts: list[str]) -> list[str]:
            self.begun.set()
            assert self.go.wait(60)
            return plain(predictor, texts)

        monkeypatch.setattr(Predictor, "predict", wait)


def test_an_answer_that_takes_too_long(predictor: Predictor, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked, client = Blocked(predictor, monkeypatch), serving(predictor, seconds=0.5)
    status, answer = client.post("/predict", {"texts": ["a"]})
    assert status == 504 and answer["error"].startswith("no answer within 0.5 s")
    blocked.go.set()
    assert client.post("/predict", {"texts": ["a"]})[0] == 200


def test_a_full_server_says_so(predictor: Predictor, serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked, client = Blocked(predictor, monkeypatch), serving(predictor, requests=1)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(client.post, "/predict", {"texts": ["a"]})
        assert blocked.begun.wait(60)
        status, answer = client.send("GET", "/run")
        blocked.go.set()
        assert first.result()[0] == 200
    assert status == 503 and answer["error"].startswith("the server is busy: 1 requests at once")
    assert client.send("GET", "/run")[0] == 200


def test_a_failure_of_ours_is_no_traceback_for_others(
    predictor: Predictor, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Predictor, texts: list[str]) -> list[str]:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(Predictor, "predict", fail)
    client = serving(predictor)
    assert client.post("/predict", {"texts": ["a"]}) == (
        500, {"error": "the server failed (ZeroDivisionError); its log says where"}
    )  # fmt: skip
    assert client.send("GET", "/run")[0] == 200
