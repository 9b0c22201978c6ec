"""How far an encoder reads: the gradient of one position's state by the embedding at each offset from it.

After Luo et al. (2016), for text and for states of many dimensions: the derivative is taken in a random direction of
the state, normal and drawn anew for every position; its mean square is the sum over the state's dimensions. (Not of the
sum of the state: a last layer norm holds that constant.) What an encoder can read is one thing, what it has learned to
read is another; both are reported: the farthest position that has any gradient, and the width that holds most of it.

Letters in shapes: B texts, S length, D model width, P positions measured in a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minitx.batch import Batch
from minitx.nn.build import Model
from minitx.nn.classifier import SourceRows, TextReader, source_rows

HELD = 0.95
"""Share of the gradient that `ReceptiveField.width` holds."""
POSITIONS = 4
"""Positions measured in each text; of a shorter one all."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ReceptiveField:
    """What a state depends on; offsets are those of the embedding from the state, in tokens."""

    offsets: tuple[int, ...]
    """From the farthest that any text has before a position to the farthest after it."""
    gradient: tuple[float, ...]
    """At each offset: mean absolute gradient over dimensions, positions and texts that have a token there."""
    n_pairs: tuple[int, ...]
    """How many (position, token) pairs each mean is of."""
    width: int
    """2 w + 1 for the smallest w so that offsets from -w to w hold `HELD` of all gradient there was: of the sum over
    pairs, or the few pairs of the longest text would count as much as all others."""
    farthest: int
    """The largest |offset| at which a gradient was not exactly 0."""

    @classmethod
    def of(cls, sums_O: Floats, counts_O: npt.NDArray[np.int64], n_before: int, farthest: int) -> ReceptiveField:
        """Sums of gradients and numbers of pairs at the offsets from -n_before on."""
        offsets = np.arange(len(sums_O)) - n_before
        held = [sums_O[np.abs(offsets) <= w].sum() for w in range(int(np.abs(offsets).max()) + 1)]
        enough = next(w for w, sum_ in enumerate(held) if sum_ >= HELD * held[-1])
        return cls(
            offsets=tuple(offsets.tolist()),
            gradient=tuple((sums_O / counts_O).tolist()),
            n_pairs=tuple(counts_O.tolist()),
            width=2 * enough + 1,
            farthest=farthest,
        )


def measure_receptive_field(model: Model, batches: Iterable[Batch], seed: int = 0) -> ReceptiveField:
    """Of the encoder of a model in `inference`; with model.chunk of each chunk by itself. The draws are of (seed, row)
    alone, so the batches do not matter."""
    sums = _OffsetSums()
    chunk = model.chunk if isinstance(model, TextReader) else None
    # cuDNN has the gradients of an LSTM in training mode only, torch's own kernel in any.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        for batch in batches:
            rows = source_rows(batch, chunk)
            n_chunks = len(rows.ids) // batch.n_rows
            names = [(row, number) for row in batch.rows.tolist() for number in range(n_chunks)]
            _add_rows(sums, model, rows, [(seed, *name) for name in names])
    return sums.result()


def _add_rows(sums: _OffsetSums, model: Model, rows: SourceRows, seeds: Sequence[tuple[int, ...]]) -> None:
    """seeds: of each text's draws."""
    tokens_BSD = model.src_tokens(rows.ids).detach().requires_grad_()
    states_BSD = model.encoder(tokens_BSD, rows.mask, rows.sentence)
    lengths = rows.real.sum(1).tolist()
    draws = [draw(length, states_BSD.shape[2], seed) for length, seed in zip(lengths, seeds, strict=True)]
    for number in range(max(len(positions) for positions, _ in draws)):
        texts = [b for b, (positions, _) in enumerate(draws) if number < len(positions)]
        places = [int(draws[b][0][number]) for b in texts]
        directions = torch.from_numpy(np.stack([draws[b][1][number] for b in texts])).to(states_BSD)
        gradient_BS = _gradient(states_BSD, tokens_BSD, texts, places, directions)
        for b, place in zip(texts, places, strict=True):
            sums.add(gradient_BS[b, : lengths[b]], place)


def draw(length: int, width: int, seed: tuple[int, ...]) -> tuple[npt.NDArray[np.int64], Floats]:
    """(P,) positions of a text and (P, D) directions, normal; none of an empty text."""
    rng = np.random.default_rng(seed)
    positions = rng.permutation(length)[:POSITIONS]
    return positions, rng.standard_normal((len(positions), width))


def _gradient(
    states_BSD: Tensor, tokens_BSD: Tensor, texts: list[int], places: list[int], directions: Tensor
) -> Floats:
    """(B, S) mean absolute gradient by each token, of one position of each of some texts: rows know nothing of each
    other, so one backward pass serves them all."""
    wanted = (states_BSD[texts, places] * directions).sum()
    (gradient_BSD,) = torch.autograd.grad(wanted, tokens_BSD, retain_graph=True)
    found: Floats = gradient_BSD.double().abs().mean(2).cpu().numpy()
    return found


class _OffsetSums:
    """Sums by offset, which grow as farther ones come."""

    def __init__(self) -> None:
        self.sums: dict[int, float] = {}
        self.counts: dict[int, int] = {}
        self.farthest = 0

    def add(self, gradient_S: Floats, place: int) -> None:
        """Add the gradients at the tokens of one text, of the state at `place`."""
        for offset, value in zip(count(-place), gradient_S.tolist(), strict=False):
            self.sums[offset] = self.sums.get(offset, 0.0) + value
            self.counts[offset] = self.counts.get(offset, 0) + 1
            if value:
                self.farthest = max(self.farthest, abs(offset))

    def result(self) -> ReceptiveField:
        """Means by offset."""
        offsets = sorted(self.sums)  # without gaps: each position has some up to its text's ends, 0 among them
        sums, counts = (np.array([of[offset] for offset in offsets]) for of in (self.sums, self.counts))
        return ReceptiveField.of(sums, counts, -offsets[0], self.farthest)
