"""Dotted overrides on top of a configuration that is typed already: a run that goes on, or is judged on other data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import yaml

from minitx.config import Config, ConfigError
from minitx.parse import load


def override(config: Config, overrides: Sequence[str]) -> Config:
    """`config` with dotted overrides (`trainer.max_epochs=20`, values in YAML) on top, typed again."""
    return override_tree(config.model_dump(mode="json"), overrides)


def override_tree(tree: dict[str, Any], overrides: Sequence[str]) -> Config:
    """`override` of a configuration that is still a plain tree, and is changed."""
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"{text} must be of the form key=value")
        *sections, last = key.lstrip("+").split(".")
        place = tree
        for section in sections:
            inner = place.setdefault(section, {})
            place[section] = place = inner if isinstance(inner, dict) else {}
        place[last] = _scalar(value)
    return load(tree)


def _scalar(text: str) -> Any:
    """YAML, but `1e-3` is a number, as Hydra has it."""
    value = yaml.safe_load(text)
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value
