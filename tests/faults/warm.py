"""Imported by the process that all trainings are forked from: what a run loads late is there already, so that an
attempt takes half a second of computing and not three."""

from __future__ import annotations

import torch.utils.tensorboard  # noqa: F401

import minitx.sweeps.hydra_plugin
import minitx.training.linear
import minitx.training.run  # noqa: F401
from minitx.config import TransformerConfig
from minitx.nn.sizes import ModelShape, parameter_counts

_SHAPE = ModelShape(
    task="translation", src_vocab=11, tgt_vocab=11, n_classes=None, joint=False, max_length=7
)  # fmt: skip
parameter_counts(TransformerConfig(d_model=8, n_heads=2, d_ff=8), _SHAPE)  # loads torch's meta device
