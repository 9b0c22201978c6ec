"""TF-IDF of words and word n-grams with logistic regression: scikit-learn fits it, plain arrays keep it.

Letters in shapes: N texts, F features (n-grams), K rows of coefficients (1 for two classes), C classes, S classes that
training has seen.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minitx.config import LinearConfig, rule

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_PASSES = 1000
"""Over the training texts; by then the solver has come to rest, or the log warns that it has not."""
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
"""Largest change of a coefficient in a pass, relative to the largest coefficient, at which the solver stops; the next
one is tried where the gradient is larger than `AT_REST` then, as it is with little regularisation."""
AT_REST = 2.0
"""Norm of the loss's gradient. The penalty curves the loss by 1 at least, so the coefficients are no further than this
from the best ones; log-probabilities of banking77, ag_news and rotten_tomatoes were then within 0.1 of those at the
optimum, where a tolerance of 1e-2 alone left them off by 0.04 to 0.3 with C = 10, and by 2 to 10 with C = 100."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ngrams:
    """Texts to TF-IDF features: lower-cased words of two or more letters or digits, and n-grams of them.

    Rows have length 1; the inverse document frequency is log((1 + N) / (1 + texts with it)) + 1, scikit-learn's own.
    """

    config: LinearConfig
    vocabulary: tuple[str, ...]
    """(F) n-grams, in the order of the features."""
    idf_F: Floats

    @classmethod
    def fit(cls, config: LinearConfig, texts: Sequence[str]) -> tuple[Ngrams, Any]:
        """(n-grams of the training texts, their sparse (N, F) features).

        Raises:
            ConfigError: the texts have no words, or none that occurs in `model.min_count` of them.
        """
        vectoriser = _vectoriser(config)
        try:
            features_NF = vectoriser.fit_transform(texts)
        except ValueError as error:
            must = "leave some words of two or more letters that occur in as many training texts"
            raise rule("model.min_count", config.min_count, must, "lower it, or use model=bag") from error
        return cls(
            config=config, vocabulary=tuple(vectoriser.get_feature_names_out()), idf_F=vectoriser.idf_
        ), features_NF

    def __call__(self, texts: Sequence[str]) -> Any:
        """Sparse (N, F) features."""
        return self._vectoriser.transform(texts)

    @cached_property
    def _vectoriser(self) -> Any:
        vectoriser = _vectoriser(self.config, {term: i for i, term in enumerate(self.vocabulary)})
        vectoriser.idf_ = self.idf_F
        return vectoriser


def _vectoriser(config: LinearConfig, vocabulary: Mapping[str, int] | None = None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        ngram_range=(1, config.ngrams), min_df=config.min_count, sublinear_tf=config.sublinear, vocabulary=vocabulary
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class TfidfClassifier:
    """A fitted model: texts to log-probabilities of the classes."""

    ngrams: Ngrams
    coefficients_KF: Floats
    intercepts_K: Floats
    seen_S: Ints
    """The classes that training has, ascending."""
    n_classes: int
    n_train: int
    """Texts it was fitted to."""
    converged: bool = True

    @classmethod
    def fit(
        cls, ngrams: Ngrams, features_NF: Any, labels_N: npt.NDArray[np.integer[Any]], n_classes: int, c: float
    ) -> TfidfClassifier:
        """Multinomial logistic regression with an L2 penalty of 1 / (2 c), the intercepts free.

        By stochastic average gradients (Schmidt et al. 2017), whose passes cost what the texts hold and not what the
        vocabulary does: with twenty classes or more they are many times faster than L-BFGS. They go on until the
        gradient is `AT_REST`. Their order is always the same, so equal texts give equal bits.

        Raises:
            ConfigError: the labels are all of one class.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        seen = np.unique(labels_N).astype(np.int64)
        if len(seen) < 2:
            must = "leave training texts of two or more classes"
            raise rule("data.train_size", len(labels_N), must, "raise it")
        solver = LogisticRegression(C=c, solver="sag", random_state=0, warm_start=True)
        left, at_rest = MAX_PASSES, False
        for tolerance in TOLERANCES:
            solver.set_params(tol=tolerance, max_iter=left)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` says it
                solver.fit(features_NF, labels_N)
            at_rest = _gradient_norm(solver, features_NF, labels_N) <= AT_REST
            left -= int(solver.n_iter_.max())
            if at_rest or left <= 0:
                break
        return cls(
            ngrams=ngrams,
            coefficients_KF=solver.coef_,
            intercepts_K=solver.intercept_,
            seen_S=seen,
            n_classes=n_classes,
            n_train=len(labels_N),
            converged=at_rest,
        )

    def at_temperature(self, temperature: float) -> TfidfClassifier:
        """The same model with its scores divided by a temperature, which its numbers bear from then on."""
        return replace(
            self, coefficients_KF=self.coefficients_KF / temperature, intercepts_K=self.intercepts_K / temperature
        )

    @property
    def n_params(self) -> int:
        """Coefficients and intercepts; of two classes, one set serves both."""
        return int(self.coefficients_KF.size + self.intercepts_K.size)

    def log_probs(self, texts: Sequence[str]) -> Floats:
        """(N, C) natural logarithms of the probabilities.

        A class that training does not have gets 1 / (n_train + C), as by Laplace's rule, and the others share the rest.
        """
        from scipy.special import log_softmax

        scores_NK = np.asarray(self.ngrams(texts) @ self.coefficients_KF.T + self.intercepts_K)
        if scores_NK.shape[1] == 1:
            scores_NK = np.hstack([np.zeros_like(scores_NK), scores_NK])
        log_NS: Floats = log_softmax(scores_NK, axis=1)
        n_unseen, total = self.n_classes - len(self.seen_S), self.n_train + self.n_classes
        if not n_unseen:
            return log_NS
        log_NC = np.full((len(texts), self.n_classes), -np.log(total))
        log_NC[:, self.seen_S] = log_NS + np.log1p(-n_unseen / total)
        return log_NC

    def tensors(self) -> dict[str, Tensor]:
        """All numbers, for a file of tensors."""
        arrays = {
            "coefficients": self.coefficients_KF,
            "intercepts": self.intercepts_K,
            "idf": self.ngrams.idf_F,
            "seen": self.seen_S,
            "n_train": np.array(self.n_train),
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def vocabulary_json(self) -> str:
        """The n-grams as a JSON list, for a file of text."""
        return json.dumps(self.ngrams.vocabulary, ensure_ascii=False)

    @classmethod
    def of_saved(
        cls, config: LinearConfig, n_classes: int, tensors: Mapping[str, Tensor], vocabulary_json: str
    ) -> TfidfClassifier:
        """The inverse of `tensors` and `vocabulary_json`."""
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        ngrams = Ngrams(config=config, vocabulary=tuple(json.loads(vocabulary_json)), idf_F=arrays["idf"])
        return cls(
            ngrams=ngrams,
            coefficients_KF=arrays["coefficients"],
            intercepts_K=arrays["intercepts"],
            seen_S=arrays["seen"],
            n_classes=n_classes,
            n_train=int(arrays["n_train"]),
        )


def _gradient_norm(solver: Any, features_NF: Any, labels_N: npt.NDArray[np.integer[Any]]) -> float:
    """Of C x the summed cross-entropy + half the squared coefficients, with respect to the coefficients."""
    wrong_NS = solver.predict_proba(features_NF) - (labels_N[:, None] == solver.classes_)
    if len(solver.coef_) == 1:
        wrong_NS = wrong_NS[:, 1:]
    return float(np.linalg.norm(solver.coef_ + solver.C * (features_NF.T @ wrong_NS).T))
