"""The contestant transformers: its Trainer with a BERT of the same size, batches grouped by length as it offers."""

from __future__ import annotations

import tempfile
from typing import Any

import accelerate  # noqa: F401 - the Trainer needs it, and says so less clearly
import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from minitx.batch import PAD
from minitx.bench.jobs import Job
from minitx.bench.measure import StepClock, now, training_result
from minitx.bench.torch_models import padded
from minitx.bench.workloads import load_split
from minitx.data import Split


class _Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows as the Trainer wants them; `row` tells which went into a batch."""

    def __init__(self, split: Split, rows: int) -> None:
        self.split, self.rows = split, rows
        assert split.labels is not None
        self.labels = split.labels

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> dict[str, Any]:
        if row >= self.rows:  # what ends a `for` over a sequence
            raise IndexError(row)
        return {"input_ids": self.split.src[row].tolist(), "labels": int(self.labels[row]), "row": row}


class _Collator:
    """Pads a batch, and remembers its rows in the order of the steps."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.batches: list[np.ndarray] = []

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        self.batches.append(np.array([row["row"] for row in rows]))
        ids = padded(self.split.src, self.batches[-1])
        labels = torch.tensor([row["labels"] for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "labels": labels}


class _Clocked(TrainerCallback):  # type: ignore[misc]
    def __init__(self, clock: StepClock) -> None:
        self.clock = clock

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.clock.before_step(state.global_step)


class _ShuffledGroups(Trainer):  # type: ignore[misc]
    """The Trainer's own batches in random order. It sorts pools of 50 batches from long to short, so that a few steps
    would otherwise see the longest rows alone."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        order = np.array(list(super()._get_train_sampler(train_dataset)))
        size = self.args.train_batch_size
        whole = len(order) // size * size
        batches = order[:whole].reshape(-1, size)
        return np.random.default_rng(self.args.seed).permutation(batches).flatten().tolist()


def train(job: Job) -> dict[str, Any]:
    """Trainer.train for `warmup` and `steps` steps."""
    split = _begin(job)
    collator = _Collator(split)
    device = torch.device(job.device)
    clock = StepClock(job.warmup, job.steps, device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _ShuffledGroups(
            _model(job), _arguments(job, folder), data_collator=collator, train_dataset=_Rows(split, len(split)),
            callbacks=[_Clocked(clock)],
        )  # fmt: skip
        trainer.train()
    # The loader collates one batch ahead of the steps; the order is the same.
    counted = collator.batches[job.warmup : job.warmup + job.steps]
    return training_result(job, clock, split, counted, trainer.model, pooler=True)


def infer(job: Job) -> dict[str, Any]:
    """Trainer.predict over the rows in their order."""
    split, device = _begin(job), torch.device(job.device)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(_model(job), _arguments(job, folder), data_collator=_Collator(split))
        trainer.predict(_Rows(split, min(job.rows, job.infer_rows)))
        start = now(device)
        count = len(trainer.predict(_Rows(split, job.infer_rows)).predictions)
        seconds = now(device) - start
    return {"seconds": seconds, "count": count, "per_second": count / seconds}


def _begin(job: Job) -> Split:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    return load_split(job.size, job.ids)


def _model(job: Job) -> BertForSequenceClassification:
    size = job.size
    torch.manual_seed(job.seed)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=size.vocab, hidden_size=size.d_model, num_hidden_layers=size.n_layers,
            num_attention_heads=size.n_heads, intermediate_size=size.d_ff, hidden_act=size.activation,
            hidden_dropout_prob=size.dropout, max_position_embeddings=size.max_length, num_labels=size.n_classes,
            pad_token_id=PAD,
        )
    )  # fmt: skip


def _arguments(job: Job, folder: str) -> TrainingArguments:
    """What a user sets; everything else is the Trainer's default, the gradient's largest norm of 1.0 too."""
    return TrainingArguments(
        folder, per_device_train_batch_size=job.rows, per_device_eval_batch_size=job.rows,
        max_steps=job.warmup + job.steps, use_cpu=job.device == "cpu", bf16=job.precision == "bf16", learning_rate=3e-4,
        train_sampling_strategy="group_by_length", report_to="none", save_strategy="no", remove_unused_columns=False,
        disable_tqdm=True, dataloader_pin_memory=job.device == "cuda", seed=job.seed,
    )  # fmt: skip
