"""Greedy decoding with a key/value cache: each step computes one new position of the rows that have not ended.

Letters in shapes: B rows of the batch, R rows still being written, S source length, L length limit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minitx.batch import BOS, EOS, Batch
from minitx.decoding.inference import full_logits
from minitx.nn.translator import Translator

SHRINK_EVERY = 4
"""Steps between two checks of which rows have ended. Each check waits for the device and copies what is left of the
cache; between checks ended rows are computed along, and what they write after their end is cut off below."""


@torch.no_grad()
def greedy(model: Translator, batch: Batch, max_length: int | None = None) -> list[npt.NDArray[np.int64]]:
    """The most likely next token, again and again: one array of token ids per row, without BOS and EOS.

    At most `max_length` tokens are written, the end included; None = each row's own of `output_limits`. The model must
    be in eval mode. Runs under the caller's autocast.
    """
    limits = output_limits([model], batch, max_length)
    n_steps = int(limits.max())
    written_BL = batch.src.new_full((batch.n_rows, n_steps), EOS)
    mask_RS = batch.src_mask
    memory_RSD = model.encode(batch.src, mask_RS, batch.sentence)
    cache = model.new_cache(memory_RSD)
    rows_R = torch.arange(batch.n_rows, device=batch.src.device)
    token_R = torch.full_like(rows_R, BOS)
    ended_R = torch.zeros_like(rows_R, dtype=torch.bool)
    for step in range(n_steps):
        hidden_R1D = model.decode(token_R[:, None], memory_RSD, mask_RS, cache)
        token_R = full_logits(model, hidden_R1D[:, -1]).argmax(-1)
        written_BL[rows_R, step] = token_R
        ended_R = ended_R | (token_R == EOS)
        if (step + 1) % SHRINK_EVERY:
            continue
        going = (~ended_R).nonzero().squeeze(1)
        if len(going) == 0:
            break
        if len(going) < len(rows_R):
            rows_R, token_R, ended_R = rows_R[going], token_R[going], ended_R[going]
            memory_RSD, mask_RS = memory_RSD[going], None if mask_RS is None else mask_RS[going]
            cache.select(going)
    # A row's limit is of its own length, not of the longest in its batch: what goes together changes no result.
    return [until_end(ids)[:limit] for ids, limit in zip(written_BL.cpu().numpy(), limits.tolist(), strict=True)]


def output_limits(models: Sequence[Translator], batch: Batch, max_length: int | None = None) -> Tensor:
    """(B,) int64: tokens that each row's output may have, the end included; `max_length`, or the least that a model's
    own `output_limit` allows."""
    n_rows, longest = batch.src.shape
    if max_length is not None:
        return torch.full((n_rows,), max_length, device=batch.src.device)
    lengths = torch.full((n_rows,), longest) if batch.src_mask is None else batch.src_mask.sum(dim=1).cpu()
    limits = [min(model.output_limit(length) for model in models) for length in lengths.tolist()]
    return torch.tensor(limits, device=batch.src.device)


def cut_off(
    models: Sequence[Translator], batch: Batch, outputs: Sequence[npt.NDArray[np.int64]]
) -> npt.NDArray[np.bool_]:
    """(B,) True = this row's output (of a search with `max_length` None) has no end: it reached its limit first."""
    return np.array([len(ids) for ids in outputs]) >= output_limits(models, batch).cpu().numpy()


def until_end(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One row's tokens up to its first EOS."""
    ended = np.flatnonzero(ids == EOS)
    return ids[: ended[0]] if len(ended) else ids
