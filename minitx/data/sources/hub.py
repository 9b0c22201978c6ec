"""Data sets of the hub, or local folders in the same form, through `datasets.load_dataset`.

`datasets` takes a second to import, so it is imported where it is called: a run whose data is cached never needs it.
"""

from __future__ import annotations

import re
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from minitx.config import DataConfig, rule
from minitx.data.progress import Progress, Report, silent
from minitx.data.sources.digests import Digests, hash_files
from minitx.data.sources.records import Table, check_columns, examples_of, read_columns
from minitx.data.sources.source import SPLITS, Corpus, Source
from minitx.errors import ConfigError

BATCH = 1000
"""Records read at a time."""
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def local_folder(path: str) -> Path | None:
    """The folder that `path` names, or None where it is a hub id."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise rule("data.path", path, "be a folder or a hub id", "data=files reads single files")
    if HUB_ID.fullmatch(path):
        return None
    raise rule("data.path", path, "be an existing folder or a hub id such as owner/name", "data=cmudict needs neither")


class HubOrFolder(Source):
    """`data.source: dataset`: a hub id or a local folder."""

    def check(self, config: DataConfig) -> None:
        local_folder(config.path or "")

    def fingerprint(self, config: DataConfig) -> str:
        """A hash of a local folder's files, or `id@revision`. A hub id without `data.revision` is trusted: a set that
        changes on the hub keeps its fingerprint."""
        folder = local_folder(config.path or "")
        if folder is None:
            return f"{config.path}@{config.revision or 'main'}"
        inside = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        visible = [name for name in inside if not any(part.startswith(".") for part in name.parts)]
        return hash_files({name.as_posix(): inside[name] for name in visible}, Digests.of(config))

    def read(self, config: DataConfig, report: Report = silent) -> Corpus:
        return examples_of(read_dataset(config, report), config)


def read_dataset(config: DataConfig, report: Report = silent) -> dict[str, Table]:
    """The splits that the source has, of `train`, `validation` and `test`; train is always there."""
    with _loaded(config) as data:
        named = {split: getattr(config, f"{split}_split") for split in SPLITS}
        names = {split: name for split, name in named.items() if name is not None}
        for split, name in names.items():
            # a name other than the default was given by the user: its absence is a mistake, not a split to be cut
            given = split == "train" or name != type(config).model_fields[f"{split}_split"].default
            if given and name not in data:
                raise rule(f"data.{split}_split", name, "be a split of the data set", f"it has: {', '.join(data)}")
        return {
            split: _table(data[name], f"the {name} split", config, report)
            for split, name in names.items()
            if name in data
        }


def _table(data: Any, where: str, config: DataConfig, report: Report) -> Table:
    check_columns(config, where, data.column_names)
    chosen = data.select_columns(list(dict.fromkeys(config.columns))).with_format("arrow")
    batches = ([batch.column(name).to_pylist() for name in config.columns] for batch in chosen.iter(BATCH))
    pairs = (pair for inputs, targets in batches for pair in zip(inputs, targets, strict=True))
    progress = Progress(where, "records", report, len(chosen))
    return Table(where, *read_columns(pairs, config, progress), _class_names(data.features[config.columns[1]]))


def _class_names(feature: Any) -> tuple[str, ...] | None:
    from datasets import ClassLabel

    return tuple(feature.names) if isinstance(feature, ClassLabel) else None


@contextmanager
def _loaded(config: DataConfig) -> Iterator[Any]:
    """The `DatasetDict`, without progress bars, every failure as a one-line ConfigError."""
    import datasets

    path = config.path or ""
    folder = local_folder(path)
    with ExitStack() as stack:
        stack.enter_context(_no_progress_bars())
        where: dict[str, Any] = {"path": path, "revision": config.revision}
        if folder is not None:  # our own cache holds the result; theirs would be a second copy
            where = {"path": str(folder), "cache_dir": stack.enter_context(_temporary_folder(config))}
        elif not _hub_is_reachable():
            stack.enter_context(_offline())
        try:
            data = datasets.load_dataset(name=config.subset, **where)
        except ConnectionError:
            raise _unreachable(path) from None
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise _unloadable(config, error) from None
        yield data


def _temporary_folder(config: DataConfig) -> tempfile.TemporaryDirectory[str]:
    """On the disk of the cache, because /tmp may be in memory; left by a kill, it goes when the cache tidies up."""
    place = Path(config.cache_dir)
    place.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=place, prefix=".", suffix=".partial")


def _unreachable(path: str) -> ConfigError:
    return rule(
        "data.path", path, "be a local folder or a hub id that can be reached, and the hub does not answer",
        "data.path=<folder> takes a local copy, and data=cmudict needs no network",
    )  # fmt: skip


def _unloadable(config: DataConfig, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())
    if isinstance(error, ValueError) and "config" in reason.lower():
        return rule("data.subset", config.subset, "be a configuration of the data set", reason)
    remedy = f"load_dataset says: {reason}"
    return rule("data.path", config.path, "be a data set of Parquet, CSV or JSON files, on the hub or local", remedy)


def _hub_is_reachable() -> bool:
    """One short request, because the hub's own client retries for half a minute before it gives up."""
    from datasets import config

    try:
        with urllib.request.urlopen(urllib.request.Request(config.HF_ENDPOINT, method="HEAD"), timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except urllib.error.URLError as error:
        # only a missing connection counts: this client may lack what the hub's has, such as certificates
        return not isinstance(error.reason, OSError) or isinstance(error.reason, ssl.SSLError)
    except TimeoutError:
        return False


@contextmanager
def _offline() -> Iterator[None]:
    """What HF_HUB_OFFLINE=1 does, for one call: fail at once, or serve what the hub's own cache holds.

    Both libraries read the variable when they are imported, so it is their constants that have to be set.
    """
    from datasets import config
    from huggingface_hub import constants

    before = config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
