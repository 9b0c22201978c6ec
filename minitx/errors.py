"""Errors that are told in one line, without a traceback; `exit_code` is the process's."""

from __future__ import annotations

import re

USED_UP = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Words of torch, whose errors on a CPU have no class of their own."""


class ConfigError(ValueError):
    """A user's mistake, worded as `<dotted.key> (<value>) must <rule>; <remedy>`, on one line."""

    exit_code = 2


class RunError(RuntimeError):
    """A run that cannot go on: what happened, where, and what to do, on one line."""

    exit_code = 1


class Stopped(BaseException):
    """A run was asked to stop and has saved. Like KeyboardInterrupt it also ends a sweep, so it is no Exception."""

    def __init__(self, line: str, exit_code: int) -> None:
        super().__init__(line)
        self.exit_code = exit_code


def first_line(error: object) -> str:
    """What to record of an error: the line for memory that is used up, else the first line of its own words."""
    used_up = memory_line(error) if isinstance(error, BaseException) else None
    return used_up or (str(error) or repr(error)).splitlines()[0]


def memory_line(error: BaseException) -> str | None:
    """What to tell of an error that says that memory is used up, in one line; None for another error."""
    text = str(error)
    if not isinstance(error, MemoryError) and not (isinstance(error, RuntimeError) and any(w in text for w in USED_UP)):
        return None
    whose = "the GPU" if "CUDA" in text or "CUBLAS" in text else "this machine"
    asked = re.search(r"allocate ([\d.]+ ?\w+)", text)
    return (
        f"the memory of {whose} is used up{f' ({asked[1]} more were asked for)' if asked else ''}; half of "
        f"trainer.batch_tokens with twice trainer.accumulate trains the same steps in less, or take a smaller model"
    )
