"""What the report says, in the language that is spoken: English as it stands in the code and in the studies' files, or
Chinese, looked up by the English phrase in chinese.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml

Language = Literal["en", "zh"]
_SPOKEN: ContextVar[Language] = ContextVar("language", default="en")


@cache
def chinese() -> Mapping[str, str]:
    """English phrase, or text of a study file -> Chinese, with the same {values}."""
    return dict(yaml.safe_load(files(__package__).joinpath("chinese.yaml").read_text(encoding="utf-8")))


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """A context in which `say` and `told` speak a language."""
    token = _SPOKEN.set(language)
    try:
        yield
    finally:
        _SPOKEN.reset(token)


def spoken() -> Language:
    """The language of this context."""
    return _SPOKEN.get()


def say(phrase: str, **values: object) -> str:
    """A phrase of the report with its values, as in `str.format`.

    Raises:
        KeyError: it has no Chinese, or a value is missing.
    """
    return (phrase if spoken() == "en" or not phrase else chinese()[phrase]).format(**values)


def told(text: str) -> str:
    """A text of a study's file; one that has no Chinese, as those of studies of your own, stays as it is."""
    return chinese().get(text, text) if spoken() == "zh" else text
