"""What every section of the configuration is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from minitx.errors import ConfigError


class Section(BaseModel):
    """Base of every section: frozen, strict types, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def rule(key: str, value: object, must: str, remedy: str = "") -> ConfigError:
    """The one shape of a configuration error."""
    shown = "null" if value is None else value
    return ConfigError(f"{key} ({shown}) must {must}" + (f"; {remedy}" if remedy else ""))
