"""A training split whose token ids stay on the device: a batch costs one small copy, of row numbers, and is cut there.

How many tokens and targets a batch has is known on the host, from lengths, so that nothing here waits for the device.

Letters in shapes: B rows, L length, S source length, T target length, N targets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from minitx.batch import BOS, IGNORED, PAD, Batch
from minitx.data.splits import IntArray, Ragged, Split

LENGTH_STEP, TARGET_STEP = 8, 256
FULL_ENOUGH = 0.9
"""Share of a shape's rows that must be there for the rest to be filled up."""


@dataclass(frozen=True)
class _Rows:
    """A `Ragged` on the device, and its lengths on both sides."""

    flat: Tensor
    """(tokens,) int32."""
    starts: Tensor
    """(rows,) int64."""
    lengths: Tensor
    """(rows,) int64."""
    on_host: IntArray

    @classmethod
    def of(cls, rows: Ragged, device: torch.device) -> _Rows:
        flat = torch.tensor(rows.flat, dtype=torch.int32, device=device)
        starts = torch.tensor(rows.offsets[:-1], dtype=torch.int64, device=device)
        return cls(flat, starts, torch.tensor(rows.lengths, dtype=torch.int64, device=device), rows.lengths)

    def gather(self, rows_B: Tensor, length_B: Tensor, longest: int) -> tuple[Tensor, Tensor]:
        """(B, L) int64 ids, a row's last one again past its end, and (B, L) bool, True = real."""
        position_L = torch.arange(longest, device=self.flat.device)
        inside_BL = torch.minimum(position_L, (length_B - 1).clamp(min=0)[:, None])
        return self.flat[self.starts[rows_B, None] + inside_BL].long(), position_L < length_B[:, None]


class ResidentSplit:
    """Batches like those of `Split.batch`, on the device.

    few_shapes: the budget of tokens per batch. Lengths are then rounded up to multiples of 8 (or the longest there is),
    targets to multiples of 256, and an almost full batch is filled up with empty rows to the number that its length
    allows, so that shapes come back (for CUDA graphs). What is filled in has no target and changes no result.
    """

    def __init__(
        self,
        split: Split,
        device: torch.device,
        *,
        sentences: bool = False,
        few_shapes: int | None = None,
    ) -> None:
        self.device, self._few_shapes = device, few_shapes
        self._src = _Rows.of(split.src, device)
        self._tgt = None if split.tgt is None else _Rows.of(split.tgt, device)
        self._sentences = _Rows.of(split.sentences, device) if sentences else None
        self._labels = None if split.labels is None else torch.tensor(split.labels, dtype=torch.int64, device=device)

    def batch(self, rows: IntArray) -> Batch:
        """These rows (at least one); see `Batch` for shapes."""
        sides = [side for side in (self._src, self._tgt) if side is not None]
        longest = [int(side.on_host[rows].max()) for side in sides]
        n_rows = len(rows)
        if self._few_shapes is not None:
            # Never longer than the split's longest row: a table of learned positions may end there.
            longest = [
                min(_up(n, LENGTH_STEP), int(side.on_host.max())) for n, side in zip(longest, sides, strict=True)
            ]
            n_rows = self._filled(n_rows, self._few_shapes // max(longest))
        rows_B = _send(np.concatenate([rows, np.zeros(n_rows - len(rows), rows.dtype)]), self.device)
        real_B = torch.arange(n_rows, device=self.device) < len(rows)
        length_B = self._src.lengths[rows_B] * real_B
        src_BS, real_BS = self._src.gather(rows_B, length_B, longest[0])
        no_padding = n_rows == len(rows) and int(self._src.on_host[rows].min()) == longest[0]
        sentences = self._sentences
        common = Batch(
            rows=rows_B,
            src=src_BS.masked_fill(~real_BS, PAD),
            src_mask=None if no_padding else real_BS,
            sentence=None if sentences is None else sentences.gather(rows_B, length_B, longest[0])[0],
            targets=rows_B[:0],
        )
        if self._labels is not None:
            return self._labelled(common, self._labels, real_B, len(rows))
        if self._tgt is None:  # the targets are still to come: a `Masker` makes them
            return common
        return self._translated(common, self._tgt, rows, rows_B, real_B, longest[1])

    def _filled(self, n_rows: int, most: int) -> int:
        return most if FULL_ENOUGH * most <= n_rows < most else n_rows

    def _labelled(self, batch: Batch, labels: Tensor, real_B: Tensor, n_real: int) -> Batch:
        targets_B = labels[batch.rows].masked_fill(~real_B, IGNORED)
        return replace(batch, targets=targets_B, n_real=None if self._few_shapes is None else n_real)

    def _translated(
        self, batch: Batch, tgt: _Rows, rows: IntArray, rows_B: Tensor, real_B: Tensor, longest: int
    ) -> Batch:
        length_B = tgt.lengths[rows_B] * real_B
        tgt_BT, real_BT = tgt.gather(rows_B, length_B, longest)
        tgt_in_BT = torch.cat([tgt_BT.new_full((len(rows_B), 1), BOS), tgt_BT[:, :-1]], dim=1)
        n_real = int(tgt.on_host[rows].sum())
        n_targets = n_real if self._few_shapes is None else _up(n_real, TARGET_STEP)
        index_N = self._places(length_B, n_real, longest)
        index_N = torch.nn.functional.pad(index_N, (0, n_targets - n_real))
        targets_N = tgt_BT.flatten()[index_N]
        targets_N[n_real:] = IGNORED
        tgt_in_BT = tgt_in_BT.masked_fill(~real_BT, PAD)
        return replace(
            batch,
            targets=targets_N,
            n_real=None if self._few_shapes is None else n_real,
            tgt_in=tgt_in_BT,
            target_index=index_N,
        )

    def _places(self, length_B: Tensor, n_real: int, longest: int) -> Tensor:
        """(N,) places of the real targets in the flattened (B * T); their number is given, so nobody has to ask."""
        row_N = torch.repeat_interleave(length_B, output_size=n_real)
        before_B = length_B.cumsum(0) - length_B
        return row_N * longest + torch.arange(n_real, device=self.device) - before_B[row_N]


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def _send(rows: IntArray, device: torch.device) -> Tensor:
    """(B,) int64 on the device; to a GPU through pinned memory, without waiting."""
    tensor = torch.from_numpy(rows.astype(np.int64))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
