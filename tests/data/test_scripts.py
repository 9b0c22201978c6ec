"""Scripts without spaces: where they are found, how they are divided, and that all other texts keep their ids."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from minitx.batch import UNK
from minitx.config import ConfigError, DataConfig, TokenizerConfig
from minitx.data import TaskData, load_data
from minitx.data.pipeline.scripts import close_gaps, lacks_spaces
from minitx.data.pipeline.tokenizer import RESERVED, Tokenizer

CHINESE = ["我们明天去北京看朋友。", "朋友明天不去北京，我们去。", "今天天气不好！"] * 3
JAPANESE = ["彼らはついにコンピューターを使いました。", "コンピューターは使いません。"] * 3
THAI = ["เราจะไปกรุงเทพพรุ่งนี้", "พรุ่งนี้อากาศไม่ดี"] * 3
LATIN = [f"Das {word} ist schön, nicht wahr? It's {word} 42!" for word in ("Haus", "Boot", "Übel")] * 5
OTHERS = {
    "Cyrillic": "Это мой дом, а это твой.",
    "Korean": "나는 학교에 갑니다.",
    "Arabic": "هذا بيتي",
    "Hindi": "यह मेरा घर है",
}


@pytest.mark.parametrize(
    "texts", [CHINESE, JAPANESE, THAI, ["ພວກເຮົາຈະໄປ"], ["យើងនឹងទៅ"], ["ကျွန်တော်တို့"]], ids=lambda t: t[0]
)
def test_scripts_without_spaces_are_found(texts: list[str]) -> None:
    assert lacks_spaces(texts)
    assert lacks_spaces([*texts, *LATIN])


@pytest.mark.parametrize("texts", [LATIN, *([text] for text in OTHERS.values()), [], [""]], ids=str)
def test_others_are_not(texts: list[str]) -> None:
    assert not lacks_spaces(texts)


def test_words_that_have_been_set_apart_are_left_so() -> None:
    apart = ["我们 明天 去 北京 看 朋友 。", "เรา จะ ไป กรุงเทพ พรุ่งนี้"]
    assert not lacks_spaces(apart)
    assert lacks_spaces([text.replace(" ", "") for text in apart])


def test_a_stray_sign_changes_no_vocabulary() -> None:
    assert not lacks_spaces([*LATIN * 10, "北京"])
    assert lacks_spaces([*LATIN * 10, *CHINESE])


@pytest.mark.parametrize("kind", ["bpe", "word"])
@pytest.mark.parametrize("texts", [CHINESE, JAPANESE], ids=["Chinese", "Japanese"])
def test_each_character_is_a_token(kind: str, texts: list[str]) -> None:
    """Test texts then take as many tokens per character as training texts, all of them known."""
    tokenizer = Tokenizer.fit(TokenizerConfig.model_validate({"kind": kind}), texts)
    for text in (texts[0], "".join(reversed(texts[1]))):
        (ids,) = tokenizer.encode_batch([text])
        assert tokenizer.tokens(ids) == list(text)
        assert tokenizer.decode(ids) == text
        assert UNK not in ids


def test_thai_clusters_are_words_and_nothing_is_lost() -> None:
    word, bpe = (Tokenizer.fit(TokenizerConfig.model_validate({"kind": kind}), THAI) for kind in ("word", "bpe"))
    assert word.tokens(word.encode_batch(["พรุ่งนี้"])[0]) == ["พ", "รุ่", "ง", "นี้"]
    assert bpe.tokens(bpe.encode_batch(["นี้"])[0]) == ["น", "ี้"]
    assert [t.decode(t.encode_batch([THAI[0]])[0]) for t in (word, bpe)] == [THAI[0]] * 2


DIVIDED = Tokenizer.fit(TokenizerConfig(), [*CHINESE, *JAPANESE, *THAI, *LATIN])


@given(text=st.text(st.characters(min_codepoint=0x0E00, max_codepoint=0x9FFF) | st.sampled_from(" abc,\n")))
def test_divided_pieces_give_any_text_back(text: str) -> None:
    assert DIVIDED.decode(DIVIDED.encode_batch([text])[0]) == text


def test_mixed_text_keeps_its_latin_words() -> None:
    (ids,) = DIVIDED.encode_batch(["我们 Haus天气"])
    assert DIVIDED.tokens(ids) == ["我", "们", "␣Haus", "天", "气"]
    assert Tokenizer.from_json(DIVIDED.to_json()).encode_batch(["我们 Haus天气"]) == [ids]


def test_characters_begin_words_where_there_are_no_spaces() -> None:
    """What word dropout hides as one."""
    (ids,) = DIVIDED.encode_batch(["我们 Haus, ist"])
    starts = DIVIDED.word_starts()
    assert [bool(starts[i]) for i in ids] == [True, True, True, False, True]


def test_words_of_such_scripts_are_joined_without_spaces() -> None:
    assert close_gaps("我 们 go to 北 京 !") == "我们 go to 北京 !"
    word = Tokenizer.fit(TokenizerConfig(kind="word"), [*CHINESE, *LATIN])
    assert word.decode(word.encode_batch(["我们 Haus 天气"])[0]) == "我们 Haus 天气"


@pytest.mark.parametrize(
    "texts", [LATIN, [*LATIN * 20, "北京"], list(OTHERS.values())], ids=["latin", "stray", "others"]
)
@pytest.mark.parametrize("vocab_size", [263, 311])
def test_other_texts_keep_their_vocabulary_to_the_byte(texts: list[str], vocab_size: int) -> None:
    """Against the library used as before there was any division, pieces that occur once included."""
    plain = tokenizers.Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=RESERVED, show_progress=False, initial_alphabet=alphabet
    )
    plain.train_from_iterator(texts, trainer)
    assert Tokenizer.fit(TokenizerConfig(vocab_size=vocab_size), texts).to_json() == plain.to_str()


@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_sequences_of_symbols_are_never_divided(kind: str) -> None:
    texts = ["北京 天気", "京北 気天"] * 3
    tokenizer = Tokenizer.fit(TokenizerConfig.model_validate({"kind": kind}), ["".join(texts)], symbols=True)
    assert (
        isinstance(tokenizers.Tokenizer.from_str(tokenizer.to_json()).pre_tokenizer, pre_tokenizers.Sequence) is False
    )


# ------------------------------------------------------------------------------------------------------------ warnings


def classes(tmp_path: Path, texts: list[str], **tokenizer: object) -> TaskData:
    """The texts as a file with two classes, cut by the file itself."""
    rows = [f"{text},{'ab'[i % 2]}" for i, text in enumerate(texts)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    config = {"name": "rows", "source": "files", "task": "classification", "path": str(tmp_path / "rows.csv")}
    return load_data(
        DataConfig.model_validate({**config, "tokenizer": tokenizer, "cache_dir": str(tmp_path / "cache")})
    )


def strings(alphabet: str, length: int) -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices(alphabet, k=length)) for _ in range(211)]


def about_tokens(data: TaskData) -> list[str]:
    return [note for note in data.notes if note.startswith("data.tokenizer")]


def test_strings_that_are_learned_by_heart_are_warned_of(tmp_path: Path) -> None:
    """DNA: every training string a token of its own, a test string one per two or three letters."""
    data = classes(tmp_path, strings("ACGT", 29))
    train, test = data.splits["train"], data.splits["test"]
    assert set(train.src.lengths.tolist()) == {2}
    times = (test.src.lengths - 1).mean()
    expected = (
        f"data.tokenizer.kind (bpe) takes {times:.1f} times as many tokens per character for test texts as for "
        f"training texts; set data.tokenizer.kind=char"
    )
    assert about_tokens(data) == [expected]


def test_words_that_no_training_text_has_are_warned_of(tmp_path: Path) -> None:
    [note] = about_tokens(classes(tmp_path, strings("ACGT", 29), kind="word"))
    assert note == "data.tokenizer.kind (word) knows only 0 % of the tokens of test texts; set data.tokenizer.kind=char"


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "word"])
def test_texts_that_are_read_alike_are_not(tmp_path: Path, kind: str) -> None:
    texts = strings("ACGT", 29) if kind in ("char", "byte") else strings("京北気天今明日友", 8)
    assert about_tokens(classes(tmp_path, texts, kind=kind)) == []


def test_each_side_of_a_translation_is_looked_at(tmp_path: Path) -> None:
    rows = [f"{' '.join(text[:7])},{text}" for text in strings("ACGT", 29)]
    (tmp_path / "rows.csv").write_text("\n".join(["src,tgt", *rows]) + "\n")
    config = {"name": "rows", "source": "files", "task": "translation", "path": str(tmp_path / "rows.csv")}
    data = load_data(
        DataConfig.model_validate(
            {**config, "tokenizer": {"joint": False}, "tgt_tokenizer": {}, "cache_dir": str(tmp_path / "cache")}
        )
    )
    [note] = [note for note in data.notes if "tokenizer" in note]
    assert note.startswith("data.tgt_tokenizer.kind (bpe) of the target takes ")
    assert note.endswith("; set data.tgt_tokenizer.kind=char")


def test_a_dictionary_that_is_not_there_is_named_before_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitx.data.pipeline.load.find_spec", lambda name: None)
    (tmp_path / "rows.csv").write_text("src,tgt\na,b\n")
    raw = {"source": "files", "path": str(tmp_path / "rows.csv"), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(ConfigError, match=r"^data\.bleu_tokenize \(ja-mecab\) must find its dictionary, .*\[ja\]"):
        load_data(DataConfig.model_validate({**raw, "bleu_tokenize": "ja-mecab"}))
