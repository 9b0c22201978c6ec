"""The hash names what determines the result; small files are whole; one folder holds one run at a time."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import ROOT, Output

from minitx.config import Config, ConfigError
from minitx.config.attention import PLAIN
from minitx.config.load import load, override
from minitx.errors import RunError
from minitx.training.run_folder import MetricsLog, RunFolder, continued_config, run_hash, safe_name, write_atomic


def digest(config: Config, *, changeable: bool = True) -> str:
    return run_hash(config, "data", "cpu", "fp32", changeable=changeable)


@pytest.mark.parametrize(
    "change",
    ["data.path=elsewhere.csv", "data.cache_dir=x", "trainer.log_every=7", "trainer.resume=auto", "trainer.keep=3"],
)
def test_paths_logging_and_resume_do_not_change_the_hash(tiny: Callable[..., Config], change: str) -> None:
    assert digest(override(tiny(), [change])) == digest(tiny())


@pytest.mark.parametrize(
    "change", ["seed=1", "model.n_heads=1", "optim.lr=0.5", "data.max_length=9", "trainer.max_steps=7", "decode.beam=2"]
)
def test_what_determines_the_result_changes_the_hash(tiny: Callable[..., Config], change: str) -> None:
    assert digest(override(tiny(), [change])) != digest(tiny())


def test_keys_that_came_later_are_in_the_hash_where_they_are_set(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs from before there were such keys keep their names."""
    plain, hashed = json.dumps, ""

    def kept(*args: Any, **keys: Any) -> str:
        nonlocal hashed
        hashed = plain(*args, **keys)
        return hashed

    monkeypatch.setattr(json, "dumps", kept)
    without = digest(tiny())
    assert "backend" in hashed and not [key for key in PLAIN if key in hashed]
    for change in ("n_kv_heads=1", "kv_rank=3", "tie_query_key=true", "project_values=false"):
        assert digest(override(tiny(), [f"model.attention.{change}"])) != without


KEPT_HASHES = [
    pytest.param({}, "a2f5b18f", "6b5ad20f", id="default"),
    pytest.param(
        {"model": {"attention": {"span": "window", "n_kv_heads": 2}}, "seed": 3, "data": {"name": "cmudict_full"}},
        "31a323e3", "d6bc5e4b", id="window",
    ),
    pytest.param(
        {
            "data": {
                "source": "files", "name": "mine", "task": "classification", "path": "a.csv", "test_path": "b.csv",
                "train_size": 0.5,
            },
            "model": {"kind": "lstm"},
            "trainer": {"precision": "bf16", "log_every": 3, "resume": "auto", "speed": {"onednn": "on"}},
        },
        "8155d72b", "284fd609", id="lstm-on-files",
    ),
    pytest.param(
        {
            "data": {
                "source": "probe", "name": "probe", "task": "auto", "max_length": "auto", "tokenizer": {"kind": "word"}
            },
            "model": {"kind": "cnn", "dropout": 0.2}, "pretrain": {"kind": "masked"}, "optim": {"r_drop": 1.0},
        },
        "5f2464df", "96f1ca2c", id="pretrained-cnn-on-a-probe",
    ),
    pytest.param(
        {
            "data": {"source": "digits", "name": "digits", "task": "classification"}, "model": {"kind": "bag"},
            "trainer": {"max_minutes": 5.0, "patience": 3, "cuda_graphs": "on"},
        },
        "09a44b86", "16335a6f", id="bag-for-minutes",
    ),
    pytest.param(
        {
            "data": {
                "source": "dataset", "name": "imdb", "task": "classification", "path": "imdb", "revision": "abc"
            },
            "model": {"kind": "linear", "c": 3.0}, "decode": {"beam": 4},
        },
        "8c266f57", "f0ae4e23", id="linear-on-the-hub",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "whole", "continuable"), KEPT_HASHES)
def test_runs_keep_their_names(tree: dict[str, Any], whole: str, continuable: str) -> None:
    """Finished cells of sweeps and studies are found by their hash: a new key must not change it unawares."""
    assert run_hash(load(tree), "data", "cpu", "fp32") == whole
    assert run_hash(load(tree), "data", "cuda", "bf16", changeable=False) == continuable


def test_data_precision_and_device_change_the_hash(tiny: Callable[..., Config]) -> None:
    hashes = {run_hash(tiny(), *rest) for rest in [("a", "cpu", "fp32"), ("b", "cpu", "fp32"), ("a", "cpu", "bf16")]}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("change", "same"),
    [("trainer.max_steps=7", True), ("decode.beam=2", True), ("data.bleu_tokenize=none", False), ("optim.lr=1", False)],
)
def test_what_a_run_can_be_continued_with(tiny: Callable[..., Config], change: str, same: bool) -> None:
    assert (digest(override(tiny(), [change]), changeable=False) == digest(tiny(), changeable=False)) is same


