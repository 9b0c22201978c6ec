"""Data: sources, tokenisation, subsets, batching. `load_data` is the door; nothing here knows of models."""

from minitx.data.batching import plan_epoch, plan_eval
from minitx.data.build import load_data
from minitx.data.encode import encode_texts
from minitx.data.masking import Masker
from minitx.data.resident import LENGTH_STEP, TARGET_STEP, ResidentSplit
from minitx.data.sources import check_source, source_fingerprint
from minitx.data.task import Split, TaskData
from minitx.data.tokenizer import Tokenizer

__all__ = [
    "LENGTH_STEP",
    "TARGET_STEP",
    "Masker",
    "ResidentSplit",
    "Split",
    "TaskData",
    "Tokenizer",
    "check_source",
    "encode_texts",
    "load_data",
    "plan_epoch",
    "plan_eval",
    "source_fingerprint",
]
