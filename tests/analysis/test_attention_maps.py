from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from minitx.analysis.attention_maps import AttentionView, Inspection, inspect_texts
from minitx.batch import BOS
from minitx.config import DecodeConfig
from minitx.data import TaskData
from minitx.decoding.greedy import greedy
from minitx.decoding.text import TextModel, TextProcessor
from minitx.nn.capture import capture_attention
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator

CPU = torch.device("cpu")
MAX_LENGTH = 29
MakeTranslator = Callable[..., Translator]
MakeClassifier = Callable[..., Classifier]


def inspected(model: Translator | Classifier, data: TaskData, text: str) -> Inspection:
    [found] = inspect_texts(model, [text], TextProcessor.of(data, MAX_LENGTH), device=CPU)
    return found


def test_classifier_shows_its_encoder(classifier: MakeClassifier, beginning: TaskData) -> None:
    model = classifier(n_layers=5)
    found = inspected(model, beginning, "cab")
    [view] = found.views
    assert found.text == "cab"
    assert [found.output] == TextModel(
        models=(model,), processor=TextProcessor.of(beginning, MAX_LENGTH), device=CPU
    ).predict(["cab"])
    assert view.kind == "encoder" and view.weights.shape == (5, 3, 4, 4) and view.weights.dtype == np.float32
    assert view.query_tokens == view.key_tokens == ("[CLS]", "c", "a", "b")
    np.testing.assert_allclose(view.weights.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "settings", [{}, {"position": "rotary", "head_dim": 6}, {"span": "window"}], ids=["plain", "rotary", "window"]
)
def test_translator_shows_what_each_step_read(
    translator: MakeTranslator, spelling: TaskData, settings: dict[str, object]
) -> None:
    """Row t of the one captured pass is what the decoder read while it wrote token t, seeing nothing later."""
    model = translator(2, n_decoder_layers=3, **settings)
    batch = spelling.splits["test"].batch(np.array([4]))
    [ids] = greedy(model, batch)
    cross, encoder, decoder = inspected(model, spelling, "dab").views
    assert [view.kind for view in (cross, encoder, decoder)] == ["cross", "encoder", "decoder"]
    assert cross.weights.shape == (3, 3, len(cross.query_tokens), 4) and encoder.weights.shape == (2, 3, 4, 4)
    memory = model.encode(batch.src, None, batch.sentence)
    for t in range(min(len(ids), 11)):
        with capture_attention(model) as maps, torch.no_grad():
            model.decode(torch.tensor([[BOS, *ids[:t].tolist()]]), memory)
        assert maps.cross is not None and maps.decoder is not None
        np.testing.assert_allclose(cross.weights[:, :, t], maps.cross[:, 0, :, -1], atol=1e-6)
        np.testing.assert_allclose(decoder.weights[:, :, t, : t + 1], maps.decoder[:, 0, :, -1], atol=1e-6)
        assert not decoder.weights[:, :, t, t + 1 :].any()
    assert len(ids) > 0


def test_lstm_translator_shows_its_cross_attention(translator: MakeTranslator, spelling: TaskData) -> None:
    model = translator(2, kind="lstm")
    batch = spelling.splits["test"].batch(np.array([4]))
    [ids] = greedy(model, batch)
    [cross] = inspected(model, spelling, "dab").views
    assert cross.kind == "cross" and cross.weights.shape == (1, 1, len(cross.query_tokens), 4) and len(ids) > 0
    for t in range(min(len(ids), 5)):
        with capture_attention(model) as maps, torch.no_grad():
            model.decode(torch.tensor([[BOS, *ids[:t].tolist()]]), model.encode(batch.src))
        assert maps.cross is not None
        np.testing.assert_allclose(cross.weights[:, :, t], maps.cross[:, 0, :, -1], atol=1e-6)


@pytest.mark.parametrize("pooling", ["attention", "additive"])
@pytest.mark.parametrize(("kind", "kinds"), [("transformer", ["encoder", "pooling"]), ("lstm", ["pooling"])])
def test_classifier_shows_a_pooling_that_weighs(
    classifier: MakeClassifier, beginning: TaskData, kind: str, kinds: list[str], pooling: str
) -> None:
    *_, view = views = inspected(classifier(kind=kind, pooling=pooling), beginning, "cab").views
    assert [view.kind for view in views] == kinds
    assert view.weights.shape == (1, 1, 1, 4)
    assert view.query_tokens == ("text",) and view.key_tokens == ("[CLS]", "c", "a", "b")
    np.testing.assert_allclose(view.weights.sum(), 1, rtol=1e-6)


