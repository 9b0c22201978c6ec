"""What the server reads and writes, as pydantic models: the OpenAPI schema is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from minitx.serve.limits import Limits

LIMITS = Limits()
"""Those of them that the schema states; they are no options of the command."""
Encoding = Literal["numbers", "bytes"]


def _whole_characters(text: str) -> str:
    """JSON can write halves of characters (lone surrogates, as "\\ud800"), which no text in UTF-8 has."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("a text must consist of whole characters, not of halves of surrogate pairs")
    return text


Text = Annotated[str, AfterValidator(_whole_characters)]


class Strict(BaseModel):
    """A request: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Reply(BaseModel):
    """An answer."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class ErrorReply(Reply):
    """What is wrong, in one line."""

    error: str


class PredictRequest(Strict):
    """Texts to label or translate."""

    texts: Annotated[list[Text], Field(min_length=1, max_length=LIMITS.texts)]
    answers: Annotated[int, Field(ge=0, le=LIMITS.answers)] = 0
    """How many of the likeliest labels, or of the best translations of a beam, to give with their probabilities."""


class AnswerReply(Reply):
    """One of the likeliest outputs."""

    text: str
    probability: float
    """Of the class; of a translation, of all its tokens and its end."""


class Prediction(Reply):
    """Of one text."""

    output: str
    """The label, or the translation, as `minitx predict` gives it."""
    answers: list[AnswerReply]
    """Best first; empty where none were asked for."""
    cut: bool
    """Whether the text is longer than the model reads, and was cut."""


class PredictReply(Reply):
    """In the order of the texts."""

    predictions: list[Prediction]


class HeadName(Strict):
    """One head; layers and heads are counted from 0."""

    kind: Literal["encoder", "decoder", "cross"]
    layer: Annotated[int, Field(ge=0)]
    head: Annotated[int, Field(ge=0)]


class AttentionRequest(Strict):
    """A text to look into."""

    text: Text
    off: Annotated[list[HeadName], Field(max_length=4096)] = []
    """Heads that are switched off."""
    effects: bool = False
    """Also `loss_without`, one pass for each head; not with `off`."""
    encoding: Encoding = "bytes"
    """How maps are written: nested lists [layer][head][query][key] of numbers rounded to 4 decimals, or base64 text of
    one byte for each, 255 times its square root."""


class ViewReply(Reply):
    """One kind of attention."""

    kind: Literal["cross", "encoder", "decoder", "pooling"]
    title: str
    caption: str
    layers: int
    heads: int
    queries: list[str]
    """Tokens that read."""
    keys: list[str]
    """Tokens that are read."""
    weights: str | list[Any]
    """Every row over the keys sums to 1."""
    value_weighted: str | list[Any] | None
    """Shares of |weight * value W_O|, Kobayashi et al. (2020); rows sum to 1; null of attention without heads."""
    loss_without: list[list[float]] | None
    """[layer][head]: rise of the loss of the model's own output without the head, nats per target."""
    rollout: str | list[Any] | None
    """[layer][query][key], after each layer: attention rollout, Abnar & Zuidema (2020); rows sum to 1; null of what is
    not self-attention."""
    relevance: str | list[Any] | None
    """The same: gradient-weighted relevance, Chefer et al. (2021), as shares of the row; a row is 0 where none came."""
    before: str
    corner: str


class AttentionReply(Reply):
    """A text, the model's output for it, and its attention."""

    text: str
    output: str
    answers: list[AnswerReply]
    views: list[ViewReply]
    """Empty of a model without attention."""
    n_tokens: int
    cut: bool
    """Whether the text is longer than the model reads, and was cut."""


class RunReply(Reply):
    """What is served."""

    run: str
    version: str
    task: Literal["classification", "translation"]
    labels: list[str] | None
    """Of a classifier."""
    max_tokens: int
    """That the model reads of a text."""
