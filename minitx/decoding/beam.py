"""Beam search over one translator or several: n-best lists with scores, batched, with a key/value cache.

Every source text keeps its `beam` most likely unfinished translations. Each step extends all of them by one token and
takes the 2 x beam most likely extensions: those among the first `beam` that end are finished, and the first `beam`
that do not end go on. A source is done when `beam` translations are finished, or at its length limit. This is the
search of fairseq (arXiv 1904.01038), except at the limit, where unfinished translations count as finished. With a beam
of 1 it is greedy decoding.

Letters in shapes: B source texts still being searched, K beams, R = B * K rows, C = 2 K candidates, L length limit,
V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minitx.batch import BOS, EOS, Batch
from minitx.config import DecodeConfig
from minitx.decoding.greedy import SHRINK_EVERY, greedy, output_limits, until_end
from minitx.decoding.inference import full_logits, log_mean
from minitx.nn.translator import Translator


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """One translation that a search finished."""

    ids: npt.NDArray[np.int64]
    """Token ids without BOS and EOS."""
    log_prob: float
    """Natural logarithm of its probability, its end included (unless the length limit cut it off)."""
    score: float
    """log_prob / n ** length_penalty, where n counts the tokens and the end; the best hypothesis has the largest."""


@torch.no_grad()
def beam_search(
    models: Sequence[Translator],
    batch: Batch,
    beam: int,
    *,
    length_penalty: float = 1.0,
    n_best: int = 1,
    max_length: int | None = None,
) -> list[list[Hypothesis]]:
    """The `n_best` best finished translations of each row, best first; fewer where a search found fewer.

    models: of one vocabulary; the probability of a token is the mean of theirs (an ensemble). length_penalty: 0 goes by
    probability alone and prefers short outputs, 1 by the mean over tokens. max_length: tokens written at most, the end
    included; None = each row's own `output_limits`. The models must be in eval mode. Runs under the caller's autocast.

    Raises:
        ValueError: no model, or not 1 <= n_best <= beam.
    """
    if not models:
        raise ValueError("beam search needs at least one model")
    if not 1 <= n_best <= beam:
        raise ValueError(f"n_best ({n_best}) must lie between 1 and beam ({beam})")
    search = _Search(models, batch, beam, length_penalty, max_length)
    for step in range(int(search.limit_B.max())):
        search.extend(step)
        if (step + 1) % SHRINK_EVERY == 0 and not search.drop_done():
            break
    search.drop_done(all_of_them=True)
    return [found[:n_best] for found in search.found]


def translate(models: Sequence[Translator], batch: Batch, decode: DecodeConfig) -> list[npt.NDArray[np.int64]]:
    """The best output of each row, token ids without BOS and EOS, as `decode` says."""
    if decode.beam == 1 and len(models) == 1:
        return greedy(models[0], batch)
    found = beam_search(models, batch, decode.beam, length_penalty=decode.length_penalty)
    nothing = np.zeros(0, np.int64)  # where every probability is NaN
    return [hypotheses[0].ids if hypotheses else nothing for hypotheses in found]


class _ModelState:
    """One model with its encoded texts and its key/value cache."""

    def __init__(self, model: Translator, batch: Batch) -> None:
        self.model = model
        self.mask_BS = batch.src_mask
        self.memory_BSD = model.encode(batch.src, batch.src_mask, batch.sentence)
        self.cache = model.new_cache(self.memory_BSD)  # one memory for all beams of a text

    @property
    def dtype(self) -> torch.dtype:
        """Of log probabilities: float32 at least."""
        return torch.promote_types(self.model.output_weight.dtype, torch.float32)

    def log_probs(self, token_R: Tensor) -> Tensor:
        """(R, V) of the next token."""
        hidden_R1D = self.model.decode(token_R[:, None], self.memory_BSD, self.mask_BS, self.cache)
        return full_logits(self.model, hidden_R1D[:, -1]).log_softmax(-1, dtype=self.dtype)

    def keep(self, sources: Tensor, rows: Tensor) -> None:
        """These sources, and these rows of their beams, alone."""
        self.cache.select(rows, sources)
        self.memory_BSD = self.memory_BSD[sources]
        self.mask_BS = None if self.mask_BS is None else self.mask_BS[sources]


class _Search:
    """Unfinished and finished translations of every source: each tensor has a row per source still searched.

    A place among the finished that is still free scores -inf, as does a beam that does not exist yet.
    """

    def __init__(
        self, models: Sequence[Translator], batch: Batch, beam: int, length_penalty: float, max_length: int | None
    ) -> None:
        n, device = batch.n_rows, batch.src.device
        self.beam, self.length_penalty = beam, length_penalty
        self.states = [_ModelState(model, batch) for model in models]
        self.found: list[list[Hypothesis]] = [[] for _ in range(n)]
        self.limit_B = output_limits(models, batch, max_length)
        self.source_B = torch.arange(n, device=device)
        self.done_B = torch.zeros(n, dtype=torch.bool, device=device)
        self.token_BK = torch.full((n, beam), BOS, device=device)
        self.written_BKL = torch.full((n, beam, int(self.limit_B.max())), EOS, device=device)
        self.ended_BKL = self.written_BKL.clone()
        self.score_BK = torch.full((n, beam), -math.inf, dtype=self.states[0].dtype, device=device)
        self.ended_log_prob_BK = self.score_BK.clone()
        self.log_prob_BK = self.score_BK.clone()
        self.log_prob_BK[:, 0] = 0  # before the first step all beams are one

    def extend(self, step: int) -> None:
        """One more token for every unfinished translation."""
        value_BC, origin_BC, token_BC = self._candidates()
        ends_BC = token_BC == EOS
        written_BCL = _rows(self.written_BKL, origin_BC)
        written_BCL[:, :, step] = token_BC
        self._finish(step, value_BC, ends_BC, written_BCL)
        going_BC = value_BC.masked_fill(ends_BC, -math.inf)
        self.log_prob_BK, chosen_BK = going_BC.topk(self.beam)
        self.written_BKL = _rows(written_BCL, chosen_BK)
        self.token_BK = token_BC.gather(1, chosen_BK)
        first_row_B1 = torch.arange(len(chosen_BK), device=chosen_BK.device)[:, None] * self.beam
        for state in self.states:
            state.cache.reorder((first_row_B1 + origin_BC.gather(1, chosen_BK)).flatten())

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C) each: log probability, the beam that is extended and the token, the most likely first."""
        n, beam = self.token_BK.shape
        parts = [state.log_probs(self.token_BK.flatten()) for state in self.states]
        log_prob_BKV = log_mean(parts).view(n, beam, -1)
        total = (log_prob_BKV + self.log_prob_BK[:, :, None]).flatten(1)
        value_BC, index_BC = total.topk(min(2 * beam, total.shape[1]))
        n_tokens = log_prob_BKV.shape[2]
        return value_BC, index_BC // n_tokens, index_BC % n_tokens

    def _finish(self, step: int, value_BC: Tensor, ends_BC: Tensor, written_BCL: Tensor) -> None:
        """Add what has ended, or is cut off by the limit, to the finished ones: among the first `beam` candidates."""
        last_B1 = (self.limit_B == step + 1)[:, None]
        taken_BC = (ends_BC | last_B1) & ~self.done_B[:, None]
        taken_BC[:, self.beam :] = False
        value_BC = value_BC.masked_fill(~taken_BC, -math.inf)
        scores = torch.cat([self.score_BK, value_BC / (step + 1) ** self.length_penalty], dim=1)
        self.score_BK, kept_BK = scores.topk(self.beam)
        self.ended_log_prob_BK = torch.cat([self.ended_log_prob_BK, value_BC], dim=1).gather(1, kept_BK)
        self.ended_BKL = _rows(torch.cat([self.ended_BKL, written_BCL], dim=1), kept_BK)
        self.done_B = self.done_B | last_B1[:, 0] | (self.score_BK > -math.inf).all(dim=1)

    def drop_done(self, all_of_them: bool = False) -> bool:
        """Put the results of sources that are done aside, and free their rows; True while any is left."""
        done_B = torch.ones_like(self.done_B) if all_of_them else self.done_B
        if bool(done_B.any()):
            self._put_aside(done_B)
            self._keep((~done_B).nonzero().squeeze(1))
        return len(self.source_B) > 0

    def _put_aside(self, done_B: Tensor) -> None:
        tensors = (self.source_B, self.ended_BKL, self.ended_log_prob_BK, self.score_BK)
        for source, *hypotheses in zip(*(t[done_B].cpu().numpy() for t in tensors), strict=True):
            self.found[source] = [
                Hypothesis(ids=until_end(ids), log_prob=float(log_prob), score=float(score))
                for ids, log_prob, score in zip(*hypotheses, strict=True)
                if score > -math.inf
            ]

    def _keep(self, sources: Tensor) -> None:
        first_rows = sources[:, None] * self.beam
        rows = (first_rows + torch.arange(self.beam, device=sources.device)).flatten()
        for state in self.states:
            state.keep(sources, rows)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value[sources])


def _rows(values_BKL: Tensor, index_BC: Tensor) -> Tensor:
    """(B, C, L): for each source the rows that `index_BC` names."""
    return values_BKL.gather(1, index_BC[:, :, None].expand(-1, -1, values_BKL.shape[2]))
