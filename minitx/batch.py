"""The `Batch` that data and nets both speak, and the special token ids they agree on.

Letters in shapes: B rows, S source length, T target length, N real targets of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

PAD, UNK, BOS, EOS, CLS = range(5)
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "[CLS]")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of about equal length, padded on the right with PAD.

    A classifier has one target per row (N == B); a translator has one per real target token, in row-major order, so
    that logits and loss are computed for real tokens only: `targets[i]` is the token to be predicted at position
    `target_index[i]` of the flattened (B * T) decoder output.
    """

    rows: Tensor
    """(B,) int64: row numbers within the split."""
    src: Tensor
    """(B, S) int64 token ids."""
    src_mask: Tensor | None
    """(B, S) bool, True = real token; None when no row is padded."""
    targets: Tensor
    """(N,) int64: classes, or the real target tokens (each row's end in EOS)."""
    sentence: Tensor | None = None
    """(B, S) int64 sentence number of each source token (0-based, non-decreasing); None where nobody needs it."""
    tgt_in: Tensor | None = None
    """(B, T) int64 decoder input: BOS and the target without its last token. Padding is on the right, where a causal
    decoder never looks from a real position, so it needs no mask."""
    target_index: Tensor | None = None
    """(N,) int64 positions of `targets` in the flattened (B * T) decoder output; None for a classifier."""

    @property
    def n_rows(self) -> int:
        return int(self.src.shape[0])

    @property
    def n_targets(self) -> int:
        """N, known from shapes alone: no device synchronisation."""
        return int(self.targets.shape[0])

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; to a GPU through pinned memory, without waiting."""
        tensors = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        if device.type == "cuda":
            tensors = {name: value.pin_memory() for name, value in tensors.items()}
        return replace(self, **{name: value.to(device, non_blocking=True) for name, value in tensors.items()})
