"""The `minitx` command: what one does with a trained run. One file per command; `main.py` is the entry."""

from minitx.cli.main import main

__all__ = ["main"]