def test_a_model_without_attention_shows_none(classifier: MakeClassifier, beginning: TaskData) -> None:
    found = inspected(classifier(kind="lstm", pooling="max"), beginning, "cab")
    assert found.views == () and found.output


def test_a_text_in_chunks_is_one_map(classifier: MakeClassifier, beginning: TaskData) -> None:
    """Each chunk reads itself alone, and what it reads is what it reads as a text of its own."""
    model = classifier(chunk=3)
    [view] = inspected(model, beginning, "baobab").views  # [CLS] b a | o b a | b
    assert view.weights.shape == (2, 3, 7, 7) and len(view.key_tokens) == 7
    chunks = [range(3), range(3, 6), range(6, 7)]
    together = {(i, j) for chunk in chunks for i in chunk for j in chunk}
    for i in range(7):
        assert [bool((view.weights[..., i, j] > 0).all()) for j in range(7)] == [(i, j) in together for j in range(7)]
    with capture_attention(model) as maps, torch.no_grad():
        model(beginning.splits["test"].batch(np.array([2])))
    assert maps.encoder is not None
    np.testing.assert_allclose(view.weights[..., 3:6, 3:6], maps.encoder[:, 1], atol=1e-6)
    [short] = inspected(model, beginning, "a").views
    assert short.weights.shape == (2, 3, 2, 2)


def test_rows_are_labelled_with_what_is_written(
    translator: MakeTranslator, spelling: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spelling.tgt_tokenizer is not None
    [ids] = spelling.tgt_tokenizer.encode_batch(["C A B"])
    _always(monkeypatch, np.array(ids))
    found = inspected(translator(), spelling, "cab")
    cross, encoder, decoder = found.views
    assert found.output == "C A B"
    assert cross.query_tokens == decoder.query_tokens == ("C", "A", "B", "[EOS]")
    assert decoder.key_tokens == ("[BOS]", "C", "A", "B")
    assert cross.key_tokens == encoder.key_tokens == encoder.query_tokens == ("c", "a", "b", "[EOS]")


def test_an_output_cut_at_the_limit_shows_no_end(
    translator: MakeTranslator, spelling: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spelling.tgt_tokenizer is not None
    [[letter]] = spelling.tgt_tokenizer.encode_batch(["A"])
    model = translator(position="learned")
    limit = model.output_limit(4)
    _always(monkeypatch, np.full(limit, letter))
    cross, _, decoder = inspected(model, spelling, "cab").views
    assert cross.query_tokens == ("A",) * limit
    assert decoder.key_tokens == ("[BOS]", *("A",) * (limit - 1))


def test_an_empty_output_is_one_step(
    translator: MakeTranslator, spelling: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    _always(monkeypatch, np.array([], dtype=np.int64))
    found = inspected(translator(), spelling, "cab")
    assert found.output == "" and found.views[0].query_tokens == ("[EOS]",)


def test_model_is_left_as_it_was(translator: MakeTranslator, spelling: TaskData) -> None:
    model = translator().train()
    texts = ["cab", "", "abba"]
    found = inspect_texts(model, texts, TextProcessor.of(spelling, MAX_LENGTH), device=CPU)
    assert [shown.text for shown in found] == texts
    assert model.training and all(weight.grad is None for weight in model.parameters())
    assert inspect_texts(model, [], TextProcessor.of(spelling, MAX_LENGTH), device=CPU) == []


def test_labels_must_fit_the_weights() -> None:
    with pytest.raises(ValueError, match=r"weights of shape \(2, 3, 5, 7\) must be \(L, H, 7, 5\)"):
        AttentionView("encoder", np.zeros((2, 3, 5, 7), np.float32), ("a",) * 7, ("b",) * 5)


def _always(monkeypatch: pytest.MonkeyPatch, ids: np.ndarray) -> None:
    """Let decoding write `ids`, whatever the model thinks."""
    monkeypatch.setattr("minitx.analysis.attention_maps.translate", lambda *_: [ids])


def test_a_beam_s_output_is_shown_with_what_it_read(translator: MakeTranslator, spelling: TaskData) -> None:
    model, decode = translator(2), DecodeConfig(beam=4, length_penalty=0.0)
    ready = TextModel(models=(model,), processor=TextProcessor.of(spelling, MAX_LENGTH), device=CPU, decode=decode)
    texts = [spelling.splits["test"].text(row) for row in range(len(spelling.splits["test"]))]
    found = inspect_texts(model, texts, ready.processor, device=CPU, decode=decode)
    assert [shown.output for shown in found] == ready.predict(texts)
    assert [shown.output for shown in found] != [inspected(model, spelling, text).output for text in texts]
