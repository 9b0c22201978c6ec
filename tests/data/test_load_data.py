"""`load_data` from configuration to task: fitting, subsets, fingerprints, cache keys, notes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minitx.config import DataConfig
from minitx.data import TaskData, identify_source, load_data
from minitx.errors import ConfigError

TRAIN = [
    (f"the {word} is {colour}.", label) for word in "abcdefg" for colour, label in (("red", "r"), ("blue", "b"))
] * 5


@pytest.fixture
def options(tmp_path: Path) -> dict[str, object]:
    """70 training rows of 14 texts, and a test file with a word of its own."""
    lines = [f"{text},{label}" for text, label in TRAIN]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *lines]))
    (tmp_path / "test.csv").write_text("text,label\nthe unseen is red.,r\nthe a is blue.,b\n")
    return {
        "name": "toy",
        "source": "files",
        "task": "classification",
        "path": str(tmp_path / "train.csv"),
        "test_path": str(tmp_path / "test.csv"),
        "tokenizer": {"kind": "word"},
        "cache_dir": str(tmp_path / "cache"),
    }


def load(options: dict[str, object], **changes: object) -> TaskData:
    return load_data(DataConfig.model_validate({**options, **changes}))


def entries(options: dict[str, object]) -> list[str]:
    return sorted(path.name for path in Path(str(options["cache_dir"])).iterdir())


def test_classification_from_files(options: dict[str, object]) -> None:
    data = load(options)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 60, "validation": 10, "test": 2}
    assert (data.task, data.metrics, data.joint) == ("classification", "classification", False)
    assert data.label_names == ("b", "r")
    assert data.tgt_tokenizer is None
    test = data.splits["test"]
    assert test.text(0) == "the unseen is red."
    assert test.batch(np.array([0, 1])).targets.tolist() == [1, 0]
    assert data.src_tokenizer.tokens(test.src[0]) == ["[CLS]", "the", "[UNK]", "is", "red", "."]


def test_masked_data_is_the_same_without_labels(options: dict[str, object]) -> None:
    """From the same cache entry, also where a model's own vocabulary is given."""
    labelled, masked = load(options), load(options, task="masked")
    assert len(entries(options)) == 1 and masked.source_fingerprint == labelled.source_fingerprint
    assert (masked.task, masked.metrics, masked.label_names) == ("masked", "masked", None)
    for name, split in masked.splits.items():
        assert split.labels is None and len(split) == len(labelled.splits[name])
        batch = split.batch(np.arange(len(split)))
        assert (batch.src == labelled.splits[name].batch(np.arange(len(split))).src).all() and len(batch.targets) == 0
    config = DataConfig.model_validate({**options, "task": "masked", "cache_dir": str(options["cache_dir"]) + "2"})
    assert load_data(config, vocabulary=masked).src_tokenizer == masked.src_tokenizer


def test_masked_training_leaves_out_texts_without_a_token(options: dict[str, object], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    lines = [f"{'a ' * i}b,{'rb'[i % 2]}\n{' ' * (i + 2)},{'br'[i % 2]}" for i in range(30)]
    (folder / "train.csv").write_text("\n".join(["text,label", *lines, ""]))
    own = {"source": "dataset", "path": str(folder), "test_path": None, "validation_size": 0.2, "test_size": 0.2}
    labelled, masked = (load({**options, **own}, task=task) for task in ("classification", "masked"))
    kept = [i for i, text in enumerate(texts_of(labelled)) if text.strip()]
    assert texts_of(masked) == [texts_of(labelled)[i] for i in kept] and len(kept) < len(texts_of(labelled))
    assert masked.notes[-1] == f"{36 - len(kept)} of 36 training texts hold no token and are left out"
    assert len(masked.splits["test"]) == len(labelled.splits["test"])


def texts_of(data: TaskData) -> list[str]:
    return [data.splits["train"].text(row) for row in range(len(data.splits["train"]))]


def test_masked_needs_texts_of_known_tokens_and_a_classification_set(options: dict[str, object]) -> None:
    test = Path(str(options["test_path"]))
    test.write_text("text,label\nunseen,r\n")
    with pytest.raises(ConfigError, match="must have tokens to hide; the test texts hold none that training knows"):
        load(options, task="masked")
    with pytest.raises(
        ConfigError, match=r"data\.task \(masked\) must be translation, because data\.source is cmudict"
    ):
        identify_source(DataConfig(source="cmudict", task="masked"))


def test_warm_data_equals_cold_data(options: dict[str, object]) -> None:
    cold, warm = load(options), load(options)
    assert len(entries(options)) == 1
    assert cold.source_fingerprint == warm.source_fingerprint
    assert cold.notes == warm.notes
    for name, split in cold.splits.items():
        rows = np.arange(len(split))
        for one, two in zip(
            vars(split.batch(rows)).values(), vars(warm.splits[name].batch(rows)).values(), strict=True
        ):
            assert one is two is None or (one == two).all()


WARM = """
import sys
from minitx.config import DataConfig
from minitx.data import load_data
load_data(DataConfig.model_validate_json(sys.argv[1]))
print(sorted({"datasets", "pandas", "pyarrow", "sklearn", "huggingface_hub"} & set(sys.modules)))
"""


def test_a_warm_start_imports_no_reader(options: dict[str, object], tmp_path: Path) -> None:
    """They take seconds; whoever sweeps starts hundreds of runs."""
    folder = tmp_path / "set"
    folder.mkdir()
    Path(str(options["path"])).rename(folder / "train.csv")
    config = DataConfig.model_validate({**options, "source": "dataset", "path": str(folder)})
    load_data(config)
    run = subprocess.run([sys.executable, "-c", WARM, config.model_dump_json()], capture_output=True, check=True)
    assert run.stdout.decode().strip() == "[]"


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 7},
        {"truncate": "tail"},
        {"tokenizer": {"kind": "char"}},
        {"tokenizer": {"kind": "word", "lowercase": True}},
        {"train_size": 0.5},
        {"validation_size": 0.2},
        {"text_column": "label", "label_column": "text"},
        {"test_path": None},
    ],
)
def test_what_changes_the_data_changes_the_key(options: dict[str, object], change: dict[str, object]) -> None:
    load(options)
    if "text_column" in change:
        with pytest.raises(ConfigError, match="labels that training has"):  # not the cached data of the other columns
            load(options, **change)
        return
    load(options, **change)
    assert len(entries(options)) == 2


