"""Plain nested mappings and dotted overrides to the typed configuration; every mistake is one line.

Hydra composes `conf/`; `load` types the result once. `override` puts dotted keys on top of a configuration that is
typed already: a run that goes on, or is evaluated on other data.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import yaml
from pydantic import ValidationError

from minitx.config import MODELS, Config, ConfigError, rule
from minitx.config.base import dotted_keys, in_one_line


def load(raw: Mapping[str, Any]) -> Config:
    """Type a plain nested mapping strictly; every mistake is one `ConfigError` line that names the dotted key."""
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_word(error.errors()[0])) from None


def error_line(error: ValidationError, section: str) -> str:
    """The first of pydantic's errors on `section`, which is no part of a run's configuration, in the one shape."""
    first = error.errors()[0]
    return _word({**first, "loc": (section, *first["loc"])})


def _word(error: Any) -> str:
    """One pydantic error in our own shape."""
    place = [str(part) for part in error["loc"] if part not in ("int", "float")]
    model = place.pop(1) if place[:1] == ["model"] and len(place) > 1 else None  # pydantic names the choice there
    key, kind, value, context = ".".join(place), error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return unknown_key(key, model)
    if kind == "union_tag_invalid":
        return str(rule("model.kind", context["tag"], f"be one of {', '.join(MODELS)}"))
    if kind == "value_error":
        return str(context["error"])
    if kind == "missing":
        return f"{key} is missing; it has no default"
    if kind == "literal_error":
        return str(rule(key, value, f"be one of {context['expected']}", _nearest_hint(str(value), context["expected"])))
    return str(rule(key, value, _rule_of(error["msg"])))


def _rule_of(message: str) -> str:
    """'Input should be greater than 0' -> 'be greater than 0'."""
    return message.removeprefix("Input should ").replace("a valid integer", "an integer").replace("a valid ", "a ")


def _nearest_hint(value: str, expected: str) -> str:
    close = difflib.get_close_matches(value, expected.replace("'", "").replace(" or ", ", ").split(", "), n=1)
    return f"did you mean {close[0]}?" if close else ""


def unknown_key(key: str, model: str | None = None) -> str:
    """`unknown key 'model.d_mdoel'; did you mean 'model.d_model'?`

    model: the kind of model that has been chosen, where it is known.
    """
    key = in_one_line(key)
    section, _, last = key.rpartition(".")
    having = [kind for kind, its in MODELS.items() if key in set(dotted_keys(its, "model."))]
    if having:
        chosen = f"model={model}" if model else "this model"
        return f"unknown key '{key}' of {chosen}; only model={' and '.join(having)} has it"
    leaves: dict[str, list[str]] = {}
    for known in dotted_keys(Config):
        leaves.setdefault(known.rpartition(".")[2], []).append(known)
    close = [k for leaf in difflib.get_close_matches(last, leaves, n=1, cutoff=0.6) for k in leaves[leaf]]
    close.sort(key=lambda known: known.rpartition(".")[0] != section)  # the same section first
    hint = f"did you mean '{close[0]}'?" if close else "`python train.py --cfg job` prints every key"
    return f"unknown key '{key}'; {hint}"


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections to dotted keys."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        out |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return out


def override(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with dotted overrides (`trainer.max_epochs=20`, values in YAML) on top, typed again."""
    return override_tree(config.model_dump(mode="json"), overrides)


def override_tree(tree: dict[str, Any], overrides: Sequence[str]) -> Config:
    """`override` of a configuration that is still a plain tree, and is changed."""
    for text in overrides:
        if re.search("[\ud800-\udfff]", text):
            raise ConfigError(f"{text!a} must be text that UTF-8 can spell")
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(in_one_line(f"{text} must be of the form key=value"))
        *sections, last = key.lstrip("+").split(".")
        place = tree
        for section in sections:
            inner = place.setdefault(section, {})
            place[section] = place = inner if isinstance(inner, dict) else {}
        place[last] = _value(key, value)
    return load(tree)


LONGEST_SHOWN = 60
"""Characters of a value in a message."""


class _Words(yaml.SafeLoader):  # type: ignore[misc]
    """YAML as Hydra has it: true and false alone are truth values; yes, no, on and off are words."""


_Words.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if first not in "yYnNoO" or not tag.endswith(":bool")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _value(key: str, text: str) -> Any:
    """A list, a mapping and what is quoted are YAML, anything else a single value: no part of it is a comment, and
    `1e-3` is a number, as Hydra has it.

    Raises:
        ConfigError: YAML that cannot be read.
    """
    if text.strip()[:1] not in ("[", "{", "'", '"') and (
        set(text) & set("#:\t\n") or text.strip()[:1] in tuple("&*!%@`")
    ):
        return text
    try:
        value = _Words(text).get_single_data()
    except (yaml.YAMLError, ValueError, RecursionError):
        shown = f"{key}={text}" if len(text) <= LONGEST_SHOWN else f"{key}={text[:LONGEST_SHOWN]}…"
        raise ConfigError(
            in_one_line(shown) + " must be of the form key=value; quote special characters: 'key=\"...\"'"
        ) from None
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value
