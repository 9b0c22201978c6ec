from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from minitx.data import TaskData
from minitx.decoding.greedy import greedy
from minitx.decoding.inference import Precision
from minitx.metrics import scores as metrics
from minitx.metrics.calibration import ece
from minitx.metrics.evaluate import Evaluation, evaluate, evaluate_classes, notes_on
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator

CPU = torch.device("cpu")
MakeTranslator = Callable[..., Translator]
MakeClassifier = Callable[..., Classifier]


def evaluated(
    model: nn.Module,
    data: TaskData,
    *,
    batch_tokens: int = 53,
    precision: Precision = "fp32",
    rows: np.ndarray | None = None,
) -> Evaluation:
    split = data.splits["test"]
    return evaluate(model, split, data, device=CPU, precision=precision, batch_tokens=batch_tokens, rows=rows)


def slow_losses(model: nn.Module, data: TaskData) -> list[tuple[float, int]]:
    """(summed loss, targets) of each row alone, from probabilities."""
    found = []
    for row in range(len(data.splits["test"])):
        batch = data.splits["test"].batch(np.array([row]))
        chances = model(batch).detach().softmax(-1).numpy()
        found.append((-sum(np.log(chances[i, t]) for i, t in enumerate(batch.targets.tolist())), len(batch.targets)))
    return found


@pytest.mark.parametrize("batch_tokens", [1, 53, 10_000], ids=["rows-alone", "some", "all-in-one"])
@pytest.mark.parametrize("task", ["spelling", "beginning"])
def test_loss_is_per_target_whatever_the_batches(
    task: str, batch_tokens: int, translator: MakeTranslator, classifier: MakeClassifier, request: pytest.FixtureRequest
) -> None:
    data: TaskData = request.getfixturevalue(task)
    model = translator() if data.task == "translation" else classifier()
    sums, counts = zip(*slow_losses(model, data), strict=True)
    found = evaluated(model, data, batch_tokens=batch_tokens)
    # float32, in which the loss is summed on every device.
    assert found.loss == pytest.approx(sum(sums) / sum(counts), rel=1e-5)


def test_classification_evaluates_each_row(classifier: MakeClassifier, beginning: TaskData) -> None:
    model, split = classifier(), beginning.splits["test"]
    assert split.labels is not None and beginning.label_names is not None
    classes = [int(model(split.batch(np.array([row]))).argmax()) for row in range(len(split))]
    found = evaluated(model, beginning)
    assert found.predictions == [beginning.label_names[c] for c in classes]
    assert len(set(found.predictions)) > 1
    assert found.metrics["accuracy"] == metrics.accuracy(classes, split.labels)
    assert found.metrics["macro_f1"] == metrics.macro_f1(classes, split.labels, 7)
    alone = [model(split.batch(np.array([row]))).log_softmax(-1)[0].tolist() for row in range(len(split))]
    assert found.log_probs is not None and found.log_probs.dtype == np.float32
    np.testing.assert_allclose(found.log_probs, alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.labels, split.labels)
    assert found.metrics["ece"] == ece(found.log_probs, split.labels)
    assert found.main == "accuracy" and found.score == found.metrics["accuracy"].value


def test_a_new_metric_is_one_entry(
    classifier: MakeClassifier, beginning: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = metrics.Metric(
        "errors", "classification", lambda o: metrics.accuracy(o.classes != o.labels, 1), higher_is_better=False
    )
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, errors))
    found = evaluated(classifier(), beginning)
    assert list(found.metrics) == ["accuracy", "macro_f1", "ece", "errors"] and found.main == "accuracy"
    assert found.metrics["errors"].value == pytest.approx(1 - found.score)
    assert metrics.better(0.1, 0.2, "errors") and not metrics.in_points("errors")
    with pytest.raises(ValueError, match=r"metric \(nonsense\) must be one of accuracy, "):
        metrics.higher_is_better("nonsense")


def test_error_rates_evaluate_symbols_against_all_references(translator: MakeTranslator, spelling: TaskData) -> None:
    model, split = translator(2), spelling.splits["test"]
    assert spelling.tgt_tokenizer is not None
    outputs = [greedy(model, split.batch(np.array([row])))[0] for row in range(len(split))]
    texts = [spelling.tgt_tokenizer.decode(ids) for ids in outputs]
    references = [split.references(row) for row in range(len(split))]
    found = evaluated(model, spelling)
    assert found.predictions == texts and len(set(texts)) > 2
    assert found.metrics == metrics.scores("error_rate", metrics.TextOutputs(hypotheses=texts, references=references))
    assert found.main == "per" and set(found.metrics) == {"per", "wer"} and found.log_probs is None


def test_bleu_task_reports_bleu_and_chrf(translator: MakeTranslator, spelling: TaskData) -> None:
    data = replace(spelling, metrics="bleu")
    split = data.splits["test"]
    found = evaluated(translator(2), data)
    references = [split.references(row) for row in range(len(split))]
    assert found.metrics == {
        "bleu": metrics.bleu(found.predictions, references),
        "chrf": metrics.chrf(found.predictions, references),
    }
    assert found.main == "bleu"
    by_letter = evaluate(
        translator(2), split, data, device=CPU, precision="fp32", batch_tokens=53, bleu_tokenize="char"
    )  # fmt: skip
    assert "tok:char" in str(by_letter.metrics["bleu"].signature)


