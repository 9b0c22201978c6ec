"""What every section of the configuration is made of: strict frozen models, and a role for each key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from minitx.errors import ConfigError

Role = Literal[
    "result", "source", "seed", "size", "head", "noise", "duration", "evaluation", "place", "machine", "logging"
]
"""What kind of key one is. These determine the result, and so the hash in a run folder's name:

    result      everything without another role
    source      which examples of a data set are read, and how they are laid out; `data.name` stands for them in tables
    seed        of initialisation and order, or of what is drawn to be trained on
    size        how many weights a model has
    head        what comes after a classifier's encoder, or a translator's: the same choice is there in most models
    noise       what is random in training alone, such as dropout
    duration    how long a run lasts: it may be continued with another value
    evaluation  how a finished run is evaluated: as duration

and these do not:

    place       where files are, and how they are checked
    machine     what computes, and how fast: equal results but for rounding (device and precision, once `auto` is
                resolved, are in the hash beside the configuration)
    logging     what is shown and stored on the way
"""


class Section(BaseModel):
    """Base of every section: frozen, strict types, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def setting(default: Any, role: Role = "result", **limits: Any) -> Any:
    """A key with its default, role and limits (`ge=1`), as pydantic's Field."""
    return Field(default, json_schema_extra={"role": role}, **limits)


def keys_with_role(section: type[BaseModel], *roles: Role, prefix: str = "") -> tuple[str, ...]:
    """The dotted keys of a section that have one of these roles; what lies inside such a key is not listed again."""
    found: dict[str, None] = {}
    for name, field in section.model_fields.items():
        if role_of(field) in roles:
            found[prefix + name] = None
            continue
        for inner in _sections(field.annotation):
            found |= dict.fromkeys(keys_with_role(inner, *roles, prefix=f"{prefix}{name}."))
    return tuple(found)


def role_of(field: FieldInfo) -> str:
    """The role that a key was declared with."""
    extra = field.json_schema_extra
    return str(extra["role"]) if isinstance(extra, dict) and "role" in extra else "result"


def dotted_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a section and of those inside it."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in dict.fromkeys(k for part in _sections(field.annotation) for k in dotted_keys(part)):
            yield f"{prefix}{name}.{inner}"


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field's type allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _sections(part)


def rule(key: str, value: object, must: str, remedy: str = "") -> ConfigError:
    """The one shape of a configuration error."""
    shown = "null" if value is None else value
    line = f"{key} ({shown}) must {must}" + (f"; {remedy}" if remedy else "")
    return ConfigError(in_one_line(line))


def in_one_line(text: str) -> str:
    """Line breaks written out, whoever typed them."""
    return text.replace("\n", "\\n").replace("\r", "\\r")
