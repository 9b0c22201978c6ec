"""The run folder: what a run writes, where, and the hash that names what determines its result."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from minitx import locks
from minitx.config import Config, ConfigError, TransformerConfig, rule
from minitx.config.attention import PLAIN
from minitx.config.base import in_one_line, keys_with_role
from minitx.config.load import load, override
from minitx.errors import RunError
from minitx.training.checkpoint_files import DIGEST, checkpoints_of, digest_of

EVALUATION = "evaluation.json"
"""A classifier's test split in detail: classes, confusion, calibration, the hardest examples."""

LOCK = ".lock"
"""There while a process has the folder, and after a kill."""

CONFIG_SUM = "# sha256 of the lines above: "
"""Last line of config.yaml."""

_OUTSIDE_THE_HASH = frozenset(keys_with_role(Config, "place", "machine", "logging"))
_CHANGEABLE = frozenset(keys_with_role(Config, "duration", "evaluation"))
"""A run may be continued with other values of these."""


class Busy(ConfigError):
    """Another process has the run's folder."""


def run_hash(config: Config, fingerprint: str, device_type: str, precision: str, *, changeable: bool = True) -> str:
    """Eight hex digits of what determines the result: configuration without paths, logging and resume keys, the
    data's fingerprint, precision and device type. Without `changeable` a run and what it can be continued as agree."""
    unread: dict[str, Any] = {} if config.data.source == "probe" else {"data": {"probe"}}
    if isinstance(config.model, TransformerConfig):  # keys that came later: without them the hash is what it was
        unread["model"] = {"attention": PLAIN.keys() - config.model.attention.left_out.keys()}
    if not config.trainer.calibrate:
        unread["trainer"] = {"calibrate"}
    tree = config.model_dump(mode="json", exclude=unread)
    for section, keys in tree.items():
        if isinstance(keys, dict):
            tree[section] = {key: value for key, value in keys.items() if _counts(f"{section}.{key}", changeable)}
    # What `auto` comes to: graphs change the batches, by rounding their lengths up.
    tree["trainer"]["cuda_graphs"] = config.records_graphs(device_type == "cuda")
    text = json.dumps([tree, fingerprint, device_type, precision], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _counts(key: str, changeable: bool) -> bool:
    """Whether a key is in the hash; without `changeable`, whether it says which run it is."""
    return key not in _OUTSIDE_THE_HASH and (changeable or key not in _CHANGEABLE)


def differences(before: Config, after: Config, most: int = 3) -> list[str]:
    """Dotted keys inside the hash that differ, each with both values."""
    found = []
    for section, keys in after.model_dump(mode="json").items():
        earlier = before.model_dump(mode="json")[section]
        if not isinstance(keys, dict):
            found += [f"{section} {earlier}, not {keys}"] if earlier != keys else []
            continue
        counted = (key for key in keys if _counts(f"{section}.{key}", changeable=False))
        changed = [key for key in counted if earlier[key] != keys[key]]
        found += [f"{section}.{key} {earlier[key]}, not {keys[key]}" for key in changed]
    return found[:most]


@dataclass(frozen=True)
class RunFolder:
    """Paths and small files of one run; see DESIGN: config.yaml, metrics.jsonl, results.json, checkpoints/, ..."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    def create(self) -> None:
        """Make the folder and prove that it can be written, before anything costs time."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{os.getpid()}"
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"hydra.run.dir ({self.path}) must be a folder that can be written ({error.strerror}); "
                f"name another with hydra.run.dir=..."
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process trains in this folder meanwhile; the system lets go when a process dies, however it does.

        Raises:
            Busy: another process has the folder.
            ConfigError: the folder's file system has no locks.
        """
        with ExitStack() as held:
            try:
                held.enter_context(locks.locked(self.path / LOCK))
            except locks.Taken:
                raise Busy(
                    str(rule("hydra.run.dir", self.path, "be free", "another process is training in it"))
                ) from None
            except OSError as error:
                must = "be a folder that can be locked"
                raise rule("hydra.run.dir", self.path, must, error.strerror or str(error)) from None
            yield

    def write_config(self, config: Config) -> None:
        self.write_settings(config.model_dump(mode="json"))

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Some or all settings of a configuration, by section, as config.yaml with its sum."""
        text = yaml.safe_dump(dict(settings), sort_keys=False)
        write_atomic(self.config_file, f"{text}{CONFIG_SUM}{_sha256(text)}\n")

    def read_config(self, key: str = "run") -> Config:
        """The configuration that the run was started with. key: what an error calls the folder.

        Raises:
            ConfigError: the folder holds no run, or its config.yaml has changed since.
        """
        if not self.config_file.is_file():
            raise rule(key, self.path, "be a run folder with a config.yaml", "see outputs/runs for yours")
        remedy = "put the old file back; what is evaluated or continued otherwise is typed as an override"
        try:
            text = self.config_file.read_text(encoding="utf-8")
            own, mark, digest = text.rpartition(CONFIG_SUM)
            if not mark or _sha256(own) != digest.strip():
                raise rule(key, self.path, "have the config.yaml that was written, it has changed", remedy)
            stored = yaml.safe_load(text)
        except (UnicodeDecodeError, yaml.YAMLError):
            raise rule(key, self.path, "have a config.yaml that is YAML, it is damaged", remedy) from None
        try:
            return load(stored)
        except ConfigError as error:
            raise rule(key, self.path, f"have a config.yaml of this version ({error})", remedy) from None

    def results(self) -> dict[str, Any] | None:
        """What results.json says, or None while there is none.

        Raises:
            RunError: the file has changed since it was written.
        """
        file = self.path / "results.json"
        if not file.is_file():
            return None
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            whole = found.pop(DIGEST) == digest_of(found)
        except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
            whole = False
        if not whole:
            remedy = f"remove it, and trainer.resume={self.path} evaluates anew"
            raise RunError(f"{file} has changed since it was written; {remedy}")
        return found

    def write_results(self, results: Mapping[str, Any]) -> None:
        write_json(self.path / "results.json", {**results, DIGEST: digest_of(results)})

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(checkpoints_of(self.checkpoints, "last"))

    @property
    def pretraining(self) -> RunFolder:
        """The run inside this one that comes before it (see `pretrain`)."""
        return RunFolder(self.path / "pretrain")

    @property
    def begun(self) -> bool:
        """Whether there is something to go on with."""
        return self.has_checkpoint() or self.pretraining.has_checkpoint()

    @property
    def was_trained(self) -> bool:
        """Whether training has left something here, be it without a checkpoint to go on from."""
        results, last = self.results() or {}, self.checkpoints / "last"
        # what is being written begins with a dot: a killed process leaves it, and it is no checkpoint
        saved = self.checkpoints.is_dir() and any(not path.name.startswith(".") for path in self.checkpoints.iterdir())
        ended = results.get("status") == "finished" or (results.get("status") == "stopped" and saved)
        return self.begun or ended or last.is_symlink() or last.exists()

    def begin(self, config: Config) -> None:
        """Write the configuration; that and the results of a finished run stay until `forget_results`, for so long
        nothing has replaced what they are of."""
        if (self.results() or {}).get("status") != "finished":
            self._forget(config)

    def forget_results(self, config: Config) -> None:
        """Results of a shorter run, once the first checkpoint of a longer one is there."""
        if (self.path / "results.json").exists():
            self._forget(config)

    def _forget(self, config: Config) -> None:
        for name in ("results.json", EVALUATION):
            (self.path / name).unlink(missing_ok=True)
        self.write_config(config)


def default_run_dir(config: Config, name_hash: str, now: datetime) -> str:
    """`outputs/runs/<date>/<time>-<data>-<model>-s<seed>-<hash>`: the folder of a run that begins now."""
    name = f"{now:%H-%M-%S}-{config.data.name}-{config.model.kind}-s{config.seed}-{name_hash}"
    return f"outputs/runs/{now:%Y-%m-%d}/{name}"


def continued_config(run: Path, overrides: Sequence[str]) -> Config:
    """The configuration of an earlier run with the typed overrides on top.

    Raises:
        ConfigError: there is no such run, or a group (`data=...`) was typed, which only the run itself can say.
    """
    groups = [o for o in overrides if "." not in o.split("=", 1)[0] and not o.startswith("seed=")]
    if groups:
        line = f"{groups[0]} must not be given with trainer.resume, because {run}/config.yaml says it; drop it"
        raise ConfigError(in_one_line(line))
    kept = [o for o in overrides if not o.startswith("trainer.resume=")]
    return override(RunFolder(run).read_config("trainer.resume"), [*kept, "trainer.resume=auto"])


def finished_before(
    config: Config, folder: RunFolder, source: str, device_type: str, precision: str
) -> dict[str, Any] | None:
    """Refuse a folder that holds another run; return the results of this very run when it has ended."""
    if not folder.was_trained or not folder.config_file.is_file():
        return None
    key, remedy = f"hydra.run.dir ({folder.path})", "name another folder"
    if config.trainer.resume is None:
        raise ConfigError(f"{key} must be empty, it holds a run; add trainer.resume=auto to continue it, or {remedy}")
    before, results = folder.read_config(), folder.results()
    args = (source, device_type, precision)
    if run_hash(before, *args, changeable=False) != run_hash(config, *args, changeable=False):
        changed = "; ".join(differences(before, config)) or "other data or precision"
        raise ConfigError(f"{key} must hold this run to be continued, it holds another ({changed}); {remedy}")
    same = run_hash(before, *args) == run_hash(config, *args)
    if not same or results is None or results["status"] != "finished":
        if not folder.begun:
            lost = f"hold the checkpoint to go on from, but {folder.checkpoints / 'last'} is gone"
            raise rule("trainer.resume", folder.path, lost, "minitx evaluate needs `best` alone; or start a new run")
        return None
    if results["source"] != source:
        raise ConfigError(f"{key} must hold a run on this data, but {config.data.name} has changed since; {remedy}")
    return results


class MetricsLog:
    """metrics.jsonl, one object per logged step; a resumed run first cuts it back to its checkpoint."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    @property
    def size(self) -> int:
        """Bytes written so far; what a checkpoint remembers."""
        return self._path.stat().st_size

    def cut(self, size: int) -> None:
        """Forget what was written after `size` bytes."""
        os.truncate(self._path, min(size, self.size))

    def write(self, record: Mapping[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(json.dumps(record).encode() + b"\n")


def write_atomic(path: Path, text: str) -> None:
    """Write beside, sync, rename: the file is the old one or the new one, never half of either."""
    beside = path.with_name(f".{path.name}-{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`value`, indented, by `write_atomic`."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes the result."""
    names = ("torch", "numpy", "scikit-learn", "datasets", "tokenizers", "minitx")
    return {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def git_commit() -> str | None:
    """The commit of the code that ran (with `+` when files were changed), None outside a repository."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True, check=True, timeout=5
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True, timeout=5
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def safe_name(text: str) -> str:
    """Letters, digits and `. _ -` of a text, for a folder name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_")
