"""Promise 3 and 4: killed anywhere and resumed, a run is bit for bit the run that was not.

Each attempt is a process of its own, killed with SIGKILL by itself at a chosen step or a chosen system call of the
checkpoint. A fork server has torch loaded, so an attempt costs little.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
from tiny import fingerprint

from minitx.config import Config, ConfigError, LstmConfig
from minitx.config.load import load
from minitx.predictor import Predictor
from minitx.training import checkpoint_files, loop
from minitx.training import run as session
from minitx.training.run_folder import RunFolder

N_STEPS = 60
TRAINER: dict[str, Any] = {
    "max_steps": N_STEPS, "save_every": 4, "eval_every": 10, "log_every": 3, "accumulate": 2,
    "average": {"kind": "ema", "decay": 0.9}, "resume": "auto",
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["minitx.training.run", "torch.utils.tensorboard", "matplotlib.figure"])
    return context


def attempt(config: Config, folder: Path, die_at_step: int | None, die_at_call: tuple[str, int] | None) -> None:
    """Train; with SIGKILL in the way."""
    if die_at_step is not None:
        original = loop.Loop._train_step

        def step(self: loop.Loop) -> None:
            original(self)
            if self.counters.step >= die_at_step:
                os.kill(os.getpid(), signal.SIGKILL)

        loop.Loop._train_step = step  # type: ignore[method-assign]
    if die_at_call is not None:
        _die_at_call(*die_at_call)
    session.run(config, folder, quiet=True)


def _die_at_call(name: str, number: int) -> None:
    """Die on entry of the `number`-th call of `checkpoint.<name>`, before it has done its work."""
    original, calls = getattr(checkpoint_files, name), iter(range(1, 10_000))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(checkpoint_files, name, counted)


def run_process(server: ForkServerContext, *args: Any) -> int:
    process = server.Process(target=attempt, args=args)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


@pytest.fixture(scope="module")
def straight(
    server: ForkServerContext, tmp_path_factory: pytest.TempPathFactory, tiny_data: dict[str, Any]
) -> dict[str, Any]:
    """The run that nobody killed."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert run_process(server, make_config(tiny_data), folder, None, None) == 0
    return fingerprint(folder)


def make_config(tiny_data: dict[str, Any], **trainer: Any) -> Config:
    from tiny import TINY_MODEL, TINY_TRAINER

    from minitx.config.load import load

    return load(
        {
            "data": tiny_data,
            "model": TINY_MODEL,
            "trainer": {**TINY_TRAINER, **TRAINER, **trainer},
        }
    )


def assert_same(folder: Path, straight: dict[str, Any]) -> None:
    found = fingerprint(folder)
    assert found.keys() == straight.keys()
    assert [key for key in straight if found[key] != straight[key]] == []


def test_twenty_kills_at_random_steps(
    server: ForkServerContext, straight: dict[str, Any], tmp_path: Path, tiny_data: dict[str, Any]
) -> None:
    kills = sorted(random.Random(0).sample(range(1, N_STEPS), 20))
    for step in kills:
        assert run_process(server, make_config(tiny_data), tmp_path / "run", step, None) == -signal.SIGKILL
    assert run_process(server, make_config(tiny_data), tmp_path / "run", None, None) == 0
    assert_same(tmp_path / "run", straight)


# A checkpoint here syncs five files or folders and its parent, so calls 1 .. 12 reach into the second checkpoint.
@pytest.mark.parametrize(
    "call", [("save_file", 1), ("save_file", 4), ("_sync", 3), ("_sync", 9), ("_point", 2), ("_drop_old", 3)]
)
def test_killed_inside_the_writing_of_a_checkpoint(
    server: ForkServerContext,
    straight: dict[str, Any],
    tmp_path: Path,
    tiny_data: dict[str, Any],
    call: tuple[str, int],
) -> None:
    assert run_process(server, make_config(tiny_data), tmp_path / "run", None, call) == -signal.SIGKILL
    assert run_process(server, make_config(tiny_data), tmp_path / "run", None, None) == 0
    assert_same(tmp_path / "run", straight)


