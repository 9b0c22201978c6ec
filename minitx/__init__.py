"""minitx: a small trainable Transformer toolkit built on its own multi-head attention.

Importing the package is cheap and changes nothing in the process; `load` brings torch in when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minitx.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(run: str, device: str = "auto") -> Predictor:
    """Load a trained run (the folder that `python train.py` printed) for prediction, evaluation and inspection."""
    from minitx.predictor import Predictor

    return Predictor.from_run(run, device=device)
