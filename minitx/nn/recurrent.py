"""A text encoder of bidirectional LSTM layers: every state passes through all that came before it.

Letters in shapes: B rows, S length, D model width, H state of one direction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from minitx.config import LstmConfig
from minitx.nn.dropout import Dropout
from minitx.nn.linear import xavier_linear


class LstmEncoder(nn.Module):
    """Embedded tokens -> their states: both directions' (2 H), projected to D. A row stops at its last real token."""

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.scale, self.hidden = math.sqrt(config.d_model), config.inner_width
        self.dropout = Dropout(config.dropout)
        between = config.dropout if config.n_layers > 1 else 0.0
        self.lstm = nn.LSTM(
            config.d_model, self.hidden, config.n_layers, batch_first=True, bidirectional=True, dropout=between
        )
        self.output = xavier_linear(2 * self.hidden, config.d_model)

    def forward(
        self, tokens: Tensor, key_mask: Tensor | None = None, sentence: Tensor | None = None, first_only: bool = False
    ) -> Tensor:
        """(B, S, D) -> (B, S, D), or with first_only (B, 1, D): both directions' last states; see `TextEncoder`."""
        n_rows, length, _ = tokens.shape
        x = self.dropout(tokens * self.scale)
        lengths = torch.full((n_rows,), length) if key_mask is None else key_mask.sum(1).cpu().clamp(min=1)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states_BSH, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=length)
        if first_only:
            last = (lengths - 1).to(x.device)
            forward = states_BSH[torch.arange(n_rows, device=x.device), last, : self.hidden]
            states_BSH = torch.cat([forward, states_BSH[:, 0, self.hidden :]], dim=-1)[:, None]
        y: Tensor = self.output(self.dropout(states_BSH))
        return y
