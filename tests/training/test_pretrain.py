"""Two stages in one run: what the second takes over, and that a kill anywhere changes nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY_MODEL, TINY_TRAINER, Output, fingerprint

from minitx.config import Config, ConfigError
from minitx.config.load import load, override
from minitx.data import identify_source
from minitx.nn.build import build_model
from minitx.nn.sizes import ModelShape
from minitx.predictor import Predictor
from minitx.training import loop, pretrain
from minitx.training import run as session
from minitx.training.checkpoint_files import load_checkpoint
from minitx.training.loop import build_loop
from minitx.training.pretrain import check_pretraining
from minitx.training.run_folder import RunFolder, run_hash

FIRST, SECOND = 8, 7
"""Steps of the two stages."""
Make = Callable[..., Config]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words by whether their letters rise, in the user's own format."""
    folder, rng = tmp_path_factory.mktemp("words"), random.Random(0)
    found = sorted({"".join(rng.choices("abcdefg", k=rng.randint(2, 9))) for _ in range(300)})
    lines = [f"{word},{'up' if word[0] < word[-1] else 'down'}" for word in found]
    (folder / "words.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return folder / "words.csv"


@pytest.fixture(scope="module")
def make(words: Path) -> Make:
    def config(**sections: Mapping[str, Any]) -> Config:
        data = {
            "name": "words", "source": "files", "task": "classification", "path": str(words), "max_length": 16,
            "cache_dir": str(words.parent / "cache"), "tokenizer": {"kind": "char"},
        }  # fmt: skip
        trainer = {
            **TINY_TRAINER, "max_steps": SECOND, "save_every": 3, "eval_every": 4, "accumulate": 2, "resume": "auto",
            "average": {"kind": "ema", "decay": 0.9},
        }  # fmt: skip
        own = {"kind": "masked", "max_epochs": None, "max_steps": FIRST}
        raw: dict[str, Any] = {
            "data": data, "model": {**TINY_MODEL, "token_dropout": 0.2}, "trainer": trainer, "pretrain": own,
            "optim": {"label_smoothing": 0.1, "r_drop": 0.5}, "masking": {"rate": 0.3},
        }  # fmt: skip
        for name, value in sections.items():
            raw[name] = {**raw[name], **value}
        return load(raw)

    return config


@pytest.fixture(scope="module")
def straight(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody killed."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    session.run(make(), folder, quiet=True)
    return folder


class Killed(BaseException):
    """Nothing catches it to save, as nothing does of a SIGKILL."""


@contextmanager
def killed_after(steps: int) -> Iterator[None]:
    """Die at the end of that step, counted over both stages."""
    original, left = loop.Loop._train_step, iter(range(steps - 1, -1, -1))

    def step(self: loop.Loop) -> None:
        original(self)
        if next(left) == 0:
            raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop.Loop, "_train_step", step)
        yield


def assert_same(folder: Path, straight: Path) -> None:
    for stage in (".", "pretrain"):
        found, wanted = fingerprint(folder / stage), fingerprint(straight / stage)
        assert found.keys() == wanted.keys()
        assert [key for key in wanted if found[key] != wanted[key]] == []


# ---------------------------------------------------------------------------------------------------- what is taken


def test_both_stages_are_whole_runs_and_the_results_name_both(straight: Path) -> None:
    outer, inner = (json.loads((folder / "results.json").read_text()) for folder in (straight, straight / "pretrain"))
    assert (outer["status"], inner["status"], outer["steps"], inner["steps"]) == ("finished", "finished", 7, 8)
    assert set(outer["metrics"]["test"]) >= {"accuracy", "macro_f1"} and set(inner["metrics"]["test"]) == {
        "masked_accuracy"
    }
    told = outer["pretrain"]
    assert told == {"run": "pretrain", **{k: inner[k] for k in ("metrics", "loss", "steps", "best_step", "seconds")}}
    for split in ("validation", "test"):
        low, high = told["metrics"][split]["masked_accuracy"]["ci95"]
        assert low <= told["metrics"][split]["masked_accuracy"]["value"] <= high
    files = {path.name for path in (straight / "pretrain").iterdir()}
    assert files == {"checkpoints", "config.yaml", "metrics.jsonl", "results.json", "tensorboard", "train.log"}
    log = (straight / "train.log").read_text()
    assert "stage 1 of 2: guess hidden tokens" in log and "stage 2 of 2: classification" in log
    assert "start   token table and encoder of " in log and "masked accuracy" in log


def test_the_reader_is_taken_over_and_the_head_is_new(
    make: Make, tmp_path: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, torch.Tensor]] = []
    original = build_loop

    def noted(model: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        begun.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return original(model, *args, **kwargs)

    monkeypatch.setattr("minitx.training.trainer.build_loop", noted)
    config = make(model={"pooling": "attention"})
    session.run(config, tmp_path / "run", quiet=True)
    best = load_checkpoint(tmp_path / "run" / "pretrain" / "checkpoints" / "best").tensors["model.safetensors"]
    torch.manual_seed(config.seed)
    shape = ModelShape("classification", len(best["src_tokens.weight"]), n_classes=2, max_length=16)
    fresh = build_model(config.model, shape).state_dict()  # type: ignore[arg-type]
    _, start = begun
    assert start.keys() == fresh.keys() and not set(start) & {"transform.0.weight"}
    taken = {name for name in start if name.startswith(("src_tokens.", "encoder."))}
    assert set(start) - taken == {"pooling.query", "head.weight", "head.bias", "temperature"}
    assert all(torch.equal(start[name], best[name]) for name in taken)
    assert all(torch.equal(start[name], fresh[name]) for name in set(start) - taken)
    assert not torch.equal(start["src_tokens.weight"], fresh["src_tokens.weight"])


def test_the_first_stage_does_without_what_is_there_for_classes(straight: Path) -> None:
    inner, outer = RunFolder(straight / "pretrain").read_config(), RunFolder(straight).read_config()
    assert inner.data == outer.data.model_copy(update={"task": "masked"}) and inner.masking == outer.masking
    assert (inner.pretrain.kind, inner.trainer.patience, inner.trainer.max_steps) == ("none", None, FIRST)
    assert (inner.optim.label_smoothing, inner.optim.r_drop) == (0, 0)
    assert inner.model.token_dropout == 0  # type: ignore[union-attr]
    own = override(
        outer, ["pretrain.lr=0.5", "pretrain.dropout=0.25", "pretrain.batch_tokens=99", "pretrain.max_epochs=3"]
    )
    staged = pretrain.masked_stage(own)
    assert (staged.optim.lr, staged.trainer.batch_tokens, staged.trainer.max_epochs) == (0.5, 99, 3)
    assert staged.model.dropout == 0.25  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------------------------- kills


def test_killed_in_both_stages_and_resumed_it_is_the_run_that_was_not(
    make: Make, straight: Path, tmp_path: Path
) -> None:
    for steps in (2, 7, 5, 2, 6):  # before any checkpoint; in stage one; past its end, in stage two
        with killed_after(steps), pytest.raises(Killed):
            session.run(make(), tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "checkpoints" / "last").exists()
    session.run(make(), tmp_path / "run", quiet=True)
    assert_same(tmp_path / "run", straight)


def test_killed_between_the_stages(make: Make, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(pretrain, "_read", killed)
        with pytest.raises(Killed):
            session.run(make(), tmp_path / "run", quiet=True)
    written = (tmp_path / "run" / "pretrain" / "results.json").stat().st_mtime_ns
    session.run(make(), tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "pretrain" / "results.json").stat().st_mtime_ns == written
    assert_same(tmp_path / "run", straight)


def test_a_longer_second_stage_leaves_the_first_alone(make: Make, tmp_path: Path) -> None:
    session.run(make(), tmp_path / "run", quiet=True)
    inner = tmp_path / "run" / "pretrain" / "results.json"
    before = inner.stat().st_mtime_ns
    longer = make(trainer={"max_steps": SECOND + 3, "patience": 9})
    results = session.run(longer, tmp_path / "run", quiet=True)
    assert results["steps"] == SECOND + 3 and inner.stat().st_mtime_ns == before
    assert results["pretrain"]["steps"] == FIRST
    with pytest.raises(ConfigError, match=r"it holds another \(pretrain.max_steps 8, not 9\)"):
        session.run(make(pretrain={"max_steps": FIRST + 1}), tmp_path / "run", quiet=True)


def test_a_folder_that_only_holds_a_first_stage_is_not_written_over(make: Make, tmp_path: Path) -> None:
    with killed_after(7), pytest.raises(Killed):
        session.run(make(), tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match=r"must be empty, it holds a run; add trainer\.resume=auto"):
        session.run(make(trainer={"resume": None}), tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match=r"it holds another \(masking.rate 0.3, not 0.5\)"):
        session.run(make(masking={"rate": 0.5}), tmp_path / "run", quiet=True)


# ---------------------------------------------------------------------------------------------- another run's start


def test_several_runs_share_one_pretraining(make: Make, straight: Path, tmp_path: Path) -> None:
    own = {"run": str(straight / "pretrain")}
    results = session.run(make(pretrain=own), tmp_path / "run", quiet=True)
    assert results["pretrain"]["run"] == own["run"] and not (tmp_path / "run" / "pretrain").exists()
    found, wanted = fingerprint(tmp_path / "run"), fingerprint(straight)
    assert found["last/model.safetensors"] == wanted["last/model.safetensors"]
    assert found["metrics"] == wanted["metrics"]


def test_a_pretraining_that_is_gone_is_not_missed_later(make: Make, straight: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shutil.copytree(straight / "pretrain", shared, symlinks=True)
    own = {"run": str(shared)}
    first = session.run(make(pretrain=own), tmp_path / "run", quiet=True)
    shutil.rmtree(shared)
    assert session.run(make(pretrain=own), tmp_path / "run", quiet=True) == first
    longer = session.run(make(pretrain=own, trainer={"max_steps": SECOND + 1}), tmp_path / "run", quiet=True)
    assert longer["steps"] == SECOND + 1 and longer["pretrain"] == first["pretrain"]
    with pytest.raises(ConfigError, match=r"^pretrain\.run \("):
        session.run(make(pretrain=own), tmp_path / "other", quiet=True)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"model": {"d_model": 20}},
            r"agree with this run in data, tokeniser and model; it has model.d_model 16, not 20",
        ),
        ({"model": {"attention": {"span": "window"}}}, "it has model.attention.span global, not window"),
        ({"data": {"max_length": 9}}, "it has data.max_length 16, not 9"),
        ({"data": {"tokenizer": {"kind": "word"}}}, "it has data.tokenizer.kind char, not word"),
        ({"data": {"train_size": 0.5}}, "it has data.train_size None, not 0.5"),
    ],
)
def test_another_run_must_agree(
    make: Make, straight: Path, tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        session.run(make(pretrain={"run": str(straight / "pretrain")}, **sections), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def checked(config: Config) -> None:
    check_pretraining(config, identify_source(config.data))


def test_what_may_differ_may_differ(make: Make, straight: Path) -> None:
    free = {"pooling": "cls", "dropout": 0.4, "token_dropout": 0.0, "attention": {"dropout": 0.1, "backend": "naive"}}
    checked(make(pretrain={"run": str(straight / "pretrain")}, model=free))


def test_a_run_to_start_from_must_be_a_finished_masked_one(make: Make, straight: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a run of data.task=masked, not classification; .* RUN/pretrain"):
        checked(make(pretrain={"run": str(straight)}))
    with killed_after(7), pytest.raises(Killed):
        session.run(make(), tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="must be a run that has finished; finish it first: "):
        checked(make(pretrain={"run": str(tmp_path / "run" / "pretrain")}))
    with pytest.raises(ConfigError, match=r"^pretrain\.run \(.*none\) must be a run folder with a config\.yaml; "):
        checked(make(pretrain={"run": str(tmp_path / "none")}))


def test_other_words_are_refused(make: Make, straight: Path, tmp_path: Path, words: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(words.read_text() + "zzz,up\n")
    config = make(pretrain={"run": str(straight / "pretrain")}, data={"path": str(other)})
    with pytest.raises(ConfigError, match="it has other data"):
        checked(config)


def test_masked_runs_that_hide_other_tokens_are_not_compared(straight: Path) -> None:
    """Which tokens of a text are hidden goes by what is kept of it."""
    stage = Predictor.from_run(straight / "pretrain")
    shorter = replace(stage.text_model, processor=replace(stage.processor, max_length=5))
    other = replace(stage, text_model=shorter)
    with pytest.raises(ConfigError, match=r"^--against .* must have .*data.max_length and data.truncate"):
        stage.compare(other)
    _, _, differences = stage.compare(stage)
    assert differences["masked_accuracy"].difference == 0


@pytest.mark.parametrize("change", ["pretrain.max_steps=9", "pretrain.lr=0.5", "masking.rate=0.2", "pretrain.run=x"])
def test_the_hash_is_of_the_pretraining_too(make: Make, change: str) -> None:
    hashes = {run_hash(config, "data", "cpu", "fp32") for config in (make(), override(make(), [change]))}
    assert len(hashes) == 2


# ------------------------------------------------------------------------------------------------------ as typed


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """Ctrl-C in the first stage's or the only loop's step."""
    original = loop.Loop._train_step

    def stepped(self: loop.Loop) -> None:
        original(self)
        if self.counters.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop.Loop, "_train_step", stepped)
        yield


def typed(words: Path) -> list[str]:
    trainer = {k: "null" if v is None else v for k, v in {**TINY_TRAINER, "max_steps": SECOND}.items()}
    return [
        "data=files", "data.name=words", f"data.path={words}", f"data.cache_dir={words.parent / 'cache'}",
        "data.tokenizer.kind=char", "data.max_length=16", "experiment=none", "pretrain.max_steps=8",
        *(f"model.{k}={v}" for k, v in TINY_MODEL.items()), *(f"trainer.{k}={v}" for k, v in trainer.items()),
    ]  # fmt: skip


def test_stopped_in_the_first_stage_it_names_the_whole_run(
    train_py: Callable[..., Output], tmp_path: Path, words: Path
) -> None:
    with interrupted_at(3):
        printed = train_py(*typed(words), "pretrain=masked", "hydra.run.dir=mine", bare=True)
    assert printed.code == 130
    assert "stopped at step 3, all saved; continue with: python train.py trainer.resume=mine\n" in printed.out
    results = json.loads((tmp_path / "mine" / "results.json").read_text())
    assert (results["status"], results["stage"]) == ("stopped", "pretrain")
    again = train_py("trainer.resume=mine", bare=True)
    assert (again.code, again.err) == (0, "") and "resume  from step 3" in again.out
    assert again.out.count("next:") == 1 and "minitx predict mine " in again.out
    results = json.loads((tmp_path / "mine" / "results.json").read_text())
    assert results["status"] == "finished" and results["pretrain"]["steps"] == 8


def test_a_sweeps_cell_goes_on_in_its_stage(train_py: Callable[..., Output], tmp_path: Path, words: Path) -> None:
    line = ("-m", *typed(words), "pretrain=masked", "seed=3,5", "hydra.sweep.dir=sweep")
    with interrupted_at(7):
        stopped = train_py(*line, bare=True)
    assert stopped.code == 130
    again = train_py(*line, bare=True)
    assert again.code == 0, again.err
    logs = [file.read_text() for file in (tmp_path / "sweep").glob("*/pretrain/train.log")]
    assert sorted("resume  from step 7" in log for log in logs) == [False, True]


def test_a_masked_run_as_a_task_of_its_own(train_py: Callable[..., Output], tmp_path: Path, words: Path) -> None:
    printed = train_py(*typed(words), "data.task=masked", "hydra.run.dir=mine", bare=True)
    assert (printed.code, printed.err) == (0, "")
    assert "minitx evaluate mine" in printed.out and "minitx predict" not in printed.out
    results = json.loads((tmp_path / "mine" / "results.json").read_text())
    predictor = Predictor.from_run(tmp_path / "mine")
    evaluated = predictor.evaluate()
    assert results["metrics"]["test"] == {name: i.to_json() for name, i in evaluated.metrics.items()}
    assert "confusion" not in results and "decode" not in results
    with pytest.raises(ConfigError, match="must be a classifier or a translator, it predicts hidden tokens"):
        predictor.inspect("abc")
    with pytest.raises(ValueError, match="predicts hidden tokens"):
        predictor.predict(["abc"])
    _, _, differences = predictor.compare(predictor)
    assert differences["masked_accuracy"].difference == 0