def test_killed_between_best_and_last(
    server: ForkServerContext, straight: dict[str, Any], tmp_path: Path, tiny_data: dict[str, Any]
) -> None:
    """The first validation's `best` is on disk, its `last` is not: the validation is held again."""
    config = make_config(tiny_data)
    assert run_process(server, config, tmp_path / "run", None, ("_point", 3)) == -signal.SIGKILL
    links = {p.name for p in (tmp_path / "run" / "checkpoints").iterdir() if p.is_symlink()}
    assert run_process(server, config, tmp_path / "run", None, None) == 0
    assert "last" in links
    assert_same(tmp_path / "run", straight)


@pytest.mark.parametrize("model", [None, LstmConfig(d_model=12, n_decoder_layers=2)], ids=["transformer", "lstm"])
@pytest.mark.parametrize("r_drop", [0.0, 5.0])
def test_a_longer_run_goes_on_from_a_finished_one(
    tiny: Callable[..., Config], tmp_path: Path, r_drop: float, model: LstmConfig | None
) -> None:
    optim = {"label_smoothing": 0.1, "schedule": "constant", "warmup_steps": 0, "r_drop": r_drop}
    short, longer = (tiny(trainer={"max_steps": steps, "resume": "auto"}, optim=optim) for steps in (6, 12))
    if model is not None:
        short, longer = (config.model_copy(update={"model": model}) for config in (short, longer))
    session.run(short, tmp_path / "two", quiet=True)
    session.run(longer, tmp_path / "two", quiet=True)
    session.run(longer, tmp_path / "one", quiet=True)
    one, two = fingerprint(tmp_path / "one"), fingerprint(tmp_path / "two")
    assert one["last/model.safetensors"] == two["last/model.safetensors"]


