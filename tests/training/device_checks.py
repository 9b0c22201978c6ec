"""What a GPU runs, run without one: on a device that refuses what a GPU refuses and counts what the host waits for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_device import CaptureError, copies, forget, host_reads, pretend_device, recording

from minitx.batch import Batch
from minitx.bench.jobs import TRANSLATION, Ids
from minitx.bench.workloads import load_split
from minitx.config import Config
from minitx.config.load import load
from minitx.data import LENGTH_STEP, Masker, ResidentSplit, TaskData, load_data, plan_epoch
from minitx.nn.build import Model, build_model
from minitx.training import device as devices
from minitx.training import loop
from minitx.training import run as session
from minitx.training.checkpoint_files import load_checkpoint
from minitx.training.step import MOST_GRAPHS, WARM_UP, GraphCache, Stepper
from minitx.training.trainer import model_shape

TRANSFORMERS: dict[str, dict[str, Any]] = {
    "default": {},
    "post-gelu": {"norm": "post", "activation": "gelu"},
    "learned": {"position": "learned"},
    "rotary": {"position": "rotary"},
    "none": {"position": "none"},
    "grouped": {"attention": {"heads": "grouped"}},
    "window": {"attention": {"span": "window", "window": 2}},
    "wide-window": {"attention": {"span": "window", "window": 40}},
    "sentence": {"attention": {"span": "sentence"}},
    "naive": {"attention": {"backend": "naive"}},
    "attention-dropout": {"attention": {"dropout": 0.1}},
    "multi-query": {"attention": {"n_kv_heads": 1}},
    "low-rank": {"attention": {"kv_rank": 4}},
    "tied": {"attention": {"tie_query_key": True}},
    "unvalued": {"attention": {"project_values": False}},
    "head-dim": {"head_dim": 6},
}
TASKS = ("translation", "classification", "masked")
POOLINGS = ("cls", "max", "attention", "additive")
OTHERS: dict[str, dict[str, Any]] = {
    "lstm": {"kind": "lstm", "d_model": 16, "n_layers": 2},
    "cnn": {"kind": "cnn", "d_model": 16, "dilation": 2},
    "bag": {"kind": "bag", "d_model": 16, "buckets": 97},
}
CASES = [
    *(pytest.param(task, changes, id=f"{task}-{name}") for task in TASKS for name, changes in TRANSFORMERS.items()),
    *(pytest.param("classification", {"pooling": kind}, id=f"pooling-{kind}") for kind in POOLINGS),
    pytest.param("classification", {"chunk": 5}, id="chunk"),
    pytest.param("classification", {"word_dropout": 0.2, "token_dropout": 0.1}, id="noise"),
    *(
        pytest.param(task, OTHERS[kind], id=f"{task}-{kind}")
        for task, kinds in (("translation", ["lstm"]), ("classification", OTHERS), ("masked", ["lstm", "cnn"]))
        for kind in kinds
    ),
]


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    with pretend_device() as found:
        yield found


@pytest.fixture
def make(tiny: Callable[..., Config], tiny_classes: dict[str, Any]) -> Callable[..., Config]:
    """A configuration of a task with a model; keyword sections go on top."""

    def made(task: str, model: dict[str, Any], **sections: Any) -> Config:
        config = tiny(**sections)
        data = {} if task == "translation" else {"data": {**tiny_classes, "task": task}}
        raw = {**config.model_dump(mode="json"), **data}
        own = {**raw["model"], "dropout": 0.1} if "kind" not in model else {"dropout": 0.1}
        return load({**raw, "model": {**own, **model}})

    return made


def model_of(config: Config, data: TaskData) -> Model:
    torch.manual_seed(0)
    model = build_model(config.model, model_shape(config, data))  # type: ignore[arg-type]
    noise = getattr(model, "noise", None)
    if noise is not None:
        noise.learn_words(torch.from_numpy(data.src_tokenizer.word_starts()))
    return model


def batches(config: Config, data: TaskData, device: torch.device, few_shapes: bool) -> list[Batch]:
    """Two batches of the training split, cut on the device as for graphs or as without."""
    split, budget = data.splits["train"], config.trainer.batch_tokens
    plan = plan_epoch(-(-split.lengths // LENGTH_STEP) * LENGTH_STEP, budget, 0, 0)[:2]
    sentences = config.model.reads_sentences  # type: ignore[union-attr]
    resident = ResidentSplit(split, device, sentences=sentences, few_shapes=budget if few_shapes else None)
    made = [resident.batch(rows) for rows in plan]
    if data.task != "masked":
        return made
    masker = Masker(split, config.masking, data.src_tokenizer.vocab_size)
    return [masker(b, rows, 0, 256 if few_shapes else None) for b, rows in zip(made, plan, strict=True)]


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("task", "changes"), CASES)
def test_a_step_asks_for_no_value_and_can_be_recorded(
    task: str, changes: dict[str, Any], bf16: bool, make: Callable[..., Config], gpu: torch.device
) -> None:
    config = make(task, changes, optim={"label_smoothing": 0.1})
    data = load_data(config.data)
    model = model_of(config, data).to(gpu)
    stepper = Stepper(model, config.optim, gpu, bf16, compiled=False)
    forget()
    for batch in batches(config, data, gpu, few_shapes=False):
        stepper.step([batch], 1e-3)
    assert not host_reads(), "a step, and cutting its batch, must not wait for the device"
    for r_drop in (0.0, 1.0):
        stepper.optim = config.optim.model_copy(update={"r_drop": r_drop})
        stepper._graphs = GraphCache(stepper._compute)  # as where graphs are on
        batch, scale = batches(config, data, gpu, few_shapes=True)[0], torch.ones((), device=gpu)
        stepper._compute(batch, scale)
        with recording():
            stepper._compute(batch, scale)
    assert all(p.grad is not None and p.grad.is_cuda for p in model.parameters())


RUNS = [
    pytest.param("translation", {"position": "rotary"}, True, id="translation"),
    pytest.param("classification", {}, True, id="classification"),
    pytest.param("classification", {}, False, id="from-the-host"),
    pytest.param("masked", {}, True, id="masked"),
]

CONSTANT = {"schedule": "constant", "warmup_steps": 0}
"""So that a run of fewer steps is the beginning of a longer one."""


@pytest.mark.parametrize(("task", "model", "resident"), RUNS)
def test_a_whole_run_is_the_cpus(
    task: str,
    model: dict[str, Any],
    resident: bool,
    make: Callable[..., Config],
    gpu: torch.device,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Training, validation, decoding with a beam, checkpoints and results; and again in two halves."""
    changes = {
        "trainer": {"average": {"kind": "ema"}, "head_statistics": 8, "eval_train_rows": 10, "attention_maps": 2}
    }
    config = make(task, {**model, "dropout": 0.0}, **changes, decode={"beam": 2}, optim=CONSTANT)
    log = logged(session.run(config, tmp_path / "cpu", quiet=True), tmp_path / "cpu")
    monkeypatch.setattr(devices, "resolve_device", lambda wanted: gpu)
    if resident:
        monkeypatch.setattr(loop, "_is_resident", lambda *_: True)
    results = session.run(config, tmp_path / "gpu", quiet=True)
    for ours, theirs in zip(logged(results, tmp_path / "gpu"), log, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)
    for steps in (7, 12):
        own = config.trainer.model_copy(update={"max_steps": steps, "resume": "auto"})
        session.run(config.model_copy(update={"trainer": own}), tmp_path / "halves", quiet=True)
    straight, halves = (load_checkpoint(tmp_path / name / "checkpoints" / "last") for name in ("gpu", "halves"))
    for name, tensor in straight.tensors["training.safetensors"].items():
        assert torch.equal(halves.tensors["training.safetensors"][name], tensor), name


