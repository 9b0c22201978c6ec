"""Recorded steps compute what plain steps do. Recording needs a GPU; here a recording is a function run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from minitx.config import Config, ConfigError, LstmConfig, OptimConfig, TrainerConfig
from minitx.config.load import load
from minitx.data import LENGTH_STEP, ResidentSplit, Split, TaskData, load_data, plan_epoch
from minitx.errors import RunError
from minitx.nn.build import build_model
from minitx.training.device import resolve_compute
from minitx.training.run_folder import run_hash
from minitx.training.step import WARM_UP, CudaRecorder, Graph, GraphCache, Stepper
from minitx.training.trainer import model_shape

CPU = torch.device("cpu")


class Rerun:
    """Stands in for a CUDA graph: computes again, from and into the memory that it was recorded with."""

    def __init__(self, compute: Callable[[], Tensor], loss: Tensor) -> None:
        self.compute, self.loss, self.replays = compute, loss, 0

    def replay(self) -> None:
        self.replays += 1
        self.loss.copy_(self.compute())


def record(compute: Callable[[], Tensor]) -> tuple[Graph, Tensor]:
    loss = torch.full((), float("nan"), dtype=torch.float64)
    return Rerun(compute, loss), loss


def stepper(config: Config, data: TaskData, r_drop: float = 0.0) -> Stepper:
    torch.manual_seed(0)
    model: nn.Module = build_model(config.model, model_shape(config, data)).double()  # Adam magnifies rounding
    return Stepper(model, OptimConfig(label_smoothing=0.1, r_drop=r_drop), CPU, bf16=False, compiled=False)


@pytest.fixture(params=["transformer", "lstm"])
def config(request: pytest.FixtureRequest, tiny: Callable[..., Config]) -> Config:
    config = tiny(model={"dropout": 0.0})
    lstm = LstmConfig(d_model=16, n_layers=2, dropout=0.0)
    return config if request.param == "transformer" else config.model_copy(update={"model": lstm})


@pytest.fixture(params=["translation", "classification"])
def data(request: pytest.FixtureRequest, config: Config) -> TaskData:
    """The tiny task; as a classification, texts are labelled with their first letter."""
    data = load_data(config.data)
    if request.param == "translation":
        return data
    splits = {name: replace(split, tgt=None, labels=first_letters(split)) for name, split in data.splits.items()}
    names = tuple("abcdefg")
    return replace(data, task="classification", splits=splits, label_names=names, tgt_tokenizer=None)


def first_letters(split: Split) -> np.ndarray:
    return np.array(["abcdefg".index(split.text(row)[0]) for row in range(len(split))])


@pytest.mark.parametrize("r_drop", [0.0, 5.0])
def test_recorded_steps_equal_plain_ones(config: Config, data: TaskData, r_drop: float) -> None:
    split = data.splits["train"]
    budget = config.trainer.batch_tokens
    plan = plan_epoch(-(-split.lengths // LENGTH_STEP) * LENGTH_STEP, budget, 0, 0)[:4] * 3
    plain, graphed = stepper(config, data, r_drop), stepper(config, data, r_drop)
    cache = graphed._graphs = GraphCache(graphed._compute, record)
    resident = ResidentSplit(split, CPU, few_shapes=budget)
    for rows in plan:
        a = plain.step([split.batch(rows, sentences=False)], 0.01)
        b = graphed.step([resident.batch(rows)], 0.01)
        assert a.n_targets == b.n_targets
        torch.testing.assert_close(b.loss, a.loss, rtol=1e-6, atol=0)
        torch.testing.assert_close(b.grad_norm, a.grad_norm, rtol=1e-6, atol=0)
    for p, q in zip(plain.parameters, graphed.parameters, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    replays = [r.graph.replays for r in cache._recorded.values() if isinstance(r.graph, Rerun)]
    assert sum(replays) == len(plan) - sum(min(WARM_UP, n) for n in cache._seen.values()) > 0


def test_accumulation_uses_one_divisor(config: Config, data: TaskData) -> None:
    split = data.splits["train"]
    plain, graphed = stepper(config, data), stepper(config, data)
    graphed._graphs = GraphCache(graphed._compute, record)
    rows = [np.arange(5), np.arange(5, 10)]
    for _ in range(4):
        a = plain.step([split.batch(r, sentences=False) for r in rows], 0.01)
        b = graphed.step([split.batch(r, sentences=False) for r in rows], 0.01)
        torch.testing.assert_close(b.grad_norm, a.grad_norm, rtol=1e-5, atol=0)


def test_graphs_need_a_gpu_and_no_compiler() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.cuda_graphs \(on\) must be off on a CPU; "):
        resolve_compute(TrainerConfig(device="cpu", cuda_graphs="on"))
    with pytest.raises(ConfigError, match=r"^trainer\.cuda_graphs \(on\) must be off where trainer\.compile"):
        load({"trainer": {"compile": True, "cuda_graphs": "on"}})


@pytest.mark.parametrize(
    ("changes", "on_gpu", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"trainer": {"cuda_graphs": "off"}}, True, False),
        ({"trainer": {"compile": True}}, True, False),
        ({"model": {"d_model": 512}}, True, True),
        ({"model": {"d_model": 1024}}, True, False),
        ({"model": {"d_model": 1024}, "trainer": {"cuda_graphs": "on"}}, True, True),
        ({"model": {"attention": {"span": "sentence"}}}, True, False),
        ({"model": {"chunk": 7}, "data": {"task": "classification"}}, True, False),
        ({"model": {"kind": "linear"}, "data": {"task": "classification"}}, True, False),
    ],
)
def test_auto_records_where_it_pays(changes: dict[str, Any], on_gpu: bool, expected: bool) -> None:
    assert load(changes).records_graphs(on_gpu) is expected


def test_a_run_is_named_by_what_auto_comes_to() -> None:
    """Graphs round lengths up, and so change the batches; on a CPU nothing is recorded."""
    auto, on, off = (load({"trainer": {"cuda_graphs": value}}) for value in ("auto", "on", "off"))
    assert (
        run_hash(auto, "f", "cuda", "bf16") == run_hash(on, "f", "cuda", "bf16") != run_hash(off, "f", "cuda", "bf16")
    )
    assert run_hash(auto, "f", "cpu", "fp32") == run_hash(off, "f", "cpu", "fp32")


def test_a_failed_recording_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    @contextmanager
    def refusing(*_: object, **__: object) -> Iterator[None]:
        raise RuntimeError("operation not permitted when stream is capturing")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refusing)
    with pytest.raises(RunError, match=r"not permitted.*; add trainer\.cuda_graphs=off"):
        CudaRecorder()(lambda: torch.zeros(()))


@pytest.mark.gpu
@pytest.mark.parametrize("r_drop", [0.0, 5.0])
def test_graphs_on_a_gpu_equal_plain_steps(config: Config, data: TaskData, r_drop: float) -> None:
    split, device, budget = data.splits["train"], torch.device("cuda"), config.trainer.batch_tokens
    plan = plan_epoch(-(-split.lengths // LENGTH_STEP) * LENGTH_STEP, budget, 0, 0)[:4] * 5
    losses: dict[bool, list[Tensor]] = {}
    for graphs in (False, True):
        torch.manual_seed(0)
        model = build_model(config.model, model_shape(config, data)).to(device)
        one = Stepper(model, OptimConfig(r_drop=r_drop), device, bf16=False, compiled=False, graphs=graphs)
        resident = ResidentSplit(split, device, few_shapes=budget)
        losses[graphs] = [one.step([resident.batch(rows)], 0.003).loss for rows in plan]
    torch.testing.assert_close(torch.stack(losses[True]), torch.stack(losses[False]), rtol=1e-3, atol=1e-3)