def test_log_is_cut_back_to_its_checkpoint(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    log.write({"step": 1})
    size = log.size
    log.write({"step": 2})
    MetricsLog(tmp_path / "m.jsonl").cut(size)
    log.write({"step": 3})
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 1}\n{"step": 3}\n'


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f.json"
    write_atomic(file, "old")
    monkeypatch.setattr("os.fsync", _full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(file, "new")
    assert file.read_text() == "old"


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_in_use_is_refused_and_freed_by_a_kill(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from minitx.training.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked(): print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout is not None and other.stdout.readline() == b"locked\n"
        with (
            pytest.raises(ConfigError, match="must be free; another process is training in it"),
            RunFolder(tmp_path).locked(),
        ):
            pass
        other.kill()
    assert (tmp_path / ".lock").exists()
    with RunFolder(tmp_path).locked():
        pass
    assert not list(tmp_path.iterdir()), "a lock that is let go leaves nothing"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    line = rf"^hydra\.run\.dir .* must be a folder that can be locked; {os.strerror(number)}$"
    with pytest.raises(ConfigError, match=line), RunFolder(tmp_path).locked():
        pass


def test_a_full_disk_in_the_middle_is_one_line_and_the_run_goes_on_later(
    train_py: Callable[..., Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_py("hydra.run.dir=mine", "trainer.max_steps=6")
    with monkeypatch.context() as patched:
        patched.setattr("minitx.training.saver.save_checkpoint", _full)
        printed = train_py("trainer.resume=mine", "trainer.max_steps=12", bare=True)
    assert printed.code == 1 and printed.err == (
        "checkpoint of step 12 not written (No space left on device); the one before is whole\n"
    )
    assert train_py("trainer.resume=mine", "trainer.max_steps=12", bare=True).code == 0


@pytest.mark.parametrize("text", ["a b/c=d", "n_heads-4_seed-0", "ünï"])
def test_safe_names_have_no_character_that_a_shell_or_hydra_reads(text: str) -> None:
    assert set(safe_name(text)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("a72bacd0", "d7eea0a2")),
        (
            {"data": {"source": "digits", "task": "classification", "name": "digits"}, "trainer": {"max_steps": 7}},
            ("4570fc06", "c5561427"),
        ),
        ({"model": {"kind": "lstm"}, "data": {"task": "classification"}}, ("b7559440", "bf24a2fc")),
    ],
)
def test_names_of_runs_stay(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    """Recorded before keys had roles: cells of sweeps and studies are found again by these."""
    config = load(changes)
    found = tuple(run_hash(config, "f", "cpu", "fp32", changeable=changeable) for changeable in (True, False))
    assert found == expected


@pytest.mark.parametrize("name", ["config.yaml", "results.json"])
def test_a_digit_that_changed_in_a_small_file_is_noticed(
    tiny: Callable[..., Config], tmp_path: Path, name: str
) -> None:
    """One flipped bit makes 3 of 2, which any reader would take."""
    folder = RunFolder(tmp_path)
    folder.write_config(tiny())
    folder.write_results({"status": "finished", "steps": 12})
    assert folder.read_config() == tiny() and folder.results() == {"status": "finished", "steps": 12}
    file = tmp_path / name
    text = file.read_text()
    for spoiled in (text.replace("12", "13", 1), text[: len(text) // 2], text.replace("s", "\x00", 1)):
        file.write_text(spoiled)
        with pytest.raises((ConfigError, RunError), match=name.replace(".", "[.]")) as caught:
            folder.read_config() if name == "config.yaml" else folder.results()
        assert "\n" not in str(caught.value)
    file.write_bytes(b"\xff" + text.encode())
    with pytest.raises((ConfigError, RunError), match=name.replace(".", "[.]")):
        folder.read_config() if name == "config.yaml" else folder.results()


def test_small_files_without_their_sum_are_refused(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """A file that was cut before its last line would otherwise pass."""
    folder = RunFolder(tmp_path)
    folder.write_config(tiny())
    file = tmp_path / "config.yaml"
    file.write_text(file.read_text().partition("# sha256")[0])
    (tmp_path / "results.json").write_text('{"status": "finished"}')
    with pytest.raises(ConfigError, match=r"config\.yaml that was written, it has changed"):
        folder.read_config()
    with pytest.raises(RunError, match=r"results\.json has changed since it was written"):
        folder.results()


def test_what_a_killed_process_was_writing_is_no_checkpoint(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """Killed in its first checkpoint, and stopped at step 0 when it was begun again: there is nothing to lose."""
    folder = RunFolder(tmp_path)
    (tmp_path / "checkpoints" / ".building-last-123").mkdir(parents=True)
    folder.write_config(tiny())
    folder.write_results({"status": "stopped"})
    assert not folder.was_trained
    (tmp_path / "checkpoints" / "best-00000006").mkdir()
    assert folder.was_trained


def test_a_group_with_a_line_break_is_refused_in_one_line(tiny: Callable[..., Config], tmp_path: Path) -> None:
    RunFolder(tmp_path).write_config(tiny())
    with pytest.raises(ConfigError, match=r"^a\\nb=1 must not be given with trainer\.resume"):
        continued_config(tmp_path, ["a\nb=1"])
