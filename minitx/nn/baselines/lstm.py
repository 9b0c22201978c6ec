"""Additive cross-attention (Bahdanau et al. 2015): scores v . tanh(W state + U memory) instead of products.

Letters in shapes: B rows, M rows of memory, T queries, S keys, D model width, H width of the asking states, A width of
the score's tanh.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minitx.config import LstmConfig
from minitx.nn.attention.cache import LstmCache, LstmState
from minitx.nn.attention.masks import masked_softmax
from minitx.nn.attention.record import AttentionRecord, Recorder
from minitx.nn.layers import Dropout, xavier_linear
from minitx.nn.pooling import Pooling

PIECE = {"cpu": 1 << 20, "cuda": 1 << 25}
"""Elements of tanh(W state + U memory), (M, T, S, A), that are computed at once where four times as many are exceeded:
on a CPU they then stay in its caches, and elsewhere the whole would not fit beside the model."""


class AdditiveAttention(nn.Module):
    """States that ask read a memory; one head, A = D."""

    def __init__(self, n_in: int, d_model: int) -> None:
        super().__init__()
        self.query = xavier_linear(n_in, d_model)
        self.key = xavier_linear(d_model, d_model, bias=False)  # the query's would be a second one
        self.v = nn.Parameter(torch.randn(d_model) * d_model**-0.5)
        self.recorder: Recorder | None = None

    def forward(self, x_BTH: Tensor, memory_MSD: Tensor, keys_MSA: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """(B, T, H) -> (B, T, D), the memory weighed. keys_MSA: from `keys`; key_mask: (M, S) bool, True = real token,
        None = none is padded. Each row of the memory serves B / M rows, one after another."""
        queries = self.query(x_BTH.reshape(memory_MSD.shape[0], -1, x_BTH.shape[2]))
        scores = additive_scores(queries, keys_MSA, self.v)
        weights = masked_softmax(scores, None if key_mask is None else key_mask[:, None])
        if self.recorder is not None:
            self.recorder(AttentionRecord(weights[:, None]))
        return (weights @ memory_MSD).view(*x_BTH.shape[:2], -1)

    def keys(self, memory_MSD: Tensor) -> Tensor:
        """(M, S, D) -> (M, S, A)."""
        keys: Tensor = self.key(memory_MSD)
        return keys


def additive_scores(queries_MTA: Tensor, keys_MSA: Tensor, v: Tensor) -> Tensor:
    """(M, T, S): v . tanh(query + key).

    A large one is computed in pieces over T, whose tanh the backward pass computes again: T x S x A numbers are not
    kept, and the second tanh costs less than reading them from memory would.
    """
    n_rows, n_queries, width = queries_MTA.shape
    per_query, piece = n_rows * keys_MSA.shape[1] * width, PIECE["cuda" if queries_MTA.is_cuda else "cpu"]
    if torch.compiler.is_exporting() or n_queries * per_query <= 4 * piece:
        return _scores(queries_MTA, keys_MSA, v)
    pieces = torch.split(queries_MTA, max(1, piece // per_query), dim=1)
    scores = [
        checkpoint(_scores, queries, keys_MSA, v, use_reentrant=False, preserve_rng_state=False) for queries in pieces
    ]
    return torch.cat(scores, dim=1)


def _scores(queries_MTA: Tensor, keys_MSA: Tensor, v: Tensor) -> Tensor:
    return torch.tanh(queries_MTA[:, :, None] + keys_MSA[:, None]) @ v


class LstmEncoder(nn.Module):
    """Embedded tokens -> their states: both directions' (2 H), projected to D."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.scale, self.hidden = math.sqrt(config.d_model), config.inner_width
        self.dropout = Dropout(config.dropout)
        widths = [config.d_model] + [2 * self.hidden] * (config.n_layers - 1)
        self.layers = nn.ModuleList(BothWays(width, self.hidden) for width in widths)
        self.output = xavier_linear(2 * self.hidden, config.d_model)

    def forward(
        self, tokens: Tensor, key_mask: Tensor | None = None, sentence: Tensor | None = None, first_only: bool = False
    ) -> Tensor:
        """(B, S, D) -> (B, S, D), or with first_only (B, 1, D): both directions' last states; see `TextEncoder`."""
        n_rows, length, _ = tokens.shape
        index_BS = None if key_mask is None else mirror(key_mask)
        x = self.dropout(tokens * self.scale)
        for layer in self.layers:
            x = self.dropout(layer(x, index_BS))
        if first_only:
            rows = torch.arange(n_rows, device=x.device)
            last = length - 1 if index_BS is None else index_BS[:, 0]  # the mirrored text begins where the text ends
            x = torch.cat([x[rows, last, : self.hidden], x[:, 0, self.hidden :]], dim=-1)[:, None]
        y: Tensor = self.output(x)
        return y


class BothWays(nn.Module):
    """One layer: an LSTM that reads ahead, and one that reads back from the last real token."""

    def __init__(self, n_in: int, hidden: int) -> None:
        super().__init__()
        self.ahead = nn.LSTM(n_in, hidden, batch_first=True)
        self.back = nn.LSTM(n_in, hidden, batch_first=True)

    def forward(self, x: Tensor, index_BS: Tensor | None) -> Tensor:
        """(B, S, D_in) -> (B, S, 2 H). index_BS: from `mirror`; None = no row is padded."""
        back = mirrored(run_lstm(self.back, mirrored(x, index_BS))[0], index_BS)
        return torch.cat([run_lstm(self.ahead, x)[0], back], dim=-1)