def test_a_finished_run_is_evaluated_anew_with_another_beam(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """Without a step more, and as `minitx evaluate` does it."""
    first = session.run(tiny(), tmp_path / "r", quiet=True)
    again = session.run(tiny(trainer={"resume": "auto"}, decode={"beam": 3}), tmp_path / "r", quiet=True)
    assert (first["decode"]["beam"], again["decode"]["beam"]) == (1, 3)
    assert again["steps"] == first["steps"] and again["best_step"] == first["best_step"]
    evaluated = Predictor.from_run(tmp_path / "r").evaluate()
    assert again["metrics"]["test"] == {name: interval.to_json() for name, interval in evaluated.metrics.items()}
    assert again["loss"] == pytest.approx(first["loss"], rel=1e-5)  # other batches


def test_judging_anew_that_fails_leaves_no_old_results(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the next call would take them for those of the new settings."""
    session.run(tiny(), tmp_path / "r", quiet=True)
    wide = tiny(trainer={"resume": "auto"}, decode={"beam": 3})
    with monkeypatch.context() as patched:
        patched.setattr("minitx.training.trainer.evaluate", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            session.run(wide, tmp_path / "r", quiet=True)
    results = session.run(wide, tmp_path / "r", quiet=True)
    assert results["status"] == "finished" and results["decode"]["beam"] == 3


def test_a_finished_run_is_returned_as_it_is(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny(trainer={"resume": "auto"})
    first = session.run(config, tmp_path / "run", quiet=True)
    written = (tmp_path / "run" / "results.json").stat().st_mtime_ns
    assert session.run(config, tmp_path / "run", quiet=True) == json.loads(json.dumps(first))
    assert (tmp_path / "run" / "results.json").stat().st_mtime_ns == written


def test_a_run_whose_last_checkpoint_is_gone_is_not_trained_anew(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """Its best weights and results stay as they are; what is unchanged is still returned."""
    config = tiny(trainer={"resume": "auto", "max_steps": 8})
    first = session.run(config, tmp_path / "run", quiet=True)
    for path in (tmp_path / "run" / "checkpoints").glob("last*"):
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    before = fingerprint(tmp_path / "run")
    assert session.run(config, tmp_path / "run", quiet=True) == json.loads(json.dumps(first))
    for changes in ({"trainer": {"resume": "auto", "max_steps": 9}}, {"decode": {"beam": 2}}):
        longer = tiny(**{"trainer": {"resume": "auto", "max_steps": 8}, **changes})
        with pytest.raises(
            ConfigError, match=r"trainer\.resume .*run\) must hold the checkpoint to go on from, but .*"
        ):
            session.run(longer, tmp_path / "run", quiet=True)
    assert fingerprint(tmp_path / "run") == before
    assert Predictor.from_run(tmp_path / "run").predict(["bad"])


@pytest.mark.parametrize("spoiled", ["unlinked", "a file", "damaged"])
def test_it_goes_on_from_the_newest_whole_checkpoint(tiny: Callable[..., Config], tmp_path: Path, spoiled: str) -> None:
    limits, optim = {"resume": "auto", "save_every": 4, "keep": 2}, {"schedule": "constant", "warmup_steps": 0}
    session.run(tiny(optim=optim, trainer={**limits, "max_steps": 10}), tmp_path / "run", quiet=True)
    last = tmp_path / "run" / "checkpoints" / "last"
    if spoiled == "damaged":
        (last / "training.safetensors").write_bytes(b"")
    else:
        last.unlink()
    if spoiled == "a file":  # as an archive without links has it
        last.write_text("last-00000010")
    longer = tiny(optim=optim, trainer={**limits, "max_steps": 12})
    results, straight = (session.run(longer, tmp_path / name, quiet=True) for name in ("run", "straight"))
    assert results["steps"] == 12 and results["metrics"] == straight["metrics"]
    log = (tmp_path / "run" / "train.log").read_text()
    expected = "resume  from step 8" if spoiled == "damaged" else "resume  from step 10"
    assert expected in log and "taken instead: last-000000" in " ".join(log.split())


def test_a_run_that_patience_ended_says_so(tiny: Callable[..., Config], tmp_path: Path) -> None:
    limits = {"resume": "auto", "patience": 1, "eval_every": 2, "max_steps": 400}
    first = session.run(tiny(optim={"lr": 1e-9}, trainer=limits), tmp_path / "run", quiet=True)
    assert first["steps"] < 400
    session.run(tiny(optim={"lr": 1e-9}, trainer={**limits, "max_steps": 500}), tmp_path / "run", quiet=True)
    log = (tmp_path / "run" / "train.log").read_text()
    assert f"trainer.patience (1) ended this run at step {first['steps']}" in log


@pytest.mark.parametrize("kind", ["longer", "linear"])
def test_results_stay_until_a_longer_run_has_saved(
    tiny: Callable[..., Config],
    tiny_classes: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Killed or failed before its first checkpoint, it has cost nothing: configuration and results are the old ones."""
    limits = {"resume": "auto", "max_steps": 6}
    if kind == "linear":
        raw = {"data": tiny_classes, "model": {"kind": "linear"}, "trainer": {"resume": "auto"}}
        short, longer = load(raw), load({**raw, "decode": {"beam": 2}})
        target = "minitx.training.linear.save_checkpoint"
    else:
        short, longer = tiny(trainer=limits), tiny(trainer={**limits, "max_steps": 12})
        target = "minitx.training.saver.save_checkpoint"
    folder = tmp_path / "run"
    session.run(short, folder, quiet=True)
    kept = {name: (folder / name).read_bytes() for name in ("results.json", "config.yaml")}

    def die(*_: Any, **__: Any) -> None:
        raise MemoryError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(target, die)
        with pytest.raises(MemoryError):
            session.run(longer, folder, quiet=True)
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    assert session.run(longer, folder, quiet=True)["status"] == "finished"
    assert (folder / "config.yaml").read_bytes() != kept["config.yaml"]


def test_a_longer_run_that_was_killed_after_saving_has_no_results(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the shorter run would be of other weights than `best` by then."""
    session.run(tiny(trainer={"resume": "auto", "max_steps": 6}), tmp_path / "run", quiet=True)
    monkeypatch.setattr("minitx.training.trainer.Trainer.evaluate_best", lambda self: 1 / 0)
    longer = tiny(trainer={"resume": "auto", "max_steps": 12})
    with pytest.raises(ZeroDivisionError):
        session.run(longer, tmp_path / "run", quiet=True)
    results = RunFolder(tmp_path / "run").results()
    assert results is not None and results["status"] == "failed"
    assert RunFolder(tmp_path / "run").read_config() == longer
