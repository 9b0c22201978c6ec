"""conf/data: every file types, says only what differs from the defaults, and the embedded ones load."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from minitx.config import DataConfig, TokenizerConfig
from minitx.config.load import load
from minitx.data import load_data
from minitx.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "conf" / "data").glob("*.yaml"))
NEEDS_PATH = {"cmudict_full", "files", "g2p", "multi30k_tok", "tatoeba", "text_classification"}
SHARED = {
    "ag_news": ("ag_news_10k", 4),
    "banking77": ("banking77", 77),
    "newsgroups": ("20_newsgroups", 20),
    "rotten_tomatoes": ("rotten_tomatoes", 2),
    "sst2": ("sst2", 2),
    "multi30k": ("multi30k", None),
    "multi30k_tok": ("multi30k_tok", None),
    "g2p": ("cmudict_g2p", None),
}


def settings(name: str) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())
    parent, itself = raw.pop("defaults")
    assert itself == "_self_"
    return raw if parent == "base" else settings(parent) | raw


@pytest.mark.parametrize("name", [file.stem for file in FILES])
def test_file_types_and_says_only_what_differs(name: str) -> None:
    raw = settings(name)
    if name in NEEDS_PATH:
        with pytest.raises(ConfigError, match=r"^data\.path \(null\) must name"):
            load({"data": raw})
        raw["path"] = "given"
    config = DataConfig.model_validate(raw)
    assert config.name == name
    default = DataConfig().model_dump()
    assert [key for key, value in raw.items() if value == default[key]] == []
    for section in ("tokenizer", "tgt_tokenizer"):
        repeated = TokenizerConfig().model_dump().items() & raw.get(section, {}).items()
        assert not repeated


@pytest.mark.parametrize("name", ["cmudict", "cmudict_stress", "digits", "probe"])
def test_sets_that_need_no_file_load(name: str, tmp_path: Path) -> None:
    data = load_data(DataConfig.model_validate({**settings(name), "train_size": 500, "cache_dir": str(tmp_path)}))
    assert all(len(split) > 200 for split in data.splits.values())
    assert not any("cuts" in note for note in data.notes), "nothing is cut"


def test_the_sample_is_the_users_form(tmp_path: Path) -> None:
    path = ROOT / "data" / "sample" / "sample.csv"
    config = DataConfig.model_validate({**settings("files"), "path": str(path), "cache_dir": str(tmp_path)})
    data = load_data(config)
    assert data.label_names == ("food", "travel", "weather")
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 48, "validation": 6, "test": 6}


@pytest.mark.shared
@pytest.mark.parametrize("name", sorted(SHARED))
def test_local_copies_of_hub_sets_load(name: str, shared_data: Path, tmp_path: Path) -> None:
    """One key moves between the hub and a folder."""
    folder, n_classes = SHARED[name]
    changes = {"path": str(shared_data / folder), "train_size": 300, "cache_dir": str(tmp_path)}
    data = load_data(DataConfig.model_validate({**settings(name), **changes}))
    assert len(data.splits["train"]) == 300
    assert (data.label_names and len(data.label_names)) == n_classes
    if name == "g2p":
        assert len(data.splits["test"]) == 12_000, "words of the literature's test set, 12,753 rows"
        assert sum(len(data.splits["test"].references(row)) for row in range(12_000)) == 12_753
    if name == "sst2":
        assert len(data.splits["test"]) == 872 and len(data.splits["validation"]) == 702
        assert any("; 6,044 phrases of them are in no split" in note for note in data.notes)
