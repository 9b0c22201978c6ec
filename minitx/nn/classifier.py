"""A text to one logit per class: token noise, chunks of long texts, encoder, pooling, head.

Letters in shapes: B rows, S source length, D model width, N real targets, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.batch import SPECIAL_TOKENS, UNK, Batch
from minitx.config import NetConfig
from minitx.nn.encoders import make_encoder, make_token_table
from minitx.nn.layers import xavier_linear
from minitx.nn.losses import r_drop_loss, summed_cross_entropy
from minitx.nn.pooling import FIRST, Pooling


class TokenNoise(nn.Module):
    """In training, some tokens are read as [UNK]: single ones, and words with all their tokens (Iyyer et al. 2015, who
    leave the words of a text out; here they keep their places). Special tokens stay.

    A word begins at each token that `starts_V` names.
    """

    def __init__(self, token_rate: float, word_rate: float) -> None:
        super().__init__()
        self.token_rate, self.word_rate = token_rate, word_rate
        self.starts_V: Tensor | None
        self.register_buffer("starts_V", None, persistent=False)

    def learn_words(self, starts_V: Tensor) -> None:
        """(V,) bool, True = the token begins a word. Needed for word dropout in training alone."""
        self.starts_V = starts_V

    def forward(self, ids_BS: Tensor) -> Tensor:
        """(B, S) ids -> (B, S) ids."""
        if not self.training or not (self.token_rate or self.word_rate):
            return ids_BS
        dropped_BS = _draw(ids_BS, self.token_rate)
        if self.word_rate:
            assert self.starts_V is not None, "word dropout is told where words begin"
            words_BS = self.starts_V[ids_BS].cumsum(1)  # from 0, or from 1 where the first token begins a word, to S
            dropped_BS = dropped_BS | _draw(F.pad(ids_BS, (0, 1)), self.word_rate).gather(1, words_BS)
        return ids_BS.masked_fill(dropped_BS & (ids_BS >= len(SPECIAL_TOKENS)), UNK)

    def extra_repr(self) -> str:
        return f"token_rate={self.token_rate}, word_rate={self.word_rate}"


def _draw(ids_BS: Tensor, rate: float) -> Tensor:
    """(B, S) bool, True with probability `rate`."""
    return torch.rand(ids_BS.shape, device=ids_BS.device) < rate


@dataclass(frozen=True, eq=False)
class SourceRows:
    """What an encoder reads of a batch: (B, S), or with chunks (B * chunks, K)."""

    ids: Tensor
    mask: Tensor | None
    """bool, True = real token; None = none is padded."""
    sentence: Tensor | None

    @property
    def real(self) -> Tensor:
        """The mask, always."""
        return torch.ones_like(self.ids, dtype=torch.bool) if self.mask is None else self.mask


def source_rows(batch: Batch, chunk: int | None) -> SourceRows:
    """The texts of a batch, those longer than a chunk cut. chunk: None = all whole.

    An exported program is for any number of whole chunks, and cuts one as well.
    """
    rows = SourceRows(batch.src, batch.src_mask, batch.sentence)
    if chunk is None or (not torch.compiler.is_exporting() and batch.src.shape[1] <= chunk):
        return rows
    sentence = None if batch.sentence is None else folded(batch.sentence, chunk)
    return SourceRows(folded(batch.src, chunk), folded(rows.real, chunk), sentence)


def folded(x_BS: Tensor, chunk: int) -> Tensor:
    """(B, S) -> (B * chunks, K): a row's chunks one after another, the last filled up with zeros (PAD, False)."""
    if not torch.compiler.is_exporting():  # whose texts are filled up already
        x_BS = F.pad(x_BS, (0, -x_BS.shape[1] % chunk))
    n_rows, length = x_BS.shape
    return x_BS.view(n_rows * (length // chunk), chunk)


def unfolded(states: Tensor, n_rows: int, length: int) -> Tensor:
    """(B * chunks, K, D) -> (B, S, D), the filling left out."""
    return states.reshape(n_rows, -1, states.shape[-1])[:, :length]


READER = ("src_tokens.", "encoder.")
"""Beginnings of the names of its weights, in every model that is one."""


class TextReader(nn.Module):
    """A text -> the state of each token. Models differ in the encoder (and the token table that goes with it) alone."""

    def __init__(self, config: NetConfig, src_vocab: int, max_length: int) -> None:
        super().__init__()
        self.chunk = None if config.chunk is None or config.chunk >= max_length else config.chunk
        self.noise = TokenNoise(config.token_dropout, config.word_dropout)
        self.src_tokens = make_token_table(config, src_vocab)
        self.encoder = make_encoder(config, max_length)

    def states(self, batch: Batch, first_only: bool = False) -> Tensor:
        """(B, S, D): the encoder's state of each token, of each chunk by itself; (B, 1, D) with first_only."""
        ids = self.noise(batch.src)
        rows = source_rows(replace(batch, src=ids), self.chunk)
        states: Tensor = self.encoder(self.src_tokens(rows.ids), rows.mask, rows.sentence, first_only)
        return states if rows.ids is ids else unfolded(states, *ids.shape)


class Classifier(TextReader):
    """A text -> one logit per class."""

    def __init__(self, config: NetConfig, src_vocab: int, n_classes: int, max_length: int) -> None:
        super().__init__(config, src_vocab, max_length)
        self.pooling = Pooling(config.pooling, config.d_model)
        self.head = xavier_linear(config.d_model, n_classes)
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, batch: Batch) -> Tensor:
        """(N, C) logits, N = B, divided by the temperature: 1 until `trainer.calibrate` has fitted another."""
        logits: Tensor = self.head(self.features(batch))
        return logits / self.temperature

    def loss(self, batch: Batch, label_smoothing: float = 0.0, r_drop: float = 0.0) -> Tensor:
        """Scalar: the cross-entropy summed over the texts; with r_drop, its alpha, `r_drop_loss` of two passes."""
        if r_drop:
            return r_drop_loss(self(batch), self(batch), batch.targets, r_drop, label_smoothing)
        return summed_cross_entropy(self(batch), batch.targets, label_smoothing)

    def features(self, batch: Batch) -> Tensor:
        """(B, D): the pooled state that the head reads."""
        pooled: Tensor = self.pooling(self.states(batch, self.pooling.kind in FIRST), batch.src_mask)
        return pooled
