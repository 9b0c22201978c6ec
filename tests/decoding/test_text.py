from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from minitx.batch import BOS, CLS, EOS, PAD, UNK
from minitx.config import DecodeConfig, Truncation
from minitx.data import TaskData
from minitx.decoding.text import TextModel, TextProcessor
from minitx.metrics.evaluate import evaluate
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator

CPU = torch.device("cpu")
MAX_LENGTH = 29
MakeModel = Callable[..., Classifier | Translator]
Case = tuple[TaskData, Classifier | Translator, TextProcessor, list[str]]


@pytest.fixture(params=["translation", "classification"])
def case(
    request: pytest.FixtureRequest,
    spelling: TaskData,
    beginning: TaskData,
    translator: MakeModel,
    classifier: MakeModel,
) -> Case:
    """(data, model, processor, the test texts) of either task."""
    data = spelling if request.param == "translation" else beginning
    model = translator(2) if request.param == "translation" else classifier()
    return (
        data,
        model,
        TextProcessor.of(data, MAX_LENGTH),
        [data.splits["test"].text(i) for i in range(len(data.splits["test"]))],
    )


def test_predictions_are_those_of_the_evaluation(case: Case) -> None:
    data, model, processor, texts = case
    evaluated = evaluate(model, data.splits["test"], data, device=CPU, precision="fp32", batch_tokens=53)
    assert TextModel(models=(model,), processor=processor, device=CPU).predict(texts) == evaluated.predictions
    assert len(set(evaluated.predictions)) > 2


@pytest.mark.parametrize("batch_tokens", [1, 31, 10_000])
def test_order_is_kept_whatever_the_batches(case: Case, batch_tokens: int) -> None:
    _, model, processor, texts = case
    shuffled = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]
    found = TextModel(models=(model,), processor=processor, device=CPU, batch_tokens=batch_tokens).predict(shuffled)
    assert found == [
        TextModel(models=(model,), processor=processor, device=CPU).predict([text])[0] for text in shuffled
    ]


def test_a_long_text_is_read_as_it_was_in_training(beginning: TaskData, classifier: MakeModel) -> None:
    """Its last letters, or both ends: the output is that for the part alone."""
    head = TextProcessor.of(beginning, 12)
    long = "abbabaobabcafebeef"
    kinds: list[tuple[Truncation, str]] = [("tail", long[-11:]), ("head_tail", long[:3] + long[-8:])]
    for truncate, kept in kinds:
        processor = TextProcessor.of(beginning, 12, truncate)
        assert processor != head and processor == TextProcessor.of(beginning, 12, truncate)
        assert processor.encode([long]).src[0].tolist() == head.encode([kept]).src[0].tolist()
        ready = TextModel(models=(classifier(),), processor=processor, device=CPU)
        assert (ready.n_cut([long, kept]), ready.n_cut([kept])) == (1, 0)
        assert ready.predict([long]) == ready.predict([kept])


def test_odd_texts_are_predicted_too(case: Case) -> None:
    """Empty, blank, unknown letters, a special token spelled out, and one longer than the model was built for."""
    _, model, processor, _ = case
    odd = ["", "  ", "ÄÖ 映画", "[EOS][PAD]", "ab" * 100]
    found = TextModel(models=(model,), processor=processor, device=CPU).predict(odd)
    assert len(found) == len(odd) and all(isinstance(text, str) for text in found)
    assert processor.task == "classification" or found[:2] == ["", ""]
    assert TextModel(models=(model,), processor=processor, device=CPU).n_cut(odd) == 1
    assert (
        found[4] == TextModel(models=(model,), processor=processor, device=CPU).predict(["ab" * 99])[0]
    )  # both are cut to the same tokens


def test_no_texts_are_no_predictions(case: Case) -> None:
    _, model, processor, _ = case
    assert TextModel(models=(model,), processor=processor, device=CPU).predict([]) == []


def test_model_keeps_its_mode(case: Case) -> None:
    _, model, processor, texts = case
    model.train()
    TextModel(models=(model,), processor=processor, device=CPU).predict(texts[:3])
    assert model.training


def test_beam_predictions_are_those_of_the_evaluation(spelling: TaskData, translator: MakeModel) -> None:
    model, processor, decode = (
        translator(2),
        TextProcessor.of(spelling, MAX_LENGTH),
        DecodeConfig(beam=3, length_penalty=0.5),
    )
    split = spelling.splits["test"]
    texts = [split.text(i) for i in range(len(split))]
    evaluated = evaluate(model, split, spelling, device=CPU, precision="fp32", batch_tokens=53, decode=decode)
    beam = TextModel(models=(model,), processor=processor, device=CPU, decode=decode)
    assert beam.predict(texts) == evaluated.predictions
    assert beam.predict(texts) != TextModel(models=(model,), processor=processor, device=CPU).predict(texts)