def run_lstm(layer: nn.Module, x: Tensor, state: LstmState | None = None) -> tuple[Tensor, LstmState]:
    """The layer's states and its last one. On a GPU in float32: there autocast means float16 to an LSTM, whatever type
    was asked for, and without scaling small gradients would be lost."""
    if torch.compiler.is_exporting():
        return _scanned_lstm(layer, x, state)
    with torch.autocast("cuda", enabled=False) if x.is_cuda else nullcontext():
        if x.is_cuda:
            x, state = x.float(), None if state is None else (state[0].float(), state[1].float())
        found: tuple[Tensor, LstmState] = layer(x, state)
        return found


def _scanned_lstm(layer: nn.Module, x: Tensor, state: LstmState | None) -> tuple[Tensor, LstmState]:
    """The same written out as a loop over any number of positions: torch.export would unroll nn.LSTM over as many as
    its example has (pytorch issue 115092)."""
    from torch._higher_order_ops.scan import scan

    weights = dict(layer.named_parameters())
    in_BSG = F.linear(x, weights["weight_ih_l0"], weights["bias_ih_l0"] + weights["bias_hh_l0"])
    again_HG = weights["weight_hh_l0"].t()
    zeros_BH = x.new_zeros(x.shape[0], again_HG.shape[0])
    first = (zeros_BH, zeros_BH.clone()) if state is None else (state[0][0], state[1][0])

    def step(before: LstmState, in_BG: Tensor) -> tuple[LstmState, Tensor]:
        h, cell = before
        i, f, g, o = (in_BG + h @ again_HG).chunk(4, dim=1)  # torch's order of the gates
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        h = o.sigmoid() * cell.tanh()
        return (h, cell), h.clone()

    (h, cell), states_SBH = scan(step, first, in_BSG.transpose(0, 1))
    return states_SBH.transpose(0, 1), (h[None], cell[None])


def mirror(key_mask: Tensor) -> Tensor:
    """(B, S) positions: of real tokens from the last to the first, then of the padding as it stands."""
    n_real = key_mask.sum(dim=1, keepdim=True)
    position = torch.arange(key_mask.shape[1], device=key_mask.device)
    return torch.where(position < n_real, n_real - 1 - position, position)


def mirrored(x: Tensor, index_BS: Tensor | None) -> Tensor:
    """(B, S, W) in the order of `mirror`'s index, which is its own inverse; None = back to front."""
    if index_BS is None:
        return x.flip(1)
    n_rows, length, _ = x.shape
    start = torch.arange(n_rows, device=x.device)[:, None] * length
    return x.flatten(0, 1).index_select(0, (start + index_BS).flatten()).view(x.shape)


class LstmDecoder(nn.Module):
    """Embedded target tokens and the encoder's memory -> hidden states: LSTM layers, then additive attention.

    hidden = tanh(W [h; context]) with the context that h reads. Attention stands after the recurrent layers (Luong et
    al. 2015, section 3.1) with the score of Bahdanau et al. (2015), so that a whole target is one call of each layer.
    Each layer's first h is tanh of a linear layer on the mean of the memory, its first cell is 0.
    """

    def __init__(self, config: LstmConfig, max_length: int) -> None:
        super().__init__()
        width, hidden = config.d_model, config.inner_width
        self.scale, self.max_length = math.sqrt(width), max_length
        self.dropout = Dropout(config.dropout)
        self.mean = Pooling("mean", width)
        self.first = xavier_linear(width, config.decoder_layers * hidden)
        widths = [width] + [hidden] * (config.decoder_layers - 1)
        self.layers = nn.ModuleList(nn.LSTM(n_in, hidden, batch_first=True) for n_in in widths)
        self.attention = AdditiveAttention(hidden, width)
        self.output = xavier_linear(hidden + width, width)

    def forward(
        self, tokens: Tensor, memory: Tensor, src_mask: Tensor | None = None, cache: LstmCache | None = None
    ) -> Tensor:
        """(B, T, D) and memory (M, S, D) -> (B, T, D); see `TextDecoder`."""
        if cache is None:
            cache = LstmCache(self.attention.keys(memory))
        states = cache.states or self.first_states(memory, src_mask, tokens.shape[0])
        x = self.dropout(tokens * self.scale)
        after = []
        for i, layer in enumerate(self.layers):
            x, state = run_lstm(layer, self.dropout(x) if i else x, states[i])
            after.append(state)
        cache.advance(tokens.shape[1], after)
        context = self.attention(x, memory, cache.keys, src_mask)
        y: Tensor = self.dropout(torch.tanh(self.output(torch.cat([x, context], dim=-1))))
        return y

    def new_cache(self, memory: Tensor) -> LstmCache:
        """An empty cache that holds the memory's keys already."""
        with torch.no_grad():
            return LstmCache(self.attention.keys(memory))

    def first_states(self, memory: Tensor, src_mask: Tensor | None, n_rows: int) -> list[LstmState]:
        """Of each layer before the first token, (1, B, H) each. memory: (M, S, D)."""
        first = torch.tanh(self.first(self.mean(memory, src_mask)))  # (M, layers * H)
        each = first.repeat_interleave(n_rows // memory.shape[0], dim=0).view(n_rows, len(self.layers), -1)
        return [(h[None], torch.zeros_like(h[None])) for h in each.transpose(0, 1).contiguous()]
