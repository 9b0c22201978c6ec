"""Dotted overrides on top of a configuration that is typed already: what is understood, and one line for the rest."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from tiny import ROOT

import train
from minitx.config import Config, ConfigError
from minitx.config.load import load, override


def test_override_types_values_and_keeps_the_rest() -> None:
    config = override(load({}), ["trainer.max_epochs=20", "model.attention.span=window", "data.train_size=null"])
    assert (config.trainer.max_epochs, config.model.attention.span, config.data.train_size) == (20, "window", None)
    assert override(config, []) == config
    with pytest.raises(ConfigError, match=r"unknown key 'trainer\.max_epoch'"):
        override(config, ["trainer.max_epoch=3"])
    with pytest.raises(ConfigError, match="trainer must be of the form key=value"):
        override(config, ["trainer"])


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "No", "y"])
def test_words_are_not_truth_values(word: str) -> None:
    """On top of a finished run as for train.py, where Hydra reads `data.tgt_column=no` as a word."""
    train.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        by_hydra = compose("config", [f"data.tgt_column={word}"])
    assert override(Config(), [f"data.tgt_column={word}"]).data.tgt_column == word == by_hydra.data.tgt_column
    assert override(Config(), ["trainer.cuda_graphs=off"]).trainer.cuda_graphs == "off"
    assert override(Config(), ["model.tie_embeddings=false"]).model.tie_embeddings is False  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("optim.lr=[1", "optim.lr=[1 must be of the form key=value; quote special characters: 'key=\"...\"'"),
        ('data.path="x', 'data.path="x must be of the form key=value; '),
        ("seed=" + "9" * 5000, f"seed={'9' * 60}… must be of the form key=value; "),
        ("optim.lr=1\n2", "optim.lr (1\\n2) must be a number"),
        ("a\nb", "a\\nb must be of the form key=value"),
        ("data.path=\ud800", "'data.path=\\ud800' must be text that UTF-8 can spell"),
    ],
)
def test_an_override_that_cannot_be_read_is_one_line(typed: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(load({}), [typed])
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["set #2.csv", "a: b.csv", "*.csv", "&x.csv", "100%.csv", "!x.csv", "é.csv"])
def test_an_unquoted_value_is_taken_whole(path: str) -> None:
    mine = {"data": {"source": "files", "task": "classification", "path": "old.csv"}}
    assert override(load(mine), [f"data.path={path}"]).data.path == path


PIECES = (*"[]{}\"'a:,# \t&*!%@`|>-?\\\né\ud800.~=1", "null", "true", "no", "1e5", "inf", "<<", "9" * 5000)
KEYS = ("optim.lr", "seed", "data.path", "decode.beam", "data.tokenizer", "model.attention.span", "x", "", ".", "data")


@given(st.sampled_from(KEYS), st.sampled_from(("=", "")), st.lists(st.sampled_from(PIECES), max_size=6))
def test_any_override_is_understood_or_a_line(key: str, equals: str, pieces: list[str]) -> None:
    try:
        override(load({}), [f"{key}{equals}{''.join(pieces)}"])
    except ConfigError as error:
        assert "\n" not in str(error)
