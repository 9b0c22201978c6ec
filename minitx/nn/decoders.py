"""The decoders a translator can have, behind one call.

Letters in shapes: B rows, M rows of memory, T target length, S source length, D model width.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from minitx.config import LstmConfig, NetConfig, TransformerConfig
from minitx.nn.cache import StepCache
from minitx.nn.recurrent import LstmDecoder
from minitx.nn.stacks import Decoder


class TextDecoder(Protocol):
    """What every decoder does."""

    max_length: int
    """Tokens of the longest output."""

    def __call__(self, tokens: Tensor, memory: Tensor, src_mask: Tensor | None = None, cache: Any = None) -> Tensor:
        """Embedded tokens (B, T, D) and memory (M, S, D) -> hidden states (B, T, D), which saw no later token.

        src_mask: (M, S) bool, True = real source token, None = none is padded. With M < B each row of memory serves
        B / M rows of tokens, one after another. cache: a `StepCache` of this decoder; `tokens` are then the ones that
        follow those it has seen.
        """
        ...

    def new_cache(self, memory: Tensor) -> StepCache:
        """An empty cache, which holds what steps need of the memory's own rows."""
        ...


def make_decoder(config: NetConfig, max_length: int) -> TextDecoder:
    """A new decoder, an nn.Module. max_length: tokens of the longest target."""
    match config:
        case TransformerConfig():
            return Decoder(config, max_length)
        case LstmConfig():
            return LstmDecoder(config, max_length)
    raise TypeError(f"no decoder for {type(config).__name__}")
