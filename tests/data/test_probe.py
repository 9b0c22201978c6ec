"""Generated tasks: solvable from the text alone, balanced, and without a trace of the label where none should be."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from minitx.config import Config, ConfigError, ProbeConfig, ProbeKind
from minitx.config.load import load
from minitx.config.probe import PROBE_TASKS, SENTENCE
from minitx.data import load_data
from minitx.data.sources import Corpus, Examples
from minitx.data.sources.generated import chance, read_probe, token_names
from minitx.training.run_folder import run_hash

KINDS: tuple[ProbeKind, ...] = get_args(ProbeKind)
CLASSIFICATIONS = [kind for kind in KINDS if PROBE_TASKS[kind] == "classification"]
SIZES = {"n_train": 307, "n_validation": 53, "n_test": 102}


def solve(kind: ProbeKind, text: str) -> int | str:
    """The class or the target, from the text alone."""
    tokens = text.split(" ")
    if kind == "copy":
        return text
    if kind == "reverse":
        return " ".join(tokens[::-1])
    if kind == "sort":
        return " ".join(sorted(tokens))
    if kind == "motif":
        found = [i for i in range(len(tokens)) if sorted(map(number, tokens[i : i + 3])) == [0, 1, 2]]
        ways = [[number(token) for token in tokens[i : i + 3]] for i in found]
        (way,) = [way for way in ways if way in ([0, 1, 2], [2, 1, 0])]
        return int(way == [2, 1, 0])
    first, second = marks(kind, tokens)
    return int(number(tokens[first]) == number(tokens[second]))


def marks(kind: ProbeKind, tokens: Sequence[str]) -> tuple[int, int]:
    """Positions of the two marks, of which there is one each."""
    names = {"recall": ("key", "ask"), "agreement": ("fact", "claim")}[kind]
    first, second = ([i for i, token in enumerate(tokens) if token.startswith(name)] for name in names)
    return first[0] if len(first) == 1 else -1, second[0] if len(second) == 1 else -1


def number(token: str) -> int:
    """s07 -> 7, key1 -> 1; nothing a full stop could be taken for."""
    digits = re.search(r"\d+$", token)
    return int(digits[0]) if digits else -1


def made(**settings: Any) -> Corpus:
    return read_probe(ProbeConfig(**{**SIZES, **settings}))


def labels_of(part: Examples) -> np.ndarray:
    assert part.labels is not None
    return part.labels


# ---------------------------------------------------------------------------------------------------------- all kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"length": 37, "n_symbols": 5, "n_facts": 3}, id="odd"),
        pytest.param({"length": 16, "n_symbols": 11}, id="whole-sentences"),
        pytest.param({"length": 7, "n_symbols": 13, "n_facts": 11}, id="shorter-than-a-sentence"),
    ],
)
def test_every_task_is_solved_from_the_text_alone(kind: ProbeKind, settings: dict[str, int]) -> None:
    corpus = made(kind=kind, **settings)
    names = set(token_names(ProbeConfig(kind=kind, **settings, **SIZES)))
    for part in corpus.splits.values():
        if part.labels is not None:
            assert [solve(kind, text) for text in part.texts] == part.labels.tolist()
        else:
            assert [(solve(kind, text),) for text in part.texts] == part.references
        for text in part.texts:
            tokens = text.split(" ")
            assert len(tokens) == settings["length"] and set(tokens) <= names
            stops = {i for i, token in enumerate(tokens) if token == "."}
            ends = range(SENTENCE - 1, len(tokens), SENTENCE)
            assert stops == set(ends if part.labels is not None else ())


@pytest.mark.parametrize("kind", KINDS)
def test_row_counts_balance_and_no_text_twice(kind: ProbeKind) -> None:
    """So few texts that many are drawn more than once."""
    tight: dict[str, dict[str, Any]] = {
        "motif": {"length": 8, "n_symbols": 7},
        "recall": {"length": 7, "n_symbols": 3, "distance": 4},
        "agreement": {"length": 7, "n_symbols": 4},
    }
    corpus = made(kind=kind, **tight.get(kind, {"length": 5, "n_symbols": 4}))
    texts = [text for part in corpus.splits.values() for text in part.texts]
    assert len(texts) == len(set(texts)) == sum(SIZES.values())
    assert {f"n_{name}": len(part) for name, part in corpus.splits.items()} == SIZES
    for part in corpus.splits.values():
        counts = [1] if part.labels is None else np.bincount(part.labels, minlength=2)
        assert max(counts) - min(counts) == (len(part) % 2 if part.labels is not None else 0)
    if PROBE_TASKS[kind] == "classification":
        assert chance(kind) == 1 / len(corpus.label_names or ())
        assert any(note.endswith("chance is 50 %") for note in corpus.notes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_and_nothing_else_draws(kind: ProbeKind) -> None:
    one, again, other = made(kind=kind), made(kind=kind), made(kind=kind, seed=1)
    assert one.splits["train"].texts == again.splits["train"].texts != other.splits["train"].texts


def test_test_texts_do_not_depend_on_the_other_sizes() -> None:
    """Even where most texts are drawn somewhere."""
    shape: dict[str, Any] = {"kind": "copy", "length": 5, "n_symbols": 4}
    test = made(**shape).splits["test"].texts
    assert made(**shape, n_train=29, n_validation=31).splits["test"].texts == test


# --------------------------------------------------------------------------------------------------- recall, agreement


@pytest.mark.parametrize(("kind", "distance"), [("recall", 1), ("recall", 8), ("recall", 61), ("agreement", 41)])
def test_distance(kind: ProbeKind, distance: int) -> None:
    part = made(kind=kind, length=67, distance=distance).splits["train"]
    places = [marks(kind, text.split(" ")) for text in part.texts]
    assert {second - first for first, second in places} == {distance}
    fitting = set(ProbeConfig(kind=kind, length=67, distance=distance).starts(distance))
    assert {first for first, _ in places} == fitting, "every place that fits is used"


def test_distances_of_their_own() -> None:
    """recall: every pair of places alike often; agreement: each mark in its quarter."""
    config = {"length": 13, "n_symbols": 4, "n_train": 6600}
    places = Counter(marks("recall", text.split(" ")) for text in made(**config).splits["train"].texts)
    free = [p for p in range(13) if p != 7]
    assert set(places) == set(itertools.combinations(free, 2))
    expected = 6600 / 66
    assert sum((n - expected) ** 2 / expected for n in places.values()) < 110, "chi-square, 65 degrees: 1 in 2,000"
    quarters = [marks("agreement", t.split(" ")) for t in made(kind="agreement", length=29).splits["train"].texts]
    assert {first for first, _ in quarters} == set(range(7))
    assert {second for _, second in quarters} == set(range(22, 29)) - {23}


def test_marks_carry_every_pair_of_symbols() -> None:
    """The same in one class; in the other two that differ, each pair alike often."""
    pairs = Counter(
        (number(tokens[first]), number(tokens[second]))
        for tokens in (text.split(" ") for text in made(length=9, n_facts=5, n_train=8000).splits["train"].texts)
        for first, second in [marks("recall", tokens)]
    )
    assert set(pairs) == set(itertools.product(range(5), repeat=2))
    assert all(abs(n - (800 if a == b else 200)) < 0.25 * n for (a, b), n in pairs.items())


@pytest.mark.parametrize(
    ("kind", "length", "distance", "nearest"), [("recall", 6, 3, 3), ("recall", 6, 1, 1), ("agreement", 6, None, 5)]
)
def test_no_window_that_misses_a_mark_depends_on_the_class(
    kind: ProbeKind, length: int, distance: int | None, nearest: int
) -> None:
    """Exactly, over all texts there are: what a window holds, at its place, comes alike often in both classes."""
    config = ProbeConfig(kind=kind, length=length, distance=distance, n_symbols=2, n_train=4, n_validation=2, n_test=2)
    classes: list[list[tuple[str, ...]]] = [[], []]
    for tokens in itertools.product(token_names(config)[:-1], repeat=length):
        first, second = marks(kind, tokens)
        if first >= 0 and second - first == nearest and (kind == "recall" or first == 0):
            classes[int(number(tokens[first]) == number(tokens[second]))].append(tokens)
    for width in range(1, length + 1):
        differ = [shares(classes[0], at, width) != shares(classes[1], at, width) for at in range(length - width + 1)]
        assert any(differ) is (width > nearest)
    drawn = {tuple(text.split(" ")) for part in read_probe(config).splits.values() for text in part.texts}
    assert drawn <= {text for texts in classes for text in texts}, "the generator draws no others"


def shares(texts: Sequence[tuple[str, ...]], at: int, width: int) -> dict[tuple[str, ...], Fraction]:
    counts = Counter(text[at : at + width] for text in texts)
    return {window: Fraction(count, len(texts)) for window, count in counts.items()}


def p_values(part: Examples, width: int) -> list[float]:
    """Of a chi-square test for each place: marks seen in a window there (symbols between them left out), and class."""
    values = []
    n_tokens = part.texts[0].count(" ") + 1
    for at in range(n_tokens - width + 1):
        windows = [
            "".join("_" if token[0] in "s." else token for token in text.split(" ")[at : at + width])
            for text in part.texts
        ]
        kinds, seen = np.unique(windows, return_inverse=True)
        table = np.zeros((len(kinds), 2))
        np.add.at(table, (seen, labels_of(part)), 1)
        values.append(float(chi2_contingency(table).pvalue))
    return values


@pytest.mark.parametrize(("kind", "distance"), [("recall", 5), ("agreement", 13)])
def test_drawn_windows_do_not_know_the_class(kind: ProbeKind, distance: int) -> None:
    part = made(kind=kind, length=19, distance=distance, n_facts=3, n_train=4001).splits["train"]
    assert min(p_values(part, distance)) > 1e-3
    assert min(p_values(part, distance + 1)) < 1e-9


@pytest.mark.parametrize("kind", ["recall", "agreement"])
def test_no_sum_over_positions_depends_on_the_class(kind: ProbeKind) -> None:
    """Logistic regression on every token at every position, noise and full stops included."""
    corpus = made(kind=kind, length=17, n_symbols=4, n_train=4001, n_test=2001)
    losses = additive_loss(corpus, lambda text: " ".join(f"{i}_{token}" for i, token in enumerate(text.split(" "))))
    assert losses > np.log(2) - 0.002


def test_no_count_of_tokens_depends_on_the_motif() -> None:
    """Single tokens leave chance, pairs of neighbours do not: the task is local, not a matter of what is there."""
    corpus = made(kind="motif", length=33, n_symbols=5, n_train=4001, n_test=2001)
    assert additive_loss(corpus, str) > np.log(2) - 0.002
    pairs = additive_loss(corpus, lambda t: " ".join(f"{a}_{b}" for a, b in itertools.pairwise(t.split(" "))))
    assert pairs < np.log(2) - 0.1


def additive_loss(corpus: Corpus, features: Any) -> float:
    """Test cross-entropy of logistic regression on counts of features."""
    counts = CountVectorizer(token_pattern=r"\S+", preprocessor=features)
    train, test = corpus.splits["train"], corpus.splits["test"]
    model = LogisticRegression(C=0.1, max_iter=1000).fit(counts.fit_transform(train.texts), labels_of(train))
    return float(log_loss(labels_of(test), model.predict_proba(counts.transform(test.texts))))


# --------------------------------------------------------------------------------------------------------------- motif


def test_motifs_differ_in_direction_alone() -> None:
    """Read backwards, sentence by sentence, a text is one of the other class."""
    for text in made(kind="motif", length=37, n_symbols=4).splits["train"].texts:
        sentences = [part.split() for part in text.split(".")]
        backwards = " . ".join(" ".join(sentence[::-1]) for sentence in sentences).strip()
        assert solve("motif", backwards) != solve("motif", text)


def test_motifs_are_anywhere_in_a_sentence() -> None:
    part = made(kind="motif", length=13, n_symbols=6, n_train=2000).splits["train"]
    starts = {re.search("s0 s1 s2|s2 s1 s0", text) for text in part.texts}
    places = Counter(match.string[: match.start()].count(" ") for match in starts if match)
    assert set(places) == {0, 1, 2, 3, 4, 8, 9, 10}


# ------------------------------------------------------------------------------------------------------- configuration


def probe(**settings: Any) -> dict[str, Any]:
    """A `data` section, as conf/data/probe.yaml has it."""
    data = {"source": "probe", "name": "probe", "task": "auto", "max_length": "auto", "tokenizer": {"kind": "word"}}
    return {**data, "probe": {"length": 19, **SIZES, **settings}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(
            probe(kind="motif", distance=3),
            "data.probe.distance (3) must be null, because data.probe.kind is motif; recall and agreement have a "
            "distance",
            id="no-distance",
        ),
        pytest.param(
            probe(length=64, distance=63),
            "data.probe.distance (63) must be 1 to 62, because data.probe.length is 64 and every 8th token a full "
            "stop; change one of the two",
            id="too-far",
        ),
        pytest.param(
            probe(kind="agreement", length=40, distance=20),
            "data.probe.distance (20) must be 21 to 38, because data.probe.length is 40 and every 8th token a full "
            "stop; change one of the two",
            id="too-near",
        ),
        pytest.param(
            probe(kind="motif", n_symbols=3),
            "data.probe.n_symbols (3) must be at least 4, because data.probe.kind is motif; other symbols must stand "
            "between motifs",
            id="motif-alone",
        ),
        pytest.param(
            probe(kind="copy", length=4, n_symbols=5),
            "data.probe.n_train (307) must be at most 312 with n_validation and n_test (462), because no text comes "
            "twice; at least 625 texts can be told apart, and half are drawn at most; raise data.probe.length",
            id="too-few-texts",
        ),
        pytest.param(
            {**probe(kind="sort"), "task": "classification"},
            "data.task (classification) must be translation, because data.probe.kind is sort; data.task=auto goes by "
            "the kind",
            id="wrong-task",
        ),
        pytest.param(
            {**probe(kind="copy"), "task": "masked"},
            "data.task (masked) must be translation, because data.probe.kind is copy; data.task=auto goes by the kind",
            id="masked-translation",
        ),
        pytest.param(
            {**probe(), "max_length": 19},
            "data.max_length (19) must be at least 20, because data.probe.length is 19; data.max_length=auto goes by "
            "the length",
            id="cut",
        ),
        pytest.param(
            {**probe(), "tokenizer": {"kind": "char"}},
            "data.tokenizer.kind (char) must be word, because data.source is probe; a symbol is a word of its texts",
            id="no-words",
        ),
        pytest.param(
            {"source": "digits", "task": "auto"},
            "data.task (auto) must be given, because data.source is not probe; only data=probe determines it",
            id="auto-of-others",
        ),
        pytest.param(
            probe(kind="recal"),
            "data.probe.kind (recal) must be one of 'recall', 'motif', 'agreement', 'copy', 'reverse' or 'sort'; "
            "did you mean recall?",
            id="unknown-kind",
        ),
        pytest.param(probe(n_test=1), "data.probe.n_test (1) must be greater than or equal to 2", id="one-row"),
    ],
)
def test_mistakes_are_found_before_anything_is_drawn(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"data": data})
    assert str(caught.value) == message


def test_a_vocabulary_that_is_too_small_is_an_error(tmp_path: Path) -> None:
    config = load({"data": {**probe(n_symbols=7), "tokenizer": {"kind": "word", "vocab_size": 16}}}).data
    with pytest.raises(
        ConfigError, match=r"^data\.tokenizer\.vocab_size \(16\) must be at least 17, .* data\.probe has 12 tokens"
    ):
        load_data(config.model_copy(update={"cache_dir": str(tmp_path)}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_no_generator_is_asked_for_more_than_there_is(kind: ProbeKind) -> None:
    """The most rows that the rule allows can be drawn."""
    shape: dict[str, Any] = {"kind": kind, "length": 6, "n_symbols": 4, "n_facts": 2}
    texts = ProbeConfig(**shape, n_train=2, n_validation=2, n_test=2).least_distinct
    corpus = read_probe(ProbeConfig(**shape, n_train=texts // 2 - 4, n_validation=2, n_test=2))
    assert len({text for part in corpus.splits.values() for text in part.texts}) == texts // 2 > 20


def loaded(tmp_path: Path, **settings: Any) -> Any:
    return load_data(load({"data": {**probe(**settings), "cache_dir": str(tmp_path)}}).data)


def test_the_task_follows_from_the_kind(tmp_path: Path) -> None:
    recall, sort = loaded(tmp_path), loaded(tmp_path, kind="sort")
    assert (recall.task, recall.metrics) == ("classification", "classification")
    assert recall.label_names == ("different", "same")
    assert (sort.task, sort.metrics, sort.joint) == ("translation", "error_rate", True)
    for data in (recall, sort):
        assert not any("cuts" in note for note in data.notes)
        assert set(data.splits["train"].lengths.tolist()) == {20}
    assert recall.splits["train"].sentences[0].tolist() == [0] * 9 + [1] * 8 + [2] * 3
    vocabulary = recall.src_tokenizer.tokens(range(5, recall.src_tokenizer.vocab_size))
    assert sorted(vocabulary) == sorted(token_names(ProbeConfig()))
    unlabelled = load({"data": {**probe(), "task": "masked", "cache_dir": str(tmp_path)}}).data
    assert load_data(unlabelled).task == "masked"


@pytest.mark.parametrize(
    "change",
    [{"kind": "motif"}, {"length": 23}, {"distance": 5}, {"n_symbols": 9}, {"n_facts": 3}, {"n_test": 9}, {"seed": 1}],
)
def test_every_setting_is_in_the_keys_of_cache_and_run(change: dict[str, Any], tmp_path: Path) -> None:
    loaded(tmp_path)
    loaded(tmp_path, **change)
    assert len(list(tmp_path.iterdir())) == 2
    one, other = (load({"data": probe(**settings)}) for settings in ({}, change))
    assert digest(one) != digest(other)


def test_no_other_set_is_named_by_what_a_probe_would_be(tmp_path: Path) -> None:
    digits = {"source": "digits", "task": "classification", "tokenizer": {"kind": "word"}, "cache_dir": str(tmp_path)}
    one, other = (load({"data": {**digits, "probe": asked}}) for asked in ({}, {"kind": "sort"}))
    assert digest(one) == digest(other)
    assert list(load_data(one.data).splits["train"].texts) == list(load_data(other.data).splits["train"].texts)
    assert len(list(tmp_path.iterdir())) == 1


def digest(config: Config) -> str:
    return run_hash(config, "data", "cpu", "fp32")
