"""Errors that are told in one line, without a traceback; `exit_code` is the process's."""

from __future__ import annotations


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
