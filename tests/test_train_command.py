"""`python train.py` as a user meets it: the run folder, one-line mistakes, stopping and going on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Output

from minitx.training import loop

Train = Callable[..., Output]


def only_run(folder: Path) -> Path:
    [run] = (folder / "outputs" / "runs").glob("*/*")
    return run


def test_a_run_leaves_the_folder_of_the_contract(train_py: Train, tmp_path: Path) -> None:
    printed = train_py("seed=3")
    assert (printed.code, printed.err) == (0, "")
    run = only_run(tmp_path)
    assert run.name.split("-")[3:6] == ["spelling", "transformer", "s3"]
    assert sorted(p.name for p in run.iterdir()) == [
        "checkpoints", "config.yaml", "metrics.jsonl", "results.json", "tensorboard", "train.log",
    ]  # fmt: skip
    results = json.loads((run / "results.json").read_text())
    assert (results["status"], results["seed"], results["data"], results["steps"]) == ("finished", 3, "spelling", 12)
    for split in ("validation", "test"):
        for name in ("per", "wer"):
            metric = results["metrics"][split][name]
            assert metric["ci95"][0] <= metric["value"] <= metric["ci95"][1]
    assert results["seconds"] > 0 and results["tokens_per_second"] > 0 and results["versions"]["torch"]
    log = (run / "train.log").read_text()
    assert "parameters (" in log and "best checkpoint" in log
    assert f"minitx predict {run.relative_to(tmp_path)}" in printed.out


def test_a_classifier_leaves_its_evaluation_too(train_py: Train, tmp_path: Path) -> None:
    small = ["trainer.max_epochs=null", "trainer.max_minutes=null", "model.d_model=16", "model.n_layers=1"]
    how = ["data=digits", f"data.cache_dir={tmp_path}", "trainer.device=cpu", "trainer.precision=fp32", *small]
    file = tmp_path / "mine" / "evaluation.json"
    printed = train_py(*how, "hydra.run.dir=mine", "model.n_heads=2", "trainer.max_steps=6", bare=True)
    assert (printed.code, printed.err) == (0, "")
    results, found = json.loads((tmp_path / "mine" / "results.json").read_text()), json.loads(file.read_text())
    assert set(results["metrics"]["test"]) == {"accuracy", "macro_f1", "ece"} and "confusion" not in results
    assert (found["split"], found["n"], len(found["hardest"])) == ("test", 270, 50)
    assert found["metrics"] == results["metrics"]["test"] and found["loss"] == results["loss"]["test"]
    for words in ("test rows by class", "calibration: says ", "hardest test rows", f"minitx predict {'mine'}"):
        assert words in printed.out and words in (tmp_path / "mine" / "train.log").read_text()
    again = train_py("trainer.resume=mine", "trainer.max_steps=9", bare=True)
    assert again.code == 0, again.err
    assert json.loads(file.read_text())["loss"] != found["loss"]


def test_metrics_are_logged_at_every_fourth_step(train_py: Train, tmp_path: Path) -> None:
    train_py()
    lines = [json.loads(line) for line in (only_run(tmp_path) / "metrics.jsonl").read_text().splitlines()]
    assert [(x["split"], x["step"]) for x in lines] == [
        ("train", 4), ("validation", 6), ("train", 8), ("train", 12), ("validation", 12),
    ]  # fmt: skip
    assert {"loss", "lr", "grad_norm", "tokens_per_second", "seconds", "epoch"} <= set(lines[0])


def test_two_runs_of_the_same_configuration_have_the_same_hash_and_result(train_py: Train, tmp_path: Path) -> None:
    train_py("hydra.run.dir=a")
    train_py("hydra.run.dir=b", "trainer.log_every=3", "trainer.save_every=5")
    a, b = (json.loads((tmp_path / name / "results.json").read_text()) for name in "ab")
    assert a["metrics"] == b["metrics"]


# -------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(
            ["model.d_mdoel=3"], "unknown key 'model.d_mdoel'; did you mean 'model.d_model'?", id="unknown-key"
        ),
        pytest.param(
            ["+model.foo=3"], "unknown key 'model.foo'; `python train.py --cfg job` prints every key", id="added"
        ),
        pytest.param(["model.n_heads=5"], "model.d_model (128) must be divisible by model.n_heads (5); ", id="heads"),
        pytest.param(["optim.lr=fast"], "optim.lr (fast) must be a number", id="type"),
        pytest.param(["data=imbd"], "data (imbd) must be one of ag_news, banking77, cmudict, ", id="unknown-data"),
        pytest.param(["model"], "model must be of the form key=value; ", id="nothing"),
        pytest.param(
            ["-m", "hydra/launcher=submitit_pbs", "seed=0,1"],
            "hydra/launcher (submitit_pbs) must be one of basic",
            id="a-launcher-that-is-not-there",
        ),
        pytest.param(["optim=[0,0]"], "optim ([0,0]) must be one of adamw", id="numbers-for-a-group"),
        pytest.param(["~optim=174"], "optim (174) must be one of adamw", id="a-number-to-delete"),
        pytest.param(["data=-0.5"], "data (-0.5) must be one of ag_news, banking77, ", id="a-number-for-a-group"),
        pytest.param(["masking=5"], "masking (5) must be set key by key; its keys are masking.rate, ", id="section"),
        pytest.param(["~masking=5"], "masking (5) must be set key by key; ", id="a-number-to-delete-a-section"),
        pytest.param(["decode={beam:3}"], "decode ({beam:3}) must be set key by key; ", id="a-section-as-a-whole"),
        pytest.param(["hydra=1"], "hydra (1) must name a group of Hydra's", id="hydra"),
        pytest.param(["seed=" + "1" * 5000], "seed (11111111111111111111…) must be a value that can", id="many-digits"),
        pytest.param(["+=3"], "override (+=3) must be of the form key=value", id="no-key"),
        pytest.param(["optim.betas=[0.9"], "optim.betas=[0.9 must be of the form key=value; ", id="unclosed"),
        pytest.param(
            ["data=imdb", "data.path=no/such/folder/"], "data.path (no/such/folder/) must ", id="missing-folder"
        ),
        pytest.param(
            ["data.path=mine.csv"],
            "data.path (mine.csv) must be null, because data=cmudict is embedded; ",
            id="forgotten",
        ),
        pytest.param(
            ["data=multi30k", "data.tgt_tokenizer.kind=word"],
            "data.tgt_tokenizer (null) must be given whole to set kind; type '+data.tgt_tokenizer={kind:...}'",
            id="null-section",
        ),
        pytest.param(["optim.betas=[1.5,0.9]"], "optim.betas ([1.5, 0.9]) must be two numbers in [0, 1)", id="betas"),
        pytest.param(["trainer.max_epochs=inf"], "trainer.max_epochs (inf) must be a finite number", id="infinite"),
        pytest.param(
            ["trainer.resume=no/run"], "trainer.resume (no/run) must be a run folder with a config.yaml; ", id="no-run"
        ),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(
    train_py: Train, tmp_path: Path, arguments: list[str], line: str
) -> None:
    printed = train_py(*arguments, bare=True)
    assert printed.code == 2
    assert printed.err.startswith(line) and printed.err.count("\n") == 1, printed.err
    assert printed.out == "" and not (tmp_path / "outputs" / "runs").exists()


def test_cuda_where_there_is_none(train_py: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    printed = train_py("trainer.device=cuda", bare=True)
    assert printed.code == 2 and printed.err.count("\n") == 1
    assert printed.err.startswith("trainer.device (cuda) must name a device that is there (")
    assert printed.err.endswith("; use trainer.device=auto or cpu\n")


def test_outputs_that_cannot_be_written(train_py: Train, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    printed = train_py("hydra.run.dir=taken/run")
    assert printed.code != 0 and printed.err.count("\n") == 1
    assert "taken" in printed.err and "Not a directory" in printed.err


def test_a_folder_that_holds_a_run_is_not_written_over(train_py: Train, tmp_path: Path) -> None:
    train_py("hydra.run.dir=mine")
    before = (tmp_path / "mine" / "results.json").read_bytes()
    again = train_py("hydra.run.dir=mine")
    assert again.code == 2
    assert again.err == (
        "hydra.run.dir (mine) must be empty, it holds a run; add trainer.resume=auto to continue it, "
        "or name another folder\n"
    )
    other = train_py("hydra.run.dir=mine", "trainer.resume=auto", "optim.lr=0.5")
    assert other.code == 2 and "it holds another (optim.lr 0.001, not 0.5)" in other.err
    assert (tmp_path / "mine" / "results.json").read_bytes() == before


def test_a_finished_run_says_so(train_py: Train) -> None:
    train_py("hydra.run.dir=mine")
    again = train_py("trainer.resume=mine", bare=True)
    assert again.code == 0 and again.out.startswith("already finished: mine/results.json; raise trainer.max_epochs, ")


def test_a_finished_run_is_evaluated_anew(train_py: Train, tmp_path: Path) -> None:
    train_py("hydra.run.dir=mine")
    again = train_py("trainer.resume=mine", "decode.beam=2", bare=True)
    assert again.code == 0 and "beam 2, length penalty 1" in again.out
    assert json.loads((tmp_path / "mine" / "results.json").read_text())["decode"] == {"beam": 2, "length_penalty": 1.0}


def test_data_that_changed_is_not_continued_on(train_py: Train, tmp_path: Path, tiny_data: dict[str, Any]) -> None:
    own = tmp_path / "own.csv"
    text = Path(tiny_data["path"]).read_text()
    own.write_text(text)
    train_py("hydra.run.dir=mine", f"data.path={own}")
    results = (tmp_path / "mine" / "results.json").read_bytes()
    own.write_text(text + "hhh,H H H\n")
    for more in ([], ["trainer.max_steps=20"]):
        printed = train_py("trainer.resume=mine", *more, bare=True)
        assert printed.code == 2 and "has changed since" in printed.err and printed.err.count("\n") == 1, printed.err
    assert (tmp_path / "mine" / "results.json").read_bytes() == results


def test_resume_in_another_folder_is_refused(train_py: Train) -> None:
    train_py("hydra.run.dir=mine")
    printed = train_py("trainer.resume=mine", "hydra.run.dir=other", bare=True)
    assert printed.code == 2 and "must be left out with trainer.resume=mine" in printed.err


def test_a_limit_already_passed_still_ends_in_results(
    train_py: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before the first validation, then continued with fewer steps than were taken."""
    original = loop.Loop._train_step

    def step(self: loop.Loop) -> None:
        original(self)
        if self.counters.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Loop, "_train_step", step)
        train_py("hydra.run.dir=mine")
    printed = train_py("trainer.resume=mine", "trainer.max_steps=3", bare=True)
    assert printed.code == 0, printed.err
    assert json.loads((tmp_path / "mine" / "results.json").read_text())["status"] == "finished"