def only_letters_that_end(model: Classifier | Translator) -> None:
    """Special tokens never come, but for the end, which comes soon: the last norm's bias speaks for all positions."""
    assert isinstance(model, Translator) and isinstance(model.decoder.norm, nn.LayerNorm)
    with torch.no_grad():
        model.decoder.norm.bias += 1.0
        model.output_weight[[PAD, UNK, BOS, CLS]] -= 9.0
        model.output_weight[EOS] = model.output_weight[CLS + 1 :].mean(0) + 0.4


def test_best_of_n_is_the_prediction_and_scores_are_those_of_its_text(
    spelling: TaskData, translator: MakeModel
) -> None:
    """TranslationScore anew, each candidate has the log probability that the search gave it."""
    processor, model = TextProcessor.of(spelling, MAX_LENGTH), translator(2)
    only_letters_that_end(model)
    ready = TextModel(models=(model,), processor=processor, device=CPU, decode=DecodeConfig(beam=4, length_penalty=0.0))
    texts = [spelling.splits["test"].text(i) for i in range(len(spelling.splits["test"]))]
    found = ready.n_best([*texts, " "], 4)
    assert found[-1] == [] and [best[0].text for best in found[:-1]] == ready.predict(texts)
    pairs = [(text, c) for text, best in zip(texts, found, strict=False) for c in best]
    scored = ready.score([text for text, _ in pairs], [c.text for _, c in pairs])
    for (_, candidate), given in zip(pairs, scored, strict=True):
        n_written = len(candidate.text.split()) + 1
        assert given.n_tokens == n_written and given.log_prob == pytest.approx(candidate.log_prob, abs=1e-6)
    assert len(pairs) == 4 * len(texts)


def test_wide_n_best_widens_the_beam(spelling: TaskData, translator: MakeModel) -> None:
    ready = TextModel(models=(translator(2),), processor=TextProcessor.of(spelling, MAX_LENGTH), device=CPU)
    wide = TextModel(models=ready.models, processor=ready.processor, device=CPU, decode=DecodeConfig(beam=6))
    assert ready.n_best(["cab", "dab"], 6) == wide.n_best(["cab", "dab"], 6)
    assert [len(best) for best in ready.n_best(["cab", "dab"], 6)] == [6, 6]


def test_classifiers_go_by_the_mean_of_their_probabilities(beginning: TaskData, classifier: MakeModel) -> None:
    models = (classifier(0), classifier(1), classifier(2))
    split, processor = beginning.splits["test"], TextProcessor.of(beginning, MAX_LENGTH)
    texts = [split.text(i) for i in range(len(split))]
    batch = split.batch(np.arange(len(split)))
    with torch.no_grad():
        mean = torch.stack([model(batch).softmax(-1) for model in models]).mean(0)  # type: ignore[operator]
    wanted = [processor.label(int(i)) for i in mean.argmax(-1)]
    assert TextModel(models=models, processor=processor, device=CPU).predict(texts) == wanted
    evaluated = evaluate(
        models[0], split, beginning, device=CPU, precision="fp32", batch_tokens=53, ensemble=models[1:]
    )
    assert evaluated.predictions == wanted
    assert evaluated.loss == pytest.approx(-float(mean[torch.arange(len(split)), batch.targets].log().mean()), rel=1e-5)


def test_answers_have_probabilities(case: Case) -> None:
    """Of a classifier all classes, which sum to 1, the predicted one first; of a translator its best translations."""
    _, model, processor, texts = case
    ready = TextModel(models=(model,), processor=processor, device=CPU, batch_tokens=53)
    found = ready.likeliest(texts, 3 if processor.task == "translation" else 99)
    if processor.task == "translation":
        best = ready.n_best(texts, 3)
        for of, candidates in zip(found, best, strict=True):
            assert [answer.text for answer in of] == [candidate.text for candidate in candidates]
            log_probs = [candidate.log_prob for candidate in candidates]
            assert np.log([answer.probability for answer in of]) == pytest.approx(log_probs, abs=1e-9)
    else:
        assert [of[0].text for of in found] == ready.predict(texts)
        assert all(len(of) == 7 and sum(a.probability for a in of) == pytest.approx(1) for of in found)
        assert [[a.probability for a in of] == sorted((a.probability for a in of), reverse=True) for of in found]
        assert [of[:2] for of in found] == ready.likeliest(texts, 2)
    assert ready.likeliest([], 2) == []
