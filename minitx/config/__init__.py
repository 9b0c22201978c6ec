"""The typed configuration: every key, its default, its choices and its rules. These files are the manual.

Hydra composes `conf/`, and `parse.load` types the result once, strictly; from there on the objects are frozen.
A default is written here and nowhere else: `train.py` hands these defaults to Hydra, and the YAML files of `conf/`
state only where they differ.
"""

from minitx.config.attention import AttentionConfig
from minitx.config.base import Section, rule
from minitx.config.data import DataConfig, KeepTogether, TokenizerConfig, Truncation
from minitx.config.model import (
    MODELS,
    BagConfig,
    CnnConfig,
    LinearConfig,
    LstmConfig,
    ModelConfig,
    NetConfig,
    TransformerConfig,
)
from minitx.config.probe import ProbeConfig, ProbeKind
from minitx.config.run import (
    AverageConfig,
    Config,
    DecodeConfig,
    MaskingConfig,
    OptimConfig,
    PretrainConfig,
    SpeedConfig,
    TrainerConfig,
)
from minitx.errors import ConfigError

__all__ = [
    "MODELS",
    "AttentionConfig",
    "AverageConfig",
    "BagConfig",
    "CnnConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "DecodeConfig",
    "KeepTogether",
    "LinearConfig",
    "LstmConfig",
    "MaskingConfig",
    "ModelConfig",
    "NetConfig",
    "OptimConfig",
    "PretrainConfig",
    "ProbeConfig",
    "ProbeKind",
    "Section",
    "SpeedConfig",
    "TokenizerConfig",
    "TrainerConfig",
    "TransformerConfig",
    "Truncation",
    "rule",
]
