"""Promise 7: a step is the same on 1, 2 or 4 processes; and a run that loses one of them goes on from its checkpoint.

float64 agrees to 1e-9, up to the last step. In float32 losses agree to 1e-6 of their size and weights to 1e-5: sums of
gradients are rounded in another order. Biases of keys are left out there: a softmax over keys does not see them, so
their gradient is rounding alone, which AdamW makes as large as any other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from several_processes import KILLED, Job, fork_server, train_together
from tiny import ROOT, TINY_MODEL, TINY_TRAINER, Output, fingerprint, tiny_overrides

from minitx import distributed
from minitx.config import Config, ConfigError
from minitx.data import Masker, load_data
from minitx.distributed import ALONE, World
from minitx.nn.build import build_model
from minitx.training import run as session
from minitx.training.step import draw_seed
from minitx.training.trainer import model_shape

N_STEPS = 50
SIZES = (1, 2, 4)
TRAINER: dict[str, Any] = {
    **TINY_TRAINER, "max_steps": N_STEPS, "log_every": 1, "eval_every": 25, "save_every": 10, "accumulate": 4,
    "batch_tokens": 64, "eval_rows": 37, "average": {"kind": "ema", "decay": 0.9}, "resume": "auto",
}  # fmt: skip
OPTIM = {"lr": 3e-3, "schedule": "constant", "warmup_steps": 0, "r_drop": 0.7, "label_smoothing": 0.1}


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    return fork_server()


@pytest.fixture(scope="module")
def translation(tiny_data: dict[str, Any]) -> dict[str, Any]:
    return {"data": tiny_data, "model": TINY_MODEL, "optim": OPTIM, "trainer": TRAINER}


@pytest.fixture(scope="module")
def pretrained(tiny_classes: dict[str, Any]) -> dict[str, Any]:
    """A classifier that first guesses hidden tokens, both for so many steps."""
    model = {**TINY_MODEL, "token_dropout": 0.1, "word_dropout": 0.1}
    pretrain = {"kind": "masked", "max_steps": N_STEPS}
    return {"data": tiny_classes, "model": model, "optim": OPTIM, "trainer": TRAINER, "pretrain": pretrain}


def losses(run: Path) -> dict[str, list[float]]:
    """Split -> the losses that were logged."""
    found: dict[str, list[float]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        found.setdefault(record["split"], []).append(record["loss"])
    return found


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Last weights, and the average and moments that go with them."""
    last = run / "checkpoints" / "last"
    training = load_file(last / "training.safetensors")
    return load_file(last / "model.safetensors") | {k: t for k, t in training.items() if not k.startswith("rng/")}


def assert_alike(run: Path, other: Path, of_losses: float, of_weights: float, key_biases: bool = True) -> None:
    """That two runs agree in every step and at the end."""
    mine, theirs = losses(run), losses(other)
    assert mine.keys() == theirs.keys() and len(mine["train"]) == N_STEPS
    for split in mine:
        np.testing.assert_allclose(mine[split], theirs[split], rtol=of_losses)
    first, second = weights(run), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        if key_biases or not name.endswith("project.bias"):
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=of_weights, msg=name)
    for part in ("metrics", "steps", "best_step"):
        ours, expected = (json.loads((path / "results.json").read_text())[part] for path in (run, other))
        assert ours == expected


# -------------------------------------------------------------------------------------------------- the same numbers