def test_what_does_not_change_the_data_keeps_the_key(options: dict[str, object]) -> None:
    load(options)
    path = Path(str(options["path"]))
    moved = path.rename(path.with_name("moved.csv"))
    load(options, path=str(moved))
    assert len(entries(options)) == 1


def test_changed_content_changes_the_fingerprint(options: dict[str, object]) -> None:
    config = DataConfig.model_validate(options)
    before = identify_source(config)
    assert load(options).source_fingerprint == before
    test = Path(str(options["test_path"]))
    test.write_text(test.read_text() + "the b is red.,r\n")
    assert identify_source(config) != before
    data = load(options)
    assert data.source_fingerprint == identify_source(config)
    assert len(data.splits["test"]) == 3


def test_fingerprint_of_a_folder_is_its_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.csv").write_text("text,label\n")
        (tmp_path / name / ".hidden").write_text(name)
    configs = [
        DataConfig(source="dataset", task="classification", path=str(tmp_path / name), cache_dir=name)
        for name in ("one", "two")
    ]
    assert identify_source(configs[0]) == identify_source(configs[1])
    (tmp_path / "two" / "train.csv").rename(tmp_path / "two" / "test.csv")
    assert identify_source(configs[0]) != identify_source(configs[1])


def test_the_tokeniser_sees_the_used_training_rows_alone(options: dict[str, object]) -> None:
    few = load(options, train_size=4)
    words = {word for row in range(4) for word in few.splits["train"].text(row).replace(".", " .").split()}
    assert few.src_tokenizer.vocab_size == 5 + len(words)
    assert few.src_tokenizer.vocab_size < load(options).src_tokenizer.vocab_size
    assert few.label_names == ("b", "r")
    assert few.notes[-1] == "training uses 4 of 60 rows (data.train_size, data.subset_seed 0)"


def test_the_tokeniser_sees_all_training_rows_where_it_is_asked_to(options: dict[str, object]) -> None:
    whole = load(options)
    few = load({**options, "tokenizer": {**options["tokenizer"], "fit_on": "train"}}, train_size=4)  # type: ignore[dict-item]
    assert len(few.splits["train"]) == 4
    assert few.src_tokenizer.to_json() == whole.src_tokenizer.to_json()


def test_subsets_are_nested_and_seeded(options: dict[str, object]) -> None:
    def texts(**changes: object) -> list[tuple[str, int]]:
        train = load(options, **changes).splits["train"]
        assert train.labels is not None
        return [(train.text(row), int(train.labels[row])) for row in range(len(train))]

    small, large = texts(train_size=10), texts(train_size=0.5)
    assert len(large) == 30
    assert all(small.count(row) <= large.count(row) for row in small)
    assert texts(train_size=10, subset_seed=1) != small
    assert texts(train_size=1.0) == texts()
    assert [label for _, label in small].count(0) == 5


def test_a_subset_larger_than_the_set(options: dict[str, object]) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.train_size \(61\) must be at most the 60 training rows of toy; null"
    ):
        load(options, train_size=61)


def test_truncated_texts_are_counted(options: dict[str, object]) -> None:
    assert load(options).notes[1:] == ()
    assert load(options, max_length=6).notes[1:] == ()
    assert load(options, max_length=5).notes[-1] == (
        "data.max_length (5) cuts 60 of 60 train texts (100.0 %), 10 of 10 validation texts (100.0 %), "
        "2 of 2 test texts (100.0 %); the first tokens are kept (data.truncate head); raise it to read them whole"
    )
    assert "; the first and last tokens are kept" in load(options, max_length=5, truncate="head_tail").notes[-1]


