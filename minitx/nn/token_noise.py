"""Token and word dropout: source tokens that training does not get to read.

Letters in shapes: B rows, S source length, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.batch import SPECIAL_TOKENS, UNK


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
