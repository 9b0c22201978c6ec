"""Keys and values kept while decoding, so that each step computes its new tokens alone.

For decoding without gradients: the buffers are written in place.
"""

from __future__ import annotations

from torch import Tensor

MIN_CAPACITY = 16


class KeyValueCache:
    """The keys and values of one attention, (B, H, S, K) each. Room doubles as it fills, so T steps copy O(T)."""

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

    def select(self, index: Tensor) -> None:
        """Keep the rows `index` (n,) names, in that order: finished rows leave, beams are reordered or repeated."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = self._keys.index_select(0, index), self._values.index_select(0, index)


class DecoderCache:
    """One cache per decoder layer for its own keys and values (growing) and for the memory's (filled once)."""

    def __init__(self, n_layers: int) -> None:
        self.own = [KeyValueCache() for _ in range(n_layers)]
        self.cross = [KeyValueCache() for _ in range(n_layers)]

    @property
    def length(self) -> int:
        """Target positions decoded so far."""
        return self.own[0].length

    def select(self, index: Tensor, memories: Tensor | None = None) -> None:
        """Keep the rows `index` (n,) names, in that order, in every layer. The caller selects its `src_mask` alike.

        memories: those of the memory, where they are other ones (it has one row for all beams of a source).
        """
        self.reorder(index)
        for cache in self.cross:
            cache.select(index if memories is None else memories)

    def reorder(self, index: Tensor) -> None:
        """Keep the rows `index` (n,) names of what was decoded, and leave the memory's as they are."""
        for cache in self.own:
            cache.select(index)


def _room(buffer: Tensor | None, new: Tensor, kept: int, needed: int) -> Tensor:
    """`buffer`, or a larger one that starts with its first `kept` positions."""
    if buffer is not None and buffer.shape[2] >= needed:
        return buffer
    capacity = max(needed, MIN_CAPACITY, 2 * (0 if buffer is None else buffer.shape[2]))
    larger = new.new_empty(*new.shape[:2], capacity, new.shape[3])
    if buffer is not None:
        larger[:, :, :kept] = buffer[:, :, :kept]
    return larger