def logged(results: dict[str, Any], folder: Path) -> list[dict[str, float]]:
    """The numbers of metrics.jsonl and of results.json that do not tell of time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "tokens_per_second", "split")
    found = [{k: v for k, v in line.items() if k not in timed} for line in lines]
    scores = {name: score["value"] for name, score in results["metrics"]["test"].items() if isinstance(score, dict)}
    return [*found, scores]


def test_what_a_gpu_refuses_is_refused(gpu: torch.device) -> None:
    x = torch.ones(3, device=gpu)
    with pytest.raises(RuntimeError, match="same device, found cpu beside pretend"):
        x + torch.ones(3)
    assert (x + torch.tensor(1.0)).device.type == gpu.type
    for forbidden in (
        lambda: x.sum().item(),
        lambda: x.nonzero(),
        lambda: x[x > 0],
        lambda: x.cpu(),
        lambda: torch.ones(3).to(gpu),
    ):
        forget()
        forbidden()
        assert host_reads() or copies()["in"] == 1
        with recording(), pytest.raises(CaptureError):
            forbidden()


def test_few_shapes_serve_an_epoch() -> None:
    """Graphs pay where a shape comes back: of captions as long as those of Multi30k, in batches of 2,048 tokens."""
    split = load_split(TRANSLATION, Ids(rows=29_000))
    plan = plan_epoch(-(-split.lengths // LENGTH_STEP) * LENGTH_STEP, 2048, 0, 0)
    resident = ResidentSplit(split, torch.device("cpu"), few_shapes=2048)
    shapes = Counter(resident.batch(rows).shapes for rows in plan)
    replayed = sum(max(0, n - WARM_UP - 1) for n in shapes.values())
    assert len(shapes) <= MOST_GRAPHS and replayed > 0.6 * len(plan), (len(plan), len(shapes), replayed)