def test_a_model_that_has_learned_scores_fully(translator: MakeTranslator, spelling: TaskData) -> None:
    """End to end: after overfitting the twelve words, greedy outputs are the first references."""
    model, batch = translator(d_model=32, n_heads=4), spelling.splits["train"].batch(np.arange(12))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(batch), batch.targets))
        optimizer.step()
    found = evaluated(model, spelling)
    assert found.loss < 0.05 and found.score == 0 and found.metrics["wer"].value == 0
    assert found.predictions == [spelling.splits["test"].references(row)[0] for row in range(12)]


@pytest.mark.parametrize("task", ["spelling", "beginning"])
def test_rows_are_evaluated_in_the_order_asked(
    task: str, translator: MakeTranslator, classifier: MakeClassifier, request: pytest.FixtureRequest
) -> None:
    data: TaskData = request.getfixturevalue(task)
    model = translator(2) if data.task == "translation" else classifier()
    rows = np.array([7, 2, 11, 3, 0])
    whole, some = evaluated(model, data), evaluated(model, data, rows=rows)
    assert some.predictions == [whole.predictions[row] for row in rows]
    np.testing.assert_array_equal(some.rows, rows)
    if whole.log_probs is not None:
        np.testing.assert_allclose(some.log_probs, whole.log_probs[rows], rtol=1e-5)
    sums, counts = np.array(slow_losses(model, data))[rows].T
    assert some.loss == pytest.approx(sums.sum() / counts.sum(), rel=1e-5)


@pytest.mark.parametrize("task", ["spelling", "beginning"])
def test_training_is_the_same_to_the_bit_with_or_without(
    task: str, translator: MakeTranslator, classifier: MakeClassifier, request: pytest.FixtureRequest
) -> None:
    """A step with dropout and rotary tables, with an evaluation before it and with none."""
    data: TaskData = request.getfixturevalue(task)
    make = translator if data.task == "translation" else classifier
    batch, gradients = data.splits["train"].batch(np.arange(7)), []
    for evaluates in (False, True):
        model = make(position="rotary", head_dim=4, dropout=0.3).train()
        if evaluates:
            evaluated(model, data)
            assert model.training and all(module.training for module in model.modules())
            assert all(weight.grad is None for weight in model.parameters())
        model(batch).square().sum().backward()
        gradients.append([weight.grad for weight in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_evaluates_without_dropout_and_keeps_eval_mode(classifier: MakeClassifier, beginning: TaskData) -> None:
    dropping = classifier(dropout=0.5).eval()
    found, plain = evaluated(dropping, beginning), evaluated(classifier(), beginning)
    assert (found.loss, found.predictions) == (plain.loss, plain.predictions)
    assert not dropping.training


def test_mode_is_restored_after_a_failure(classifier: MakeClassifier, beginning: TaskData) -> None:
    model = classifier().train()
    model.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("boom")))
    with pytest.raises(RuntimeError, match="boom"):
        evaluated(model, beginning)
    assert model.training and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def test_bf16_is_close(translator: MakeTranslator, spelling: TaskData) -> None:
    """Eight bits of mantissa through five sub-layers: some per cent of a loss of about 6."""
    model = translator(2).float()
    exact, rough = evaluated(model, spelling), evaluated(model, spelling, precision="bf16")
    assert rough.loss != exact.loss
    assert rough.loss == pytest.approx(exact.loss, rel=0.05)


def test_no_rows_are_an_error(classifier: MakeClassifier, beginning: TaskData) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        evaluated(classifier(), beginning, rows=np.array([], dtype=np.int64))


def test_any_classifier_is_evaluated_by_its_log_probabilities(beginning: TaskData) -> None:
    """No torch module: a table of probabilities in float64, of three rows in an order of their own."""
    rows, split = np.array([8, 2, 5]), beginning.splits["test"]
    assert split.labels is not None
    chances = np.random.default_rng(0).dirichlet(np.ones(7), 3)
    found = evaluate_classes(np.log(chances), rows, split, beginning)
    assert found.loss == pytest.approx(-np.mean([np.log(chances[i, split.labels[row]]) for i, row in enumerate(rows)]))
    assert found.predictions == [beginning.label_names[c] for c in chances.argmax(1)]  # type: ignore[index]
    np.testing.assert_array_equal(found.labels, split.labels[rows])
    with pytest.raises(ValueError, match=r"must be of 3 rows and 7 classes, but their shape is \(7, 3\)"):
        evaluate_classes(np.log(chances).T, rows, split, beginning)


def test_the_loss_is_summed_in_float64(beginning: TaskData) -> None:
    """In float32 the small ones would be rounded to the steps of the large one."""
    rows, split = np.zeros(3001, dtype=np.int64), beginning.splits["test"]
    table = np.full((len(rows), 7), -1e-3, dtype=np.float32)
    table[0] = -3e4
    expected = (3e4 + (len(rows) - 1) * float(np.float32(1e-3))) / len(rows)
    assert evaluate_classes(table, rows, split, beginning).loss == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("texts", "references", "tokenize", "expected"),
    [
        (["早上好"] * 3, ["早上好", "我很好", "a b c d"], "13a", ["2 of 3 references have fewer than 4 words"]),
        (["早上好"] * 3, ["早上好", "我很好", "a b c d"], "zh", []),
        (["a b c d"], ["A b c d"], "13a", ["every output is in lower case, and 1 of 1 references are not"]),
        (["A b c d"], ["A b c d"], "13a", []),
        ([""], ["A b c d"], "13a", []),
    ],
)
def test_scores_that_are_low_for_another_reason_are_told(
    texts: list[str], references: list[str], tokenize: str, expected: list[str]
) -> None:
    found = list(notes_on(texts, [(one,) for one in references], "bleu", tokenize))
    assert len(found) == len(expected) and all(map(str.startswith, found, expected))
