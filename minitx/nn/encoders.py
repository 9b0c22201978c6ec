"""The encoders a classifier can have and the decoders a translator can have, each behind one call."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from minitx.config import BagConfig, CnnConfig, LstmConfig, NetConfig, TransformerConfig
from minitx.nn.attention.cache import StepCache
from minitx.nn.baselines.bag import BagEncoder, NgramTable
from minitx.nn.baselines.cnn import ConvEncoder
from minitx.nn.baselines.lstm import LstmDecoder, LstmEncoder
from minitx.nn.layers import token_table
from minitx.nn.transformer import Decoder, Encoder


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
