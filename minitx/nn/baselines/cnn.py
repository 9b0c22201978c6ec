"""A text encoder of stacked convolutions. What one position knows of the others is its receptive field, and no more.

Letters in shapes: B rows, S length, D model width, C channels, K kernel.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.config import CnnConfig
from minitx.nn.layers import Dropout, xavier, xavier_linear


class ConvEncoder(nn.Module):
    """Embedded tokens -> their states, by residual blocks x + W act(conv(norm(x))) and a last norm.

    Zeros stand for what lies outside the text, so padding changes nothing.
    """

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.d_model)
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList(ConvLayer(config, dilation) for dilation in config.dilations)
        self.norm = nn.LayerNorm(config.d_model)

    def forward(
        self, tokens: Tensor, key_mask: Tensor | None = None, sentence: Tensor | None = None, first_only: bool = False
    ) -> Tensor:
        """(B, S, D) -> (B, S, D); see `TextEncoder`."""
        x = self.dropout(tokens * self.scale)
        for layer in self.layers:
            x = cast(ConvLayer, layer)(x, key_mask)
        y: Tensor = self.norm(x)
        return y


class ConvLayer(nn.Module):
    """One block."""

    def __init__(self, config: CnnConfig, dilation: int) -> None:
        super().__init__()
        self.kernel, self.dilation = config.kernel, dilation
        self.norm = nn.LayerNorm(config.d_model)
        channels, width = config.inner_width, config.d_model
        self.weight = nn.Parameter(xavier(channels, config.kernel * width).view(channels, config.kernel, width))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.activation = F.gelu if config.activation == "gelu" else F.relu
        self.out = xavier_linear(channels, width)
        with torch.no_grad():  # as the Transformer's: the sum over residual branches starts with unit scale
            self.out.weight.mul_((2 * config.n_layers) ** -0.5)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BSD: Tensor, key_mask: Tensor | None) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        h = self.norm(x_BSD)
        if key_mask is not None:
            h = h * key_mask[:, :, None]
        h = self.activation(self._convolve(h))
        return self.dropout.add(x_BSD, self.out(h))

    def _convolve(self, x_BSD: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, C)."""
        reach = self.dilation * (self.kernel // 2)
        weight_CDK = self.weight.transpose(1, 2)
        y = F.conv1d(x_BSD.transpose(1, 2), weight_CDK, self.bias, padding=reach, dilation=self.dilation)
        return y.transpose(1, 2)
