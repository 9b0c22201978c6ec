"""The application: the page, `/predict`, `/attention`, `/run`, and `/openapi.json`, which describes them.

Every error is `{"error": "one line"}`. The model computes in one thread (see `batcher.py`), so that heads which one
request switches off are on again before the next one's turn.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from minitx.analysis.attention_maps import Inspection
from minitx.analysis.head_maps import LayerId
from minitx.analysis.page import Live, inspect_page, inspection_json
from minitx.config.base import in_one_line
from minitx.predictor import Predictor
from minitx.serve.batcher import Batcher, BusyError
from minitx.serve.limits import LimitRequests, Limits, LocalRequests
from minitx.serve.schemas import (
    AnswerReply,
    AttentionReply,
    AttentionRequest,
    ErrorReply,
    Prediction,
    PredictReply,
    PredictRequest,
    RunReply,
)

MAX_BATCH = 1024
"""Texts that go through the model together."""
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply} for status in (400, 404, 405, 408, 413, 422, 500, 503, 504)
}


def make_app(
    predictor: Predictor,
    limits: Limits,
    *,
    local: bool = True,
    example: str = "",
    prepare: Callable[[], None] | None = None,
) -> FastAPI:
    """local: answer only requests that name this machine as their host. example: a text that the page begins with.
    prepare: called once in the model's thread."""
    service = Service(predictor, limits, prepare)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.batcher.close()

    app = FastAPI(
        title=f"minitx: {predictor.folder.path.name}",
        version=version("minitx"),
        description="A trained run: predictions and attention.",
        docs_url=None,  # these two load their scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses=ERRORS,
    )
    page = service.page(example)
    app.get("/", response_class=HTMLResponse, include_in_schema=False)(lambda: HTMLResponse(page))
    app.get("/run", summary="What is served")(service.run)
    app.post("/predict", summary="Label or translate texts")(service.predict)
    app.post("/attention", summary="A text's attention", responses={200: {"model": AttentionReply}})(service.attention)
    for error, handler in ((RequestValidationError, _invalid), (HTTPException, _refused), (BusyError, _busy)):
        app.add_exception_handler(error, handler)
    app.add_exception_handler(Exception, _failed)
    if local:
        app.add_middleware(LocalRequests)
    app.add_middleware(LimitRequests, limits=limits)
    return app


class Service:
    """What the paths do with one run."""

    def __init__(self, predictor: Predictor, limits: Limits, prepare: Callable[[], None] | None = None) -> None:
        self.predictor, self.limits = predictor, limits
        self.batcher: Batcher[int, Prediction] = Batcher(
            self._predictions, max_batch=MAX_BATCH, max_waiting=limits.waiting_texts, prepare=prepare
        )

    def page(self, example: str) -> str:
        """The inspect page, empty, with a field to type into."""
        name, subtitle = self.predictor.folder.path.name, self.predictor.subtitle()
        return inspect_page([], title=name, subtitle=subtitle, live=Live(example=example))

    async def run(self) -> RunReply:
        processor = self.predictor.processor
        assert processor.task != "masked", "a run without answers is not served"
        return RunReply(
            run=self.predictor.folder.path.name,
            version=version("minitx"),
            task=processor.task,
            labels=None if processor.label_names is None else [*processor.label_names],
            max_tokens=processor.max_length,
        )

    async def predict(self, request: PredictRequest) -> PredictReply:
        return PredictReply(predictions=await self.batcher.submit(request.texts, request.answers))

    async def attention(self, request: AttentionRequest) -> JSONResponse:
        # Not through the model of the reply: a map has as many numbers as the text's tokens, squared.
        return JSONResponse(await self.batcher.alone(lambda: self._attention(request)))

    def _predictions(self, texts: list[str], n_answers: int) -> list[Prediction]:
        """In the model's thread."""
        outputs, some_cut = self.predictor.predict(texts), self.predictor.n_cut(texts) > 0
        answers = self.predictor.likeliest(texts, n_answers) if n_answers else [[] for _ in texts]
        return [
            Prediction(
                output=output,
                answers=[AnswerReply(text=a.text, probability=a.probability) for a in best],
                cut=some_cut and self.predictor.n_cut([text]) > 0,
            )
            for text, output, best in zip(texts, outputs, answers, strict=True)
        ]

    def _attention(self, request: AttentionRequest) -> dict[str, Any]:
        """In the model's thread."""
        n_tokens = int(self.predictor.processor.encode([request.text]).lengths[0])
        if n_tokens > self.limits.attention_tokens:
            limit = f"at most {self.limits.attention_tokens} tokens, it has {n_tokens:,}"
            raise HTTPException(422, f"text must have {limit}; send a part of it, or use minitx inspect")
        off = [(LayerId(head.kind, head.layer), head.head) for head in request.off]
        try:
            [found] = self.predictor.inspections([request.text], off=off, effects=request.effects)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        shown = inspection_json(found)
        if request.encoding == "numbers":
            _write_numbers(shown, found)
        return {**shown, "n_tokens": n_tokens, "cut": self.predictor.n_cut([request.text]) > 0}


def _write_numbers(shown: dict[str, Any], found: Inspection) -> None:
    for view, of in zip(shown["views"], found.views, strict=True):
        maps = {name: getattr(of, name) for name in ("weights", "value_weighted", "rollout", "relevance")}
        view.update({name: np.round(x.astype(float), 4).tolist() for name, x in maps.items() if x is not None})


# -------------------------------------------------------------------------------------------------------------- errors


def _invalid(request: Request, error: Exception) -> JSONResponse:
    """422: the first thing that is wrong with a request, and where."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    sent = request.headers.get("content-type", "none")
    if first["type"] == "json_invalid":
        line = f"the body must be JSON ({first['ctx']['error']} at character {first['loc'][-1]})"
    elif "json" not in sent:
        line = f"the header content-type ({sent}) must be application/json"
    else:
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
        line = f"{where}: {first['msg']}"
    return JSONResponse({"error": in_one_line(f"{line}; see /openapi.json")}, 422)


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    line = {
        400: "the body must be JSON in UTF-8",  # of which the parser says no more
        404: f"there is no {request.url.path}; see /openapi.json",
        405: f"{request.url.path} does not take {request.method}; see /openapi.json",
    }.get(error.status_code, error.detail)
    return JSONResponse({"error": in_one_line(line)}, error.status_code, error.headers)


def _busy(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": f"{error}; try again in a moment"}, 503, {"retry-after": "1"})


def _failed(_: Request, error: Exception) -> JSONResponse:
    """500. The server's own log has the rest."""
    return JSONResponse({"error": f"the server failed ({type(error).__name__}); its log says where"}, 500)
