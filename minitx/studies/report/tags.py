"""HTML from text: what is not markup already is escaped wherever it is put, so nothing can be forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = {"img", "br"}


class Html(str):
    """Text that is markup."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | None) -> Html:
    """`<name attributes>children</name>`; `class_` is class, `data_x` is data-x, and None is left out."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    opened = name + "".join(f' {key}="{escape(value)}"' for key, value in named.items())
    return Html(f"<{opened}>" if name in VOID else f"<{opened}>{join(children)}</{name}>")


def join(children: Iterable[str], between: str = "") -> Html:
    """One after the other."""
    return Html(between.join(child if isinstance(child, Html) else escape(child) for child in children))
