"""Tiny configurations and batches for the tests of whole models."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from minitx.batch import BOS, EOS, PAD, Batch
from minitx.config import BagConfig, CnnConfig, LstmConfig, NetConfig, TransformerConfig
from minitx.nn.build import build_model
from minitx.nn.classifier import Classifier
from minitx.nn.sizes import ModelShape
from minitx.nn.translator import Translator

SRC_VOCAB, TGT_VOCAB, N_CLASSES, MAX_LENGTH = 29, 23, 5, 47


def tiny(**changes: Any) -> TransformerConfig:
    """Width 12, 3 heads, 2 layers, no dropout; attention's keys nested as in the configuration."""
    return TransformerConfig(**{"d_model": 12, "n_heads": 3, "d_ff": 17, "dropout": 0.0, **changes})


def small(kind: str, **changes: Any) -> NetConfig:
    """A classifier's configuration of any kind: width 7 (a transformer: 12), no dropout."""
    if kind == "transformer":
        return tiny(**changes)
    common = {"d_model": 7, "dropout": 0.0, **changes}
    match kind:
        case "cnn":
            return CnnConfig(**{"n_layers": 2, "channels": 11, "dilation": 2, **common})
        case "lstm":
            return LstmConfig(**{"n_layers": 2, "hidden": 5, **common})
        case _:
            return BagConfig(**{"ngrams": 3, "buckets": 101, **common})


def tiny_lstm(**changes: Any) -> LstmConfig:
    """Width 12, state 7, 2 layers, no dropout."""
    return LstmConfig(**{"d_model": 12, "hidden": 7, "n_layers": 2, "dropout": 0.0, **changes})


def classifier(config: NetConfig, seed: int = 0) -> Classifier:
    """A float64 classifier."""
    torch.manual_seed(seed)
    model = build_model(config, ModelShape("classification", SRC_VOCAB, n_classes=N_CLASSES, max_length=MAX_LENGTH))
    assert isinstance(model, Classifier)
    return model.double()


def translator(config: NetConfig, joint: bool = False, seed: int = 0) -> Translator:
    """A float64 translator."""
    torch.manual_seed(seed)
    tgt_vocab = SRC_VOCAB if joint else TGT_VOCAB
    shape = ModelShape("translation", SRC_VOCAB, tgt_vocab, joint=joint, max_length=MAX_LENGTH)
    model = build_model(config, shape)
    assert isinstance(model, Translator)
    return model.double()


def texts(lengths: list[int], vocab: int, seed: int = 1) -> list[list[int]]:
    """Random ordinary token ids."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, vocab, (n,), generator=generator).tolist() for n in lengths]


def pad(rows: list[list[int]], width: int | None = None) -> tuple[Tensor, Tensor]:
    """(ids, mask): padded on the right."""
    width = width or max(map(len, rows))
    ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])


def make_batch(sources: list[list[int]], targets: list[list[int]] | None = None, extra: int = 0) -> Batch:
    """A batch of these texts with `extra` needless columns of padding; without targets it is a classifier's."""
    src, src_mask = pad(sources, max(map(len, sources)) + extra)
    common: dict[str, Any] = {
        "rows": torch.arange(len(sources)),
        "src": src,
        "src_mask": None if bool(src_mask.all()) else src_mask,
        "sentence": torch.arange(src.shape[1]).expand(len(sources), -1) // 3,
    }
    if targets is None:
        return Batch(**common, targets=torch.arange(len(sources)) % N_CLASSES)
    full, real = pad([[*row, EOS] for row in targets], max(map(len, targets)) + 1 + extra)
    tgt_in = torch.cat([torch.full((len(targets), 1), BOS), full[:, :-1]], dim=1)
    return Batch(**common, targets=full[real], tgt_in=tgt_in, target_index=real.flatten().nonzero().squeeze(1))
