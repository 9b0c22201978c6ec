"""MaskedPredictions of hidden tokens, counted for each text, and shown in their places.

Letters in shapes: N hidden tokens, R texts, C tokens of a piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import overload

import numpy as np
import numpy.typing as npt
import torch

from minitx.batch import SPECIAL_TOKENS, Batch
from minitx.data import Split, Tokenizer
from minitx.decoding.inference import most_likely
from minitx.nn.masked import MaskedModel

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedPredictions:
    """Predicted tokens of some texts, text after text and in each from left to right."""

    loss: float
    """Cross-entropy summed over the hidden tokens."""
    offsets: Ints
    """(R + 1,): those of text r are offsets[r] to offsets[r + 1] of the N."""
    position: Ints
    """(N,) place of each in its text."""
    token: Ints
    """(N,) the most likely token."""
    truth: Ints
    """(N,) the token that was there."""

    @property
    def hidden(self) -> Ints:
        """(R,) hidden tokens of each text."""
        return np.asarray(np.diff(self.offsets))

    @property
    def hits(self) -> Ints:
        """(R,) how many of them were predicted rightly."""
        right = np.concatenate([[0], np.cumsum(self.token == self.truth)])
        return np.asarray(np.diff(right[self.offsets]))


def predict_hidden(models: Sequence[MaskedModel], batches: Iterable[Batch]) -> MaskedPredictions:
    """The most likely token at each target of the batches; several models decide by the mean of their probabilities."""
    losses, counts, columns = [], [], []
    for batch in batches:
        assert batch.target_index is not None, "a masked model's batch says which tokens are hidden"
        log_prob_N, token_N = most_likely(models, batch)
        row_N, position_N = batch.target_index // batch.src.shape[1], batch.target_index % batch.src.shape[1]
        losses.append(log_prob_N.double().sum())
        counts.append(torch.bincount(row_N, minlength=batch.n_rows))
        columns.append(torch.stack([position_N, token_N, batch.targets]))
    position, token, truth = torch.cat(columns, 1).cpu().numpy()
    offsets = np.concatenate([[0], np.cumsum(torch.cat(counts).cpu().numpy())])
    loss = -float(torch.stack(losses).sum())
    return MaskedPredictions(loss=loss, offsets=offsets, position=position, token=token, truth=truth)


class FilledTexts(Sequence[str]):
    """The texts as the model read them, with its predictions in brackets: `the [cat] sat` where it was right, and `the
    [cat → dog] sat` where it predicted cat and dog was there. Each text is made when it is indexed."""

    def __init__(
        self, predicted: MaskedPredictions, places: Ints, rows: Ints, split: Split, tokenizer: Tokenizer
    ) -> None:
        """places: of each text among the predictions; rows: of each in the split."""
        self._predicted, self._places, self._rows = predicted, places, rows
        self._split, self._tokenizer = split, tokenizer

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._text(i) for i in range(*index.indices(len(self)))]
        return self._text(range(len(self))[index])

    def _text(self, index: int) -> str:
        found, place = self._predicted, self._places[index]
        own = slice(found.offsets[place], found.offsets[place + 1])
        ids = self._split.src[int(self._rows[index])].astype(np.int64)
        at = dict(zip(found.position[own].tolist(), found.token[own].tolist(), strict=True))
        parts = []
        for is_hidden, group in groupby(range(len(ids)), key=lambda i: i in at):
            positions = list(group)
            if is_hidden:
                parts += [self._bracketed(at[i], int(ids[i])) for i in positions]
            else:
                parts.append(self._tokenizer.decode(ids[positions]))
        return self._tokenizer.joiner.join(part for part in parts if part)

    def _bracketed(self, token: int, truth: int) -> str:
        """White space that begins a piece stays outside."""
        wanted = self._piece(truth)
        lead = wanted[: len(wanted) - len(wanted.lstrip())]
        predicted = self._piece(token).strip()
        return f"{lead}[{predicted}]" if token == truth else f"{lead}[{predicted} → {wanted.strip()}]"

    def _piece(self, token: int) -> str:
        return SPECIAL_TOKENS[token] if token < len(SPECIAL_TOKENS) else self._tokenizer.decode([token])
