"""`datasets` as a source: local folders, the hub out of reach, and messages."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from minitx.config import DataConfig
from minitx.data import identify_source, load_data
from minitx.data.sources import hub
from minitx.data.sources.hub import read_dataset
from minitx.errors import ConfigError

ABSENT = "minitx-tests/no-such-set"


def config(path: Path | str, **options: object) -> DataConfig:
    return DataConfig.model_validate({"source": "dataset", "task": "classification", "path": str(path), **options})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Parquet folder with declared class names, as the hub's sets have them, and a split of another name."""
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"]), "id": Value("int32")})
    for name, labels in (("train", [1, 0, 1]), ("test", [-1, -1]), ("validation", [0])):
        rows = {"text": [f"{name} {i}" for i in range(len(labels))], "label": labels, "id": list(range(len(labels)))}
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / f"{name}.parquet")
    return tmp_path / "set"


def test_local_folder(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    tables = read_dataset(config(folder))
    assert list(tables) == ["train", "validation", "test"]
    assert list(tables["train"].inputs) == ["train 0", "train 1", "train 2"]
    assert list(tables["train"].targets) == [1, 0, 1]
    assert list(tables["test"].targets) == [-1, -1]
    assert tables["train"].class_names == ("neg", "pos")
    assert tables["train"].where == "the train split"
    assert sorted(folder.rglob("*")) == before, "nothing is written into the data"


def test_splits_are_chosen_by_name(folder: Path) -> None:
    tables = read_dataset(config(folder, train_split="test", test_split="train", text_column="id"))
    assert list(tables["train"].inputs) == [0, 1]
    assert list(tables["test"].inputs) == [0, 1, 2]


def test_a_split_that_is_null_is_not_read(folder: Path) -> None:
    tables = read_dataset(config(folder, validation_split=None, test_split="validation"))
    assert list(tables) == ["train", "test"]
    assert list(tables["test"].inputs) == ["validation 0"]


def test_csv_folder_without_other_splits(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    tables = read_dataset(config(tmp_path))
    assert list(tables) == ["train"]
    assert (list(tables["train"].inputs), list(tables["train"].targets)) == (["a", "b"], ["x", "y"])
    assert tables["train"].class_names is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"train_split": "trian"},
            r"data\.train_split \(trian\) must be a split of the data set; it has: train, .*test",
        ),
        ({"test_split": "tset"}, r"data\.test_split \(tset\) must be a split of the data set; it has: train, "),
        (
            {"text_column": "txt"},
            r"data\.text_column \(txt\) must be a column of the train split; it has: text, label, id",
        ),
        (
            {"label_column": "l"},
            r"data\.label_column \(l\) must be a column of the train split; it has: text, label, id",
        ),
    ],
)
def test_names_that_the_set_does_not_have(folder: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        read_dataset(config(folder, **options))


def test_paths_that_are_no_source(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("text,label\n")
    with pytest.raises(ConfigError, match=r"^data\.path \(.*f\.csv\) must be a folder or a hub id; data=files reads"):
        identify_source(config(tmp_path / "f.csv"))
    for path in ("../no/such/folder", "/no/such", "./here", "owner/name/more"):
        with pytest.raises(
            ConfigError, match=rf"^data\.path \({path}\) must be an existing folder or a hub id such as"
        ):
            identify_source(config(path))


def test_a_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "image.bin").write_bytes(b"1")
    with pytest.raises(
        ConfigError, match=r"^data\.path \(.*\) must be a data set of Parquet, CSV or JSON files"
    ) as caught:
        read_dataset(config(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_damaged_folder(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"not parquet")
    with pytest.raises(ConfigError, match=r"^data\.path \(.*\) must be a data set of Parquet, CSV or JSON files"):
        read_dataset(config(tmp_path))


def test_a_configuration_that_the_set_does_not_have(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.subset \(nope\) must be a configuration of the data set; .*nope"):
        read_dataset(config(folder, subset="nope"))


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line that names the id and both ways out; the libraries' switches are put back."""
    from datasets import config as settings

    monkeypatch.setattr(hub, "_hub_is_reachable", lambda: False)
    monkeypatch.setattr(settings, "HF_DATASETS_CACHE", tmp_path / "cache")
    before = settings.HF_HUB_OFFLINE
    expected = (
        rf"^data\.path \({ABSENT}\) must be a local folder or a hub id that can be reached, "
        r"and the hub does not answer; data\.path=<folder> takes a local copy, and data=cmudict needs no network$"
    )
    with pytest.raises(ConfigError, match=expected):
        load_data(config(ABSENT, cache_dir=str(tmp_path / "ours")))
    assert before == settings.HF_HUB_OFFLINE
    assert not list((tmp_path / "ours").iterdir()), "nothing is left in the cache"


def test_hub_fingerprint_needs_no_network() -> None:
    assert identify_source(config(ABSENT)) == f"{ABSENT}@main"
    assert identify_source(config(ABSENT, revision="abc")) == f"{ABSENT}@abc"


@pytest.fixture
def server() -> Iterator[str]:
    """A hub that answers, if only with 404."""

    class NotFound(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), NotFound) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_asking_the_hub(monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    from datasets import config as settings

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(settings, "HF_ENDPOINT", server)
    assert hub._hub_is_reachable()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(settings, "HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert not hub._hub_is_reachable()
