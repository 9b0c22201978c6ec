"""The tiny tasks and untrained models that tests of decoding, metrics and analysis share."""

from evaluation_fixtures import beginning, classifier, float64, spelling, translator  # noqa: F401
