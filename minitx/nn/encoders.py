"""The encoders a classifier can have, behind one call, and the token table that goes with each.

Letters in shapes: B rows, S source length, D model width.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from minitx.config import BagConfig, CnnConfig, LstmConfig, NetConfig, TransformerConfig
from minitx.nn.bag import BagEncoder, NgramTable
from minitx.nn.convolution import ConvEncoder
from minitx.nn.linear import token_table
from minitx.nn.recurrent import LstmEncoder
from minitx.nn.stacks import Encoder


class TextEncoder(Protocol):
    """What every encoder does."""

    def __call__(
        self, tokens: Tensor, key_mask: Tensor | None = None, sentence: Tensor | None = None, first_only: bool = False
    ) -> Tensor:
        """Embedded tokens (B, S, D) -> states (B, S, D). key_mask: (B, S) bool, True = real token, None = none is
        padded; sentence: (B, S) numbers. first_only: a pooling of `FIRST` follows, which reads position 0 alone."""
        ...


def make_encoder(config: NetConfig, max_length: int) -> nn.Module:
    """A new `TextEncoder`. max_length: tokens of the longest text."""
    match config:
        case TransformerConfig():
            return Encoder(config, max_length if config.chunk is None else min(config.chunk, max_length))
        case CnnConfig():
            return ConvEncoder(config)
        case LstmConfig():
            return LstmEncoder(config)
        case BagConfig():
            return BagEncoder(config)
    raise TypeError(f"no encoder for {type(config).__name__}")


def make_token_table(config: NetConfig, vocab: int) -> nn.Module:
    """Ids (B, S) -> embedded tokens (B, S, D)."""
    return NgramTable(config, vocab) if isinstance(config, BagConfig) else token_table(vocab, config.d_model)
