"""Data, from sources to batches: `load_data` turns a configuration into tokenised splits. Independent of models."""

from minitx.data.batching import plan_epoch, plan_eval
from minitx.data.masking import Masker
from minitx.data.pipeline.encode import encode_texts
from minitx.data.pipeline.load import identify_source, load_data
from minitx.data.pipeline.tokenizer import Tokenizer
from minitx.data.resident import LENGTH_STEP, TARGET_STEP, ResidentSplit
from minitx.data.splits import Split, TaskData

__all__ = [
    "LENGTH_STEP",
    "TARGET_STEP",
    "Masker",
    "ResidentSplit",
    "Split",
    "TaskData",
    "Tokenizer",
    "encode_texts",
    "identify_source",
    "load_data",
    "plan_epoch",
    "plan_eval",
]