def test_a_corrupt_checkpoint_is_one_line(train_py: Train, tmp_path: Path) -> None:
    train_py("hydra.run.dir=mine", "trainer.max_steps=6")
    file = tmp_path / "mine" / "checkpoints" / "last" / "training.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    printed = train_py("hydra.run.dir=mine", "trainer.resume=auto")
    assert printed.code == 1 and printed.err.count("\n") == 1
    assert printed.err.startswith("checkpoint mine/checkpoints/last is corrupt: training.safetensors")


def test_a_loss_that_explodes_names_step_and_rows(train_py: Train, tmp_path: Path) -> None:
    printed = train_py("hydra.run.dir=mine", "optim.lr=1e30", "optim.clip=null", "optim.warmup_steps=0")
    assert printed.code == 1 and printed.err.count("\n") == 1
    assert printed.err.startswith("loss is ") and " at step " in printed.err and "train rows " in printed.err
    results = json.loads((tmp_path / "mine" / "results.json").read_text())
    assert results["status"] == "failed" and results["error"] in printed.err


def test_memory_that_is_used_up_has_the_same_line_in_the_results(
    train_py: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Loop, "_train_step", lambda self: torch.empty(10**15))
    printed = train_py("hydra.run.dir=mine")
    assert printed.code == 1 and printed.err.startswith("the memory of this machine is used up (")
    results = json.loads((tmp_path / "mine" / "results.json").read_text())
    assert results["status"] == "failed" and results["error"] == printed.err.rstrip()