def test_truncate_chooses_the_tokens(options: dict[str, object]) -> None:
    """Of 'the unseen is red .' three tokens beside [CLS]."""
    kept = {}
    for truncate in ("head", "tail", "head_tail"):
        data = load(options, max_length=4, truncate=truncate)
        kept[truncate] = data.src_tokenizer.tokens(data.splits["test"].src[0])
    assert kept == {
        "head": ["[CLS]", "the", "[UNK]", "is"],
        "tail": ["[CLS]", "is", "red", "."],
        "head_tail": ["[CLS]", "the", "red", "."],
    }


def test_fitted_keeps_vocabulary_and_class_numbers(options: dict[str, object], tmp_path: Path) -> None:
    model = load(options)
    (tmp_path / "other.csv").write_text("text,label\nnew words,r\nthe a,r\n")
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("text,label\n" + "".join(f"a new {i},{'rb'[i % 2]}\n" for i in range(30)))
    changed = DataConfig.model_validate({**options, "path": str(tmp_path / "a.csv"), "train_size": 10})
    other = load_data(changed, vocabulary=model)
    assert other.src_tokenizer.to_json() == model.src_tokenizer.to_json()
    assert other.label_names == model.label_names
    assert load_data(changed).src_tokenizer.to_json() != model.src_tokenizer.to_json()


def test_fitted_finds_classes_by_name(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "three.csv").write_text("text,label\n" + "".join(f"x {i},{'rab'[i % 3]}\n" for i in range(30)))
    wider = load(options, path=str(tmp_path / "three.csv"))
    assert wider.label_names == ("a", "b", "r")
    narrow = load_data(DataConfig.model_validate(options), vocabulary=wider)
    assert narrow.label_names == ("a", "b", "r")
    assert narrow.splits["test"].batch(np.array([0, 1])).targets.tolist() == [2, 1]
    config = DataConfig.model_validate({**options, "path": str(tmp_path / "three.csv")})
    with pytest.raises(
        ConfigError, match=r"^data\.label_column \(label\) must hold labels that the model knows; it has 'a'"
    ):
        load_data(config, vocabulary=load(options))


@pytest.mark.parametrize(
    ("changes", "joint", "same"),
    [
        pytest.param({"tokenizer": {"kind": "char"}}, True, True, id="joint"),
        pytest.param({"tokenizer": {"kind": "char", "joint": False}}, False, False, id="two fits of one kind"),
        pytest.param({"tgt_tokenizer": {"kind": "word"}}, False, False, id="two kinds"),
    ],
)
def test_translation_vocabularies(tmp_path: Path, changes: dict[str, object], joint: bool, same: bool) -> None:
    rows = "".join(f"word{i}\t{i % 3} x' y\n" for i in range(30))
    (tmp_path / "train.tsv").write_text("src\ttgt\n" + rows)
    base: dict[str, object] = {
        "source": "files",
        "path": str(tmp_path / "train.tsv"),
        "cache_dir": str(tmp_path / "cache"),
    }
    for _ in ("cold", "warm"):
        data = load(base, **changes)
        assert data.joint == joint
        assert (data.tgt_tokenizer is data.src_tokenizer) == same
        assert data.metrics == "bleu"
    split = data.splits["test"]
    assert data.tgt_tokenizer is not None
    assert split.tgt is not None
    assert data.tgt_tokenizer.decode(split.tgt[0]).replace(" ", "") == split.references(0)[0].replace(" ", "")
    scored = load(base, metrics="error_rate", tokenizer={"kind": "word", "joint": False})
    assert scored.metrics == "error_rate"
    assert scored.tgt_tokenizer is not None
    assert "x'" in scored.tgt_tokenizer.tokens(range(scored.tgt_tokenizer.vocab_size)), "symbols are not cut"


def test_references_are_merged_in_validation_and_test_alone(tmp_path: Path) -> None:
    rows = "src\ttgt\n" + "".join(f"word{i // 3}\t{i % 2} x\n" for i in range(30))
    for name in ("train", "validation", "test"):
        (tmp_path / f"{name}.tsv").write_text(rows)
    files = {"path": "train", "validation_path": "validation", "test_path": "test"}
    paths = {key: str(tmp_path / f"{name}.tsv") for key, name in files.items()}
    base: dict[str, object] = {"source": "files", **paths, "cache_dir": str(tmp_path / "cache")}
    kinds: dict[str, object] = {"tokenizer": {"kind": "char"}, "multi_reference": True}
    data = load(base, **kinds)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 30, "validation": 10, "test": 10}
    assert data.splits["test"].references(1) == ("1 x", "0 x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"source": "cmudict", "task": "classification"},
            r"data\.task \(classification\) must be translation, because",
        ),
        ({"source": "digits"}, r"data\.task \(translation\) must be classification, because data\.source is digits"),
        ({"tokenizer": {"vocab_size": 200}}, r"data\.tokenizer\.vocab_size \(200\) must be at least 261"),
        ({"tgt_tokenizer": {"vocab_size": 9}}, r"data\.tgt_tokenizer\.vocab_size \(9\) must be at least 261"),
        ({"source": "files", "path": "no.csv"}, r"data\.path \(no\.csv\) must be an existing file"),
    ],
)
def test_mistakes_are_found_before_reading(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        identify_source(DataConfig.model_validate(settings))
