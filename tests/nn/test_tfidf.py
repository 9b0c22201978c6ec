"""The linear model equals scikit-learn's own pipeline, before and after it was saved."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from minitx.config import ConfigError, LinearConfig
from minitx.nn.baselines.linear import MAX_PASSES, TOLERANCES, Ngrams, TfidfClassifier

ODD = [
    "naïve café", "ﬁne 𝔘nicode", 'quo"te\\back', "snow☃man tab\there", "ÅNGSTRÖM İstanbul ǅ", "日本語 テキスト",
    "a\u2028b zero\u200bwidth",
]  # fmt: skip


def corpus(n: int, n_classes: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Texts of words of which each class prefers some."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 5))) for _ in range(61)]
    labels = [i % n_classes for i in range(n)]
    texts = [
        " ".join(
            rng.choice(words[label::n_classes] if rng.random() < 0.4 else words) for _ in range(rng.randint(3, 17))
        )
        for label in labels
    ]
    return [f"{text} {ODD[i % len(ODD)]}" for i, text in enumerate(texts)], np.array(labels, np.int64)


def fitted(config: LinearConfig, texts: list[str], labels: np.ndarray, n_classes: int, c: float) -> TfidfClassifier:
    ngrams, features = Ngrams.fit(config, texts)
    return TfidfClassifier.fit(ngrams, features, labels, n_classes, c)


def reloaded(model: TfidfClassifier) -> TfidfClassifier:
    return TfidfClassifier.of_saved(model.ngrams.config, model.n_classes, model.tensors(), model.vocabulary_json())


@pytest.mark.parametrize(
    ("n_classes", "keys"),
    [
        (2, {}),
        (5, {}),
        (3, {"ngrams": 1, "min_count": 3, "sublinear": False}),
        (2, {"ngrams": 3, "min_count": 2}),
    ],
)
def test_equals_the_pipeline_before_and_after_it_was_saved(
    n_classes: int, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitx.nn.baselines.linear.AT_REST", np.inf)  # scikit-learn goes by its tolerance alone
    texts, labels = corpus(211, n_classes)
    new, _ = corpus(37, n_classes, seed=1)
    config = LinearConfig(**keys)
    reference = make_pipeline(
        TfidfVectorizer(
            ngram_range=(1, config.ngrams), min_df=config.min_count, sublinear_tf=config.sublinear, lowercase=True
        ),
        LogisticRegression(C=7.0, solver="sag", tol=TOLERANCES[0], max_iter=MAX_PASSES, random_state=0),
    ).fit(texts, labels)
    model = fitted(config, texts, labels, n_classes, 7.0)
    assert model.converged
    for one in (model, reloaded(model)):
        found = one.log_probs([*new, "", "qqqq zzzz"])
        wanted = reference.predict_log_proba([*new, "", "qqqq zzzz"])
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
        assert (found.argmax(1) == reference.predict([*new, "", "qqqq zzzz"])).all()
    assert model.n_params == reference[1].coef_.size + reference[1].intercept_.size
    assert (model.log_probs(new) == reloaded(model).log_probs(new)).all()


def test_comes_near_the_optimum_of_another_solver() -> None:
    """The penalty is what LinearConfig says, and stopping early moves probabilities little."""
    texts, labels = corpus(211, 3)
    ngrams, features = Ngrams.fit(LinearConfig(), texts)
    exact = LogisticRegression(C=3.0, solver="lbfgs", tol=1e-6, max_iter=5000).fit(features, labels)
    found = TfidfClassifier.fit(ngrams, features, labels, 3, 3.0).log_probs(texts)
    np.testing.assert_allclose(np.exp(found), exact.predict_proba(features), atol=0.02)


def test_the_same_texts_give_the_same_bits() -> None:
    texts, labels = corpus(101, 4)
    one, two = (fitted(LinearConfig(), texts, labels, 4, 10.0) for _ in range(2))
    assert (one.coefficients_KF == two.coefficients_KF).all() and (one.intercepts_K == two.intercepts_K).all()


def test_the_vocabulary_survives_odd_characters() -> None:
    texts, labels = corpus(50, 2)
    model = fitted(LinearConfig(), texts, labels, 2, 1.0)
    vocabulary = reloaded(model).ngrams.vocabulary
    assert vocabulary == model.ngrams.vocabulary
    assert {"naïve café", "日本語 テキスト", "ångström i̇stanbul"} & set(vocabulary) >= {"naïve café", "日本語 テキスト"}


def test_a_text_without_a_known_word_goes_by_the_intercepts() -> None:
    texts, labels = corpus(90, 3)
    model = fitted(LinearConfig(), texts, labels, 3, 1.0)
    expected = model.intercepts_K - np.log(np.exp(model.intercepts_K).sum())
    np.testing.assert_allclose(model.log_probs(["", "?", "x y z", "unheard"]), np.tile(expected, (4, 1)), rtol=1e-12)


@pytest.mark.parametrize("seen", [(1, 4), (0, 2, 3)])
def test_classes_that_training_does_not_have_are_improbable_not_impossible(seen: tuple[int, ...]) -> None:
    texts, labels = corpus(60, len(seen))
    model = fitted(LinearConfig(), texts, np.array(seen)[labels], 6, 5.0)
    alone = fitted(LinearConfig(), texts, labels, len(seen), 5.0)
    for one in (model, reloaded(model)):
        log_probs = one.log_probs(texts)
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, rtol=1e-12)
        unseen = [c for c in range(6) if c not in seen]
        np.testing.assert_allclose(np.exp(log_probs[:, unseen]), 1 / (60 + 6), rtol=1e-12)
        rest = 1 - len(unseen) / 66
        np.testing.assert_allclose(np.exp(log_probs[:, seen]), rest * np.exp(alone.log_probs(texts)), rtol=1e-9)


def test_what_cannot_be_fitted_says_why() -> None:
    with pytest.raises(
        ConfigError, match=r"model.min_count \(1\) must leave some words .*; lower it, or use model=bag"
    ):
        Ngrams.fit(LinearConfig(), ["a b", "c", "?"])
    with pytest.raises(ConfigError, match=r"model.min_count \(9\) must leave some words"):
        Ngrams.fit(LinearConfig(min_count=9), ["some words", "more words"])
    ngrams, features = Ngrams.fit(LinearConfig(), ["some words", "more words"])
    with pytest.raises(ConfigError, match=r"data.train_size \(2\) must leave training texts of two or more classes"):
        TfidfClassifier.fit(ngrams, features, np.array([3, 3]), 5, 1.0)


def test_a_solver_that_does_not_rest_is_told_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.nn.baselines.linear.MAX_PASSES", 1)
    assert not fitted(LinearConfig(), *corpus(80, 2), 2, 1000.0).converged


@pytest.mark.parametrize("n_classes", [2, 7])
def test_what_says_converged_is_at_the_optimum_also_with_little_penalty(n_classes: int) -> None:
    """At C = 100 the solver's own tolerance stops it with log-probabilities that are off by more than a half."""
    texts, labels = corpus(409, n_classes)
    ngrams, features = Ngrams.fit(LinearConfig(), texts)
    exact = LogisticRegression(C=100.0, solver="lbfgs", tol=1e-9, max_iter=20_000).fit(features, labels)
    early = LogisticRegression(C=100.0, solver="sag", tol=TOLERANCES[0], max_iter=MAX_PASSES, random_state=0)
    wanted = exact.predict_log_proba(features)
    off = np.abs(early.fit(features, labels).predict_log_proba(features) - wanted).max()
    model = TfidfClassifier.fit(ngrams, features, labels, n_classes, 100.0)
    assert model.converged
    assert np.abs(model.log_probs(texts) - wanted).max() < 0.25 < 2 < off
