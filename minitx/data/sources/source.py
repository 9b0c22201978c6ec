"""Where data comes from: what can be checked before it is read, what identifies it, and reading it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from minitx.config import DataConfig, rule
from minitx.data.pipeline.check import prepare
from minitx.data.pipeline.tokenizer import check_tokenizer
from minitx.data.sources.embedded import TASKS, package_file, read_embedded
from minitx.data.sources.examples import Corpus
from minitx.data.sources.files import check_file, read_file
from minitx.data.sources.generated import VERSION, check_probe, read_probe
from minitx.data.sources.hub import local_folder, read_dataset


def identify_source(config: DataConfig) -> str:
    """The fingerprint of what data is read from: a hash of local files or package data, `id@revision` of a hub id, or
    the version of the generator. A hub id without `data.revision` is trusted: a set that changes on the hub keeps its
    fingerprint.

    Raises:
        ConfigError: the source is absent, or cannot serve the task; all that can be known before data is read.
    """
    _check(config)
    if config.source == "files":
        return _hash({key: Path(path).expanduser() for key, path in _files(config).items()})
    if config.source == "probe":
        return f"probe-{VERSION}"
    if config.source != "dataset":
        return _hash({config.source: package_file(config.source)})
    folder = local_folder(config.path or "")
    if folder is None:
        return f"{config.path}@{config.revision or 'main'}"
    inside = ((path.relative_to(folder), path) for path in folder.rglob("*") if path.is_file())
    return _hash({p.as_posix(): path for p, path in inside if not any(part.startswith(".") for part in p.parts)})


def _check(config: DataConfig) -> None:
    asked = loaded_as(config).task
    task = TASKS.get(config.source, asked)
    if task != asked:
        raise rule("data.task", config.task, f"be {task}, because data.source is {config.source}")
    check_tokenizer("data.tokenizer", config.tokenizer)
    if config.tgt_tokenizer is not None:
        check_tokenizer("data.tgt_tokenizer", config.tgt_tokenizer)
    if config.source == "dataset":
        local_folder(config.path or "")
    elif config.source == "files":
        for key, path in _files(config).items():
            check_file(key, path)
    elif config.source == "probe":
        check_probe(config)
    else:
        package_file(config.source)


def loaded_as(config: DataConfig) -> DataConfig:
    """How data is read and prepared: what hides tokens of texts reads them as what classifies them does."""
    return config.model_copy(update={"task": "classification"}) if config.task == "masked" else config


def read_source(config: DataConfig) -> Corpus:
    """Read and check everything; see `prepare` for what can be wrong."""
    if config.source == "dataset":
        return prepare(read_dataset(config), config)
    if config.source == "files":
        names = {"data.path": "train", "data.validation_path": "validation", "data.test_path": "test"}
        return prepare({names[key]: read_file(key, path, config) for key, path in _files(config).items()}, config)
    return read_probe(config.probe) if config.source == "probe" else read_embedded(config)


def _files(config: DataConfig) -> dict[str, str]:
    """Configuration key -> file, of those that are named."""
    named = {
        "data.path": config.path,
        "data.validation_path": config.validation_path,
        "data.test_path": config.test_path,
    }
    return {key: path for key, path in named.items() if path is not None}


def _hash(files: dict[str, Path]) -> str:
    """SHA-256 over names and contents."""
    total = hashlib.sha256()
    for name in sorted(files):
        with files[name].open("rb") as file:
            total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return total.hexdigest()
