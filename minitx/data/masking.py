"""Hide tokens for a model to guess (masked language modelling, Devlin et al. 2019, section 3.1).

Which tokens are hidden, and what replaces them, is decided by a hash of (row, position, salt) instead of a random
generator. So the same tokens are hidden however rows are batched, on any device, and in a run that was killed and
resumed. The salt is fixed in evaluation and differs between epochs of training, in each of which a row occurs once.
How many tokens a batch hides is known on the host, from counts, so that nothing here waits for the device.

Letters in shapes: B rows, S length, N hidden tokens.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from minitx.batch import IGNORED, SPECIAL_TOKENS, UNK, Batch
from minitx.config import MaskingConfig
from minitx.data.splits import IntArray, Split

FIRST_ORDINARY = len(SPECIAL_TOKENS)
WORD = (1 << 32) - 1
FATE, REPLACEMENT = 1, 2
"""Change a token's hash for two further draws: what happens to it, and what replaces it."""


class Masker:
    """Hides, of each row with n ordinary tokens, exactly max(1, round(rate * n)) of them, or none where n is 0."""

    def __init__(self, split: Split, config: MaskingConfig, vocab: int, seed: int = 0) -> None:
        """split: the one whose rows are batched. vocab: ids below it stand in for hidden tokens. seed: of training."""
        self.config, self.vocab, self.seed = config, vocab, seed
        self.n_hidden: IntArray = np.asarray(n_hidden(ordinary_tokens(split), config.rate))
        """(rows,) int64: hidden tokens of each row of the split."""

    def __call__(self, batch: Batch, rows: IntArray, epoch: int | None = None, target_step: int | None = None) -> Batch:
        """The batch with hidden tokens as its targets.

        rows: its row numbers, on the host (without rows that only fill it up). epoch: of training; None = evaluation.
        target_step: fill the targets up to a multiple of it; None = no filling.
        """
        n_real = int(self.n_hidden[rows].sum())
        key_BS = _keys(batch, _salt(self.seed, epoch))
        index_N = self._choose(
            batch.src, key_BS, n_real if target_step is None else -(-n_real // target_step) * target_step
        )
        targets_N = batch.src.flatten()[index_N]
        targets_N[n_real:] = IGNORED
        hidden_N = self._replacements(batch.src.flatten()[index_N], key_BS.flatten()[index_N])
        src = batch.src.flatten().index_copy(0, index_N[:n_real], hidden_N[:n_real]).view_as(batch.src)
        filled = None if target_step is None else n_real
        return replace(batch, src=src, targets=targets_N, target_index=index_N, n_real=filled)

    def _choose(self, src_BS: Tensor, key_BS: Tensor, size: int) -> Tensor:
        """(N,) ascending places in the flattened (B * S): of each row the ordinary tokens with the smallest keys."""
        length, ordinary_BS = src_BS.shape[1], src_BS >= FIRST_ORDINARY
        position_S = torch.arange(length, device=src_BS.device)
        # Equal keys go by position; what is not ordinary comes last.
        order_BS = (key_BS * length + position_S).masked_fill(~ordinary_BS, 1 << 62).argsort(dim=1)
        count_B = ordinary_BS.sum(1).double()
        first_BS = position_S < _n_hidden(count_B, self.config.rate)[:, None]
        chosen_BS = torch.zeros_like(ordinary_BS).scatter(1, order_BS, first_BS)
        return torch.nonzero_static(chosen_BS.flatten(), size=size, fill_value=0)[:, 0]

    def _replacements(self, ids_N: Tensor, key_N: Tensor) -> Tensor:
        """(N,) what the model reads instead of hidden tokens: [UNK], a random ordinary token, or the token itself."""
        fate_N = mix(key_N ^ FATE)
        random_N = FIRST_ORDINARY + mix(key_N ^ REPLACEMENT) % max(1, self.vocab - FIRST_ORDINARY)
        unknown, random = (int(share * (WORD + 1)) for share in (self.config.unknown, self.config.random))
        replaced_N = torch.where(fate_N < unknown + random, random_N, ids_N)
        return replaced_N.masked_fill(fate_N < unknown, UNK)


def ordinary_tokens(split: Split) -> IntArray:
    """(rows,) int64: the number of tokens of each row that are not special."""
    return split.src.count(lambda token: token >= FIRST_ORDINARY)


def n_hidden(counts: IntArray, rate: float) -> IntArray:
    """(rows,) int64: how many tokens of each row are hidden. counts: its ordinary tokens. Halves round to even."""
    return np.asarray(_n_hidden(torch.from_numpy(counts.astype(np.float64)), rate).numpy().astype(np.int64))


def _n_hidden(counts: Tensor, rate: float) -> Tensor:
    """In float64, so that host and device round alike."""
    return torch.minimum((counts * rate).round().clamp(min=1), counts)


def _salt(seed: int, epoch: int | None) -> int:
    """0 for evaluation, whatever the seed; in training one for each epoch of each seed."""
    if epoch is None:
        return 0
    inside = mix(torch.tensor(seed & WORD) ^ mix(torch.tensor(epoch + 1)))
    return int(inside) | 1 << 31  # never 0


def _keys(batch: Batch, salt: int) -> Tensor:
    """(B, S) int64 below 2^32: a hash of row, position and salt."""
    position_S = torch.arange(batch.src.shape[1], device=batch.src.device)
    return mix(mix(batch.rows ^ salt)[:, None] ^ mix(position_S + 1))


def mix(x: Tensor) -> Tensor:
    """A bijection of 32-bit numbers in which every bit depends on every other (found by hash-prospector's search).

    Both factors are below 2^31, so that no product leaves int64.
    """
    x = x & WORD
    x = ((x ^ x >> 16) * 0x21F0AAAD) & WORD
    x = ((x ^ x >> 15) * 0x735A2D97) & WORD
    return x ^ x >> 15