@pytest.fixture(scope="module")
def doubles(
    server: ForkServerContext,
    translation: dict[str, Any],
    pretrained: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Folders `<kind>-<processes>` of runs in float64."""
    folder = tmp_path_factory.mktemp("doubles")
    for size in SIZES:
        runs = [(translation, folder / f"translation-{size}"), (pretrained, folder / f"pretrained-{size}")]
        assert train_together(server, size, Job(runs=runs, double=True)) == [0] * size
    return folder


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("kind", ["translation", "pretrained", "pretrained/pretrain"])
def test_any_number_of_processes_trains_alike(doubles: Path, kind: str, size: int) -> None:
    """With dropout, R-Drop, token and word dropout, hidden tokens, averaged weights, unequal lengths."""
    name, _, stage = kind.partition("/")
    one, several = (doubles / f"{name}-{n}" / stage for n in (1, size))
    assert next(iter(weights(one).values())).dtype == torch.float64
    assert_alike(several, one, 1e-9, 1e-9)


def test_saved_on_some_processes_and_resumed_on_others(
    server: ForkServerContext, translation: dict[str, Any], doubles: Path, tmp_path: Path
) -> None:
    for size, steps in ((2, 10), (1, 20), (4, 40), (2, N_STEPS)):
        raw = {**translation, "trainer": {**TRAINER, "max_steps": steps}}
        assert train_together(server, size, Job(runs=[(raw, tmp_path / "run")], double=True)) == [0] * size
    for name, tensor in weights(tmp_path / "run").items():
        torch.testing.assert_close(tensor, weights(doubles / "translation-1")[name], rtol=0, atol=1e-9, msg=name)
    np.testing.assert_allclose(losses(tmp_path / "run")["train"], losses(doubles / "translation-1")["train"], rtol=1e-9)


@pytest.fixture(scope="module")
def straight(
    server: ForkServerContext, translation: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], Path]:
    """The float32 run of so many processes that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")

    def of(size: int) -> Path:
        run = folder / str(size)
        if not run.exists():
            assert train_together(server, size, Job(runs=[(translation, run)])) == [0] * size
        return run

    return of


@pytest.mark.parametrize("size", SIZES[1:])
def test_float32_agrees_up_to_rounding(straight: Callable[[int], Path], size: int) -> None:
    assert_alike(straight(size), straight(1), 1e-6, 1e-5, key_biases=False)


# ---------------------------------------------------------------------------------------------------- lost and stopped


@pytest.mark.parametrize(("size", "rank"), [(2, 0), (4, 1)])
def test_a_killed_process_ends_the_others_and_the_run_goes_on_to_the_same_bits(
    server: ForkServerContext,
    translation: dict[str, Any],
    straight: Callable[[int], Path],
    tmp_path: Path,
    size: int,
    rank: int,
) -> None:
    """Also from three processes on, where DistributedDataParallel's own sums are in another order after a resume."""
    job = Job(runs=[(translation, tmp_path / "run")], signalled=(rank, 23, signal.SIGKILL))
    codes = train_together(server, size, job, tmp_path / "errors")
    assert codes == [KILLED if r == rank else 1 for r in range(size)]
    (line,) = (tmp_path / "errors").read_text().splitlines()
    again = f"torchrun --nproc-per-node {size} train.py trainer.resume={tmp_path / 'run'}"
    assert line == f"another of the {size} processes has ended, and so this one does; continue with: {again}"
    assert not (tmp_path / "run" / "checkpoints" / "last-00000030").exists()
    assert train_together(server, size, Job(runs=[(translation, tmp_path / "run")])) == [0] * size
    expected, found = fingerprint(straight(size)), fingerprint(tmp_path / "run")
    assert [key for key in expected if found[key] != expected[key]] == []


def test_a_stop_asked_of_one_process_stops_all_after_the_same_step(
    server: ForkServerContext, translation: dict[str, Any], straight: Callable[[int], Path], tmp_path: Path
) -> None:
    job = Job(runs=[(translation, tmp_path / "run")], signalled=(1, 13, signal.SIGTERM))
    assert train_together(server, 2, job, tmp_path / "errors") == [128 + signal.SIGTERM] * 2
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    # The signal comes after process 1 has agreed on step 13: they agree on it in the next.
    assert (results["status"], results["steps"]) == ("stopped", 14)
    log = " ".join((tmp_path / "run" / "train.log").read_text().split())
    assert "stopped at step 14, all saved; continue with: torchrun --nproc-per-node 2 train.py trainer.resume=" in log
    assert train_together(server, 2, Job(runs=[(translation, tmp_path / "run")])) == [0, 0]
    expected, found = fingerprint(straight(2)), fingerprint(tmp_path / "run")
    assert [key for key in expected if found[key] != expected[key]] == []


# ------------------------------------------------------------------------------------------------------------- refused


def test_processes_of_different_runs_are_refused(
    server: ForkServerContext, translation: dict[str, Any], tmp_path: Path
) -> None:
    job = Job(runs=[(translation, tmp_path / "run")], by_rank={1: {"max_steps": 51, "keep": 3}})
    assert train_together(server, 2, job, tmp_path / "errors") == [2, 2]
    assert (tmp_path / "errors").read_text() == (
        "process (1) must train the same run as process 0 (trainer.max_steps 50, not 51; trainer.keep 1, not 3); "
        "start all of them by one line\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        (
            {"trainer": {"accumulate": 3}},
            "trainer.accumulate (3) must be a multiple of the number of processes (2), which share the batches of a "
            "step; add trainer.accumulate=4, and a smaller trainer.batch_tokens for steps of the same size",
        ),
        (
            {"trainer": {"accumulate": 2, "cuda_graphs": "on"}},
            "trainer.cuda_graphs (on) must be off with 2 processes; leave it out",
        ),
    ],
)
def test_what_several_processes_cannot_train_is_refused(
    tiny: Callable[..., Config], sections: dict[str, Any], line: str
) -> None:
    config = tiny(**sections)
    with pytest.raises(ConfigError) as error:
        session._for_processes(config, 2)
    assert str(error.value) == line
    assert session._for_processes(config, 1) is config