# -------------------------------------------------------------------------------------------------- stop and go on


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_go_on_and_the_rest_is_exact(
    train_py: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: signal.Signals, code: int
) -> None:
    train_py("hydra.run.dir=straight")
    original = loop.Loop._train_step

    def step(self: loop.Loop) -> None:
        original(self)
        if self.counters.step == 7:
            os.kill(os.getpid(), kind)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Loop, "_train_step", step)
        stopped = train_py("hydra.run.dir=stopped")
    assert stopped.code == code
    assert "stopped at step 7, all saved; continue with: python train.py trainer.resume=stopped" in stopped.out
    assert json.loads((tmp_path / "stopped" / "results.json").read_text())["status"] == "stopped"
    again = train_py("trainer.resume=stopped", bare=True)
    assert (again.code, again.err) == (0, "")
    weights = [
        (tmp_path / run / "checkpoints" / "last" / "model.safetensors").read_bytes() for run in ("straight", "stopped")
    ]
    assert weights[0] == weights[1]


def test_resume_takes_dotted_overrides_and_refuses_groups(train_py: Train, tmp_path: Path) -> None:
    train_py("hydra.run.dir=mine")
    group = train_py("trainer.resume=mine", "data=digits", bare=True)
    assert group.code == 2 and group.err.startswith("data=digits must not be given with trainer.resume, ")
    longer = train_py("trainer.resume=mine", "trainer.max_steps=15", bare=True)
    assert longer.code == 0, longer.err
    assert json.loads((tmp_path / "mine" / "results.json").read_text())["steps"] == 15
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine"]
