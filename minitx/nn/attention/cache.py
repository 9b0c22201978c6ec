"""What is kept while decoding, so that each step computes its new tokens alone: keys and values, or LSTM states.

For decoding without gradients: the buffers of keys and values are written in place.

Letters in shapes: R rows being written, M rows of memory, S source length, A width of keys, H state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

MIN_CAPACITY = 16


class KeyValueCache:
    """The keys and values of one attention, (B, H, S, K) each; H is of the heads that they have, see `reduced.py`.

    Room doubles as it fills, so T steps copy O(T).
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(self, k_BHTK: Tensor, v_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Keep T more positions; returns all of them so far, views (B, H, length, K)."""
        start, self.length = self.length, self.length + k_BHTK.shape[2]
        self._keys = _room(self._keys, k_BHTK, start, self.length)
        self._values = _room(self._values, v_BHTK, start, self.length)
        self._keys[:, :, start : self.length] = k_BHTK
        self._values[:, :, start : self.length] = v_BHTK
        return self.read()

    def read(self) -> tuple[Tensor, Tensor]:
        """Views of everything kept."""
        assert self._keys is not None and self._values is not None, "nothing was appended yet"
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    @property
    def n_bytes(self) -> int:
        """Bytes of the positions kept, without the room for more."""
        return sum(kept.nbytes for kept in self.read()) if self.length else 0

    def select(self, index: Tensor) -> None:
        """Keep the rows `index` (n,) names, in that order: finished rows leave, beams are reordered or repeated."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = self._keys.index_select(0, index), self._values.index_select(0, index)


class StepCache(Protocol):
    """What every decoder's cache does."""

    @property
    def length(self) -> int:
        """Target positions decoded so far."""
        ...

    @property
    def n_bytes(self) -> int:
        """Bytes kept of what was decoded, all rows and layers; what is kept of the memory is not counted."""
        ...

    def select(self, index: Tensor, memories: Tensor | None = None) -> None:
        """Keep the rows `index` (n,) names, in that order. The caller selects its memory and `src_mask` alike.

        memories: those of the memory, where they are other ones (it has one row for all beams of a source).
        """
        ...

    def reorder(self, index: Tensor) -> None:
        """Keep the rows `index` (n,) names of what was decoded, and leave the memory's as they are."""
        ...


class DecoderCache:
    """Of the Transformer's decoder: for each layer its own keys and values (growing) and the memory's (filled once)."""

    def __init__(self, n_layers: int) -> None:
        self.own = [KeyValueCache() for _ in range(n_layers)]
        self.cross = [KeyValueCache() for _ in range(n_layers)]

    @property
    def length(self) -> int:
        return self.own[0].length

    @property
    def n_bytes(self) -> int:
        return sum(cache.n_bytes for cache in self.own)

    def select(self, index: Tensor, memories: Tensor | None = None) -> None:
        self.reorder(index)
        for cache in self.cross:
            cache.select(index if memories is None else memories)

    def reorder(self, index: Tensor) -> None:
        for cache in self.own:
            cache.select(index)


LstmState = tuple[Tensor, Tensor]
"""h and cell of one layer, (1, R, H) each."""


class LstmCache:
    """Of the LSTM decoder: the state of each layer, and the keys of the memory."""

    def __init__(self, keys_MSA: Tensor) -> None:
        self.length, self.keys = 0, keys_MSA
        self.states: Sequence[LstmState] = ()
        """Empty before the first step: where it starts is read from the memory."""

    @property
    def n_bytes(self) -> int:
        return sum(h.nbytes + cell.nbytes for h, cell in self.states)

    def advance(self, n_tokens: int, states: Sequence[LstmState]) -> None:
        """`states` are those after n_tokens more."""
        self.length, self.states = self.length + n_tokens, states

    def select(self, index: Tensor, memories: Tensor | None = None) -> None:
        self.reorder(index)
        self.keys = self.keys.index_select(0, index if memories is None else memories)

    def reorder(self, index: Tensor) -> None:
        self.states = [(h.index_select(1, index), cell.index_select(1, index)) for h, cell in self.states]


def _room(buffer: Tensor | None, new: Tensor, kept: int, needed: int) -> Tensor:
    """`buffer`, or a larger one that starts with its first `kept` positions."""
    if buffer is not None and buffer.shape[2] >= needed:
        return buffer
    capacity = max(needed, MIN_CAPACITY, 2 * (0 if buffer is None else buffer.shape[2]))
    larger = new.new_empty(*new.shape[:2], capacity, new.shape[3])
    if buffer is not None:
        larger[:, :, :kept] = buffer[:, :, :kept]
    return larger