def test_a_linear_model_is_refused(tiny_classes: dict[str, Any]) -> None:
    from minitx.config.load import load

    with pytest.raises(ConfigError, match=r"^model \(linear\) must be a net to be trained by 2 processes; leave torch"):
        session._for_processes(load({"data": tiny_classes, "model": {"kind": "linear"}}), 2)


def test_graphs_that_nobody_asked_for_are_off(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = tiny(trainer={"device": "cuda", "accumulate": 2})
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert config.records_graphs(True) and not session._for_processes(config, 2).records_graphs(True)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"^--nproc-per-node \(2\) must be at most the number of GPUs \(1\); or add"):
        session._for_processes(config, 2)


def test_a_sweep_is_refused(train_py: Callable[..., Output], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed._Joined, "world", World(0, 2))
    done = train_py("-m", "seed=0,1", "trainer.accumulate=2")
    assert (done.code, done.err) == (
        2,
        "-m (in 2 processes) must be left out with several processes, because a sweep or study starts its own; type "
        "python train.py -m ..., or one run for each torchrun\n",
    )


# ------------------------------------------------------------------------------------------------------------ the parts


def test_torchrun_trains_one_run(tiny_data: dict[str, Any], tmp_path: Path) -> None:
    """By the command that a user types: one folder, one console."""
    small = [*tiny_overrides(tiny_data), "trainer.accumulate=2", "trainer.max_steps=6"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*launcher, str(ROOT / "train.py"), *small],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (results,) = (tmp_path / "outputs" / "runs").glob("*/*/results.json")
    found = json.loads(results.read_text())
    assert found["status"] == "finished" and found["steps"] == 6 and found["device"].startswith("2 x cpu")
    assert done.stdout.count("run     outputs/runs/") == 1 and done.stdout.count("best checkpoint") == 1


def test_one_process_alone_gives_back_what_it_is_given() -> None:
    values = np.arange(3.0)
    assert ALONE.sum(values) is values and ALONE.gather({"a": 1}) == [{"a": 1}] and ALONE.share("abc") == "abc"
    assert ALONE.is_first and ALONE.from_first(lambda: 7) == 7 and ALONE.first_to_print("x")
    assert (ALONE.decided(True), ALONE.decided(False)) == (True, False)
    assert [World(r, 3).share(range(7)) for r in range(3)] == [range(0, 7, 3), range(1, 7, 3), range(2, 7, 3)]


def test_every_place_has_its_own_draws() -> None:
    seeds = {draw_seed(seed, step, place) for seed in range(3) for step in range(50) for place in range(5)}
    assert len(seeds) == 3 * 50 * 5 and draw_seed(2, 7, 1) == draw_seed(2, 7, 1)
    assert all(0 <= seed < 1 << 63 for seed in seeds)


@pytest.mark.parametrize("task", ["translation", "classification", "masked"])
@pytest.mark.parametrize("kind", ["transformer", "lstm", "cnn", "bag"])
def test_every_batch_uses_every_weight(
    tiny: Callable[..., Config], tiny_classes: dict[str, Any], task: str, kind: str
) -> None:
    """Or DistributedDataParallel would wait for a gradient that does not come."""
    if (task, kind) in {("translation", "cnn"), ("translation", "bag"), ("masked", "bag")}:
        pytest.skip("there is no such model")
    config = tiny(model={"d_model": 16}) if task == "translation" else tiny(data={**tiny_classes, "task": task})
    raw = config.model_dump(mode="json")
    raw["model"] = {"kind": kind, "d_model": 12} if kind != "transformer" else {**TINY_MODEL, "pooling": "cls"}
    if kind != "transformer" or task != "classification":
        raw["model"].pop("pooling", None)
    from minitx.config.load import load

    config = load(raw)
    data = load_data(config.data)
    model = build_model(config.model, model_shape(config, data))
    rows = np.arange(5)
    batch = data.splits["train"].batch(rows)
    if task == "masked":
        batch = Masker(data.splits["train"], config.masking, data.src_tokenizer.vocab_size)(batch, rows)
    model.loss(batch, 0.1, 0.0).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
