"""A bag of tokens and n-grams: what a text contains, and nearly nothing of the order.

Letters in shapes: B rows, S length, D model width, N longest n-gram.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from minitx.config import BagConfig
from minitx.nn.layers import Dropout

MULTIPLIER = 1_000_003
"""Spreads neighbouring ids over the buckets."""


class NgramTable(nn.Module):
    """Token ids -> at each position the embeddings of the token and of the n-grams that end there, summed, over N.

    An n-gram's row is a hash of its ids (Joulin et al. 2017, section 2.1); n-grams that meet in one bucket share it.
    The n-grams start at zero: one that training shows seldom then says little. (fastText draws them small instead.)
    """

    def __init__(self, config: BagConfig, vocab: int) -> None:
        super().__init__()
        self.ngrams, self.buckets = config.ngrams, config.buckets
        self.tokens = nn.Embedding(vocab, config.d_model)
        nn.init.uniform_(self.tokens.weight, -1 / config.d_model, 1 / config.d_model)
        self.grams = nn.Embedding(config.buckets, config.d_model) if config.ngrams > 1 else None
        if self.grams is not None:
            nn.init.zeros_(self.grams.weight)

    def forward(self, ids_BS: Tensor) -> Tensor:
        """(B, S) -> (B, S, D)."""
        total: Tensor = self.tokens(ids_BS)
        if self.grams is None:
            return total
        hashes_BS = ids_BS
        for n in range(2, self.ngrams + 1):
            hashes_BS = hashes_BS[:, 1:] * MULTIPLIER + ids_BS[:, : 1 - n]
            found_BSD = self.grams((hashes_BS * MULTIPLIER + n) % self.buckets)
            total = total + F.pad(found_BSD, (0, 0, ids_BS.shape[1] - found_BSD.shape[1], 0))
        return total / self.ngrams


class BagEncoder(nn.Module):
    """Embedded tokens -> the same, each by itself."""

    def __init__(self, config: BagConfig) -> None:
        super().__init__()
        self.dropout = Dropout(config.dropout)

    def forward(
        self, tokens: Tensor, key_mask: Tensor | None = None, sentence: Tensor | None = None, first_only: bool = False
    ) -> Tensor:
        """(B, S, D) -> (B, S, D); see `TextEncoder`."""
        x: Tensor = self.dropout(tokens)
        return x
