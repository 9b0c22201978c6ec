from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from minitx.analysis.attention_maps import AttentionView, Inspection, inspect_texts
from minitx.batch import BOS, EOS
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


# ------------------------------------------------------------------------------------- value-weighted maps, and effects


@pytest.mark.parametrize(
    "settings",
    [{}, {"heads": "grouped"}, {"n_kv_heads": 1}, {"position": "rotary", "head_dim": 6}, {"chunk": 3}],
    ids=["split", "grouped", "shared", "rotary", "chunks"],
)
def test_value_weighted_maps_against_the_output_matrix(
    classifier: MakeClassifier, beginning: TaskData, settings: dict[str, object]
) -> None:
    """What a head adds to a query from one key, by sending that head's weighed value alone through the output layer."""
    model = classifier(n_layers=2, **settings)
    [view] = inspected(model, beginning, "baobab").views
    assert view.value_weighted is not None and view.value_weighted.shape == view.weights.shape == (2, 3, 7, 7)
    batch = TextProcessor.of(beginning, MAX_LENGTH).encode(["baobab"]).batch(np.array([0]))
    with capture_attention(model) as maps, torch.no_grad():
        model.eval()(batch)
    for layer, attention in enumerate(model.encoder.attentions()):  # type: ignore[union-attr,operator]
        record = maps.layers["encoder"][layer]
        assert record.values is not None
        chunk, row, start = (0, 4, 0) if "chunk" not in settings else (1, 1, 3)  # query 4 of the text
        for head in range(3):
            added = np.zeros(7)
            for key in range(record.weights.shape[3]):
                heads = torch.zeros(3, attention.head_dim)
                heads[head] = record.weights[chunk, head, row, key] * record.values[chunk, head, key]
                one = attention.output(heads.flatten()) - attention.output(torch.zeros(heads.numel()))
                added[start + key] = float(one.detach().square().sum()) ** 0.5
            np.testing.assert_allclose(view.value_weighted[layer, head, 4], added / added.sum(), atol=1e-6)
    assert np.abs(view.value_weighted - view.weights).max() > 0.01


def test_value_weighted_rows_sum_to_one_and_keep_the_mask(translator: MakeTranslator, spelling: TaskData) -> None:
    for view in inspected(translator(2), spelling, "dab").views:
        assert view.value_weighted is not None
        np.testing.assert_allclose(view.value_weighted.sum(-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(view.value_weighted == 0, view.weights == 0)


def test_attention_without_heads_has_no_values_to_weigh(translator: MakeTranslator, spelling: TaskData) -> None:
    [cross] = inspected(translator(2, kind="lstm"), spelling, "dab").views
    assert cross.value_weighted is None and cross.loss_without is None


def test_answers_and_effects_of_a_classifier(classifier: MakeClassifier, beginning: TaskData) -> None:
    """Probabilities of the label with and without each head, by gates set by hand."""
    model, processor = classifier(n_layers=2), TextProcessor.of(beginning, MAX_LENGTH)
    [found] = inspect_texts(model, ["cab"], processor, device=CPU, n_answers=3, effects=True)
    [view] = found.views
    batch = processor.encode(["cab"]).batch(np.array([0]))
    model.eval()
    with torch.no_grad():
        log_probs = model(batch)[0].log_softmax(-1)
        best = log_probs.argsort(descending=True)[:3].tolist()
        assert beginning.label_names is not None
        assert [answer.text for answer in found.answers] == [beginning.label_names[index] for index in best]
        assert [a.probability for a in found.answers] == pytest.approx(log_probs[best].exp().tolist(), abs=1e-6)
        assert found.output == found.answers[0].text and view.loss_without is not None
        for layer, attention in enumerate(model.encoder.attentions()):  # type: ignore[union-attr,operator]
            for head in range(3):
                gates = torch.ones(3)
                gates[head] = 0
                attention.set_gates(gates)
                loss = float(log_probs[best[0]] - model(batch)[0].log_softmax(-1)[best[0]])
                attention.set_gates(None)
                assert view.loss_without[layer][head] == pytest.approx(loss, abs=1e-5)
    assert max(abs(loss) for of_layer in view.loss_without for loss in of_layer) > 1e-3


def test_answers_and_effects_of_a_translator(translator: MakeTranslator, spelling: TaskData) -> None:
    model, processor = translator(2), TextProcessor.of(spelling, MAX_LENGTH)
    ready = TextModel(models=(model,), processor=processor, device=CPU)
    [found] = inspect_texts(model, ["dab"], processor, device=CPU, n_answers=3, effects=True)
    [best] = ready.n_best(["dab"], 3)
    assert [a.text for a in found.answers] == [c.text for c in best]
    assert [a.probability for a in found.answers] == pytest.approx([np.exp(c.log_prob) for c in best], rel=1e-6)
    batch = processor.encode(["dab"]).batch(np.array([0]))
    [ids] = greedy(model, batch)
    written = torch.tensor([*ids.tolist(), EOS])
    assert len(written) < model.output_limit(4)

    def loss() -> float:
        with torch.no_grad():
            hidden = model.decode(torch.tensor([[BOS, *ids.tolist()]]), model.encode(batch.src))
            log_probs = (hidden[0] @ model.output_weight.T).log_softmax(-1)
        return -float(log_probs[torch.arange(len(written)), written].mean())

    whole, decoder = loss(), model.decoder
    stacks = decoder.cross_attentions(), model.encoder.attentions(), decoder.attentions()  # type: ignore[union-attr,operator]
    for view, stack in zip(found.views, stacks, strict=True):
        assert view.loss_without is not None
        for layer, attention in enumerate(stack):
            attention.set_gates(torch.tensor([1.0, 0.0, 1.0]))
            assert view.loss_without[layer][1] == pytest.approx(loss() - whole, abs=1e-5)
            attention.set_gates(None)


def test_nothing_more_is_computed_than_is_asked_for(translator: MakeTranslator, spelling: TaskData) -> None:
    found = inspected(translator(2), spelling, "dab")
    assert found.answers == () and all(view.loss_without is None for view in found.views)
