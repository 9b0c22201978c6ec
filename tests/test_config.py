"""Every message is matched, every file in conf/ composes and types, and no default is written twice."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tiny import ROOT

import train
from minitx.config import MODELS, Config, ConfigError, TransformerConfig
from minitx.config.base import dotted_keys, keys_with_role, role_of
from minitx.config.load import load
from minitx.studies.study import Study
from minitx.sweeps.hydra_plugin import plain
from minitx.sweeps.recipes import with_recipe

CONF = ROOT / "conf"
GROUPS = {
    group: sorted(p.stem for p in (CONF / group).glob("*.yaml"))
    for group in ("data", "model", "optim", "trainer", "pretrain")
}
EXPERIMENTS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))
SECTIONS = [
    (name, model)
    for name in EXPERIMENTS
    for model in yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text()).get("models", {})
]
"""(recipe, model for which it has a section)"""
NEEDING_A_PATH = ("files", "tatoeba", "g2p", "multi30k_tok", "cmudict_full", "text_classification")
OF_THE_MODEL = "experiment@_global_=${experiment}/${model}"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(
            {"model": {"d_mdoel": 64}}, "unknown key 'model.d_mdoel'; did you mean 'model.d_model'?", id="unknown-key"
        ),
        pytest.param(
            {"model": {"kind": "cnn", "n_heads": 4}},
            "unknown key 'model.n_heads' of model=cnn; only model=transformer has it",
            id="key-of-another-model",
        ),
        pytest.param(
            {"model": {"kind": "rnn"}},
            "model.kind (rnn) must be one of transformer, cnn, lstm, bag, linear",
            id="unknown-model",
        ),
        pytest.param(
            {"model": {"kind": "cnn", "kernel": 4}},
            "model.kernel (4) must be odd; a convolution reads as far to the left as to the right",
            id="even-kernel",
        ),
        pytest.param(
            {"model": {"kind": "cnn"}},
            "model (cnn) must be transformer or lstm, because data=cmudict is a translation; the others are "
            "classifiers, e.g. for data=cmudict_stress",
            id="cnn-translates-not",
        ),
        pytest.param(
            {
                "data": {"name": "x", "task": "classification", "source": "digits", "tokenizer": {"kind": "char"}},
                "model": {"word_dropout": 0.1},
            },
            "model.word_dropout (0.1) must be 0, because data.tokenizer.kind is char; use model.token_dropout",
            id="no-words",
        ),
        pytest.param({"modle": {}}, "unknown key 'modle'; did you mean 'model'?", id="unknown-section"),
        pytest.param({"n_head": 3}, "unknown key 'n_head'; did you mean 'model.n_heads'?", id="right-leaf-wrong-place"),
        pytest.param(
            {"model": {"n_heads": 5}},
            "model.d_model (128) must be divisible by model.n_heads (5); change one of them or set model.head_dim "
            "(any width is allowed)",
            id="heads-do-not-fit",
        ),
        pytest.param(
            {"optim": {"schedule": "cosin"}},
            "optim.schedule (cosin) must be one of 'cosine', 'inverse_sqrt', 'linear' or 'constant'; "
            "did you mean cosine?",
            id="choice",
        ),
        pytest.param({"optim": {"lr": -1.0}}, "optim.lr (-1.0) must be greater than 0", id="range"),
        pytest.param(
            {"trainer": {"batch_tokens": "many"}}, "trainer.batch_tokens (many) must be an integer", id="type"
        ),
        pytest.param({"optim": {"lr": True}}, "optim.lr (True) must be a number", id="bool-is-no-number"),
        pytest.param(
            {"data": {"train_size": 1.5}},
            "data.train_size (1.5) must be null, a count >= 1 or a fraction in (0, 1]",
            id="train-size",
        ),
        pytest.param(
            {"model": {"attention": {"span": "window"}, "pooling": "cls"}},
            "model.pooling (cls) must not be cls, because model.attention.span is window; "
            "the first token would read its neighbourhood alone; use mean or attention",
            id="cls-with-window",
        ),
        pytest.param(
            {"trainer": {"max_epochs": None}},
            "trainer.max_epochs (null) must be set, or max_steps or max_minutes; a run needs an end",
            id="endless",
        ),
        pytest.param(
            {"data": {"source": "dataset"}},
            "data.path (null) must name a hub id or a local folder; data=cmudict needs no path and no network",
            id="no-path",
        ),
        pytest.param(
            {"model": {"position": "rotary", "head_dim": 7}},
            "model.head_dim (7) must be even, because model.position is rotary; use an even width",
            id="rotary-odd",
        ),
        pytest.param(
            {"model": {"attention": {"n_kv_heads": 3}}},
            "model.attention.n_kv_heads (3) must divide model.n_heads (4); use 1, 2, 4",
            id="uneven-shared-heads",
        ),
        pytest.param(
            {"model": {"attention": {"kv_rank": 0}}},
            "model.attention.kv_rank (0) must be greater than or equal to 1",
            id="no-rank",
        ),
        pytest.param(
            {"model": {"attention": {"heads": "grouped", "n_kv_heads": 2}}},
            "model.attention.heads (grouped) must be split, because model.attention.n_kv_heads is set; "
            "leave one of them out",
            id="grouped-shared-heads",
        ),
        pytest.param(
            {"model": {"attention": {"heads": "grouped", "project_values": False}}},
            "model.attention.heads (grouped) must be split, because model.attention.project_values is set; "
            "leave one of them out",
            id="grouped-unprojected-values",
        ),
        pytest.param(
            {"model": {"attention": {"tie_query_key": True, "kv_rank": 8}}},
            "model.attention.tie_query_key (True) must be false, because model.attention.kv_rank is set; "
            "leave one of them out",
            id="tied-of-rank",
        ),
        pytest.param(
            {"model": {"attention": {"project_values": False, "n_kv_heads": 2}}},
            "model.attention.project_values (False) must be true, because model.attention.n_kv_heads is set; "
            "leave one of them out",
            id="shared-unprojected-values",
        ),
        pytest.param(
            {"model": {"attention": {"project_values": False}, "head_dim": 16}},
            "model.attention.project_values (False) must be true, because model.n_heads x model.head_dim (4 x 16) "
            "is not model.d_model (128); set model.head_dim=null",
            id="unprojected-values-of-another-width",
        ),
        pytest.param(
            {"model": {"dropout": 0.0}, "optim": {"r_drop": 5.0}},
            "optim.r_drop (5.0) must be 0, because model.dropout and model.attention.dropout are 0; "
            "both passes would be the same; set model.dropout",
            id="r-drop-without-dropout",
        ),
        pytest.param(
            {"data": {"truncate": "tail"}},
            "data.truncate (tail) must be head, because data.task is translation; "
            "both sides of a pair are cut at the end alone",
            id="truncate-translation",
        ),
        pytest.param(
            {"model": {"word_dropout": 0.1}},
            "model.word_dropout (0.1) must be 0, because data=cmudict is a translation; use model.dropout",
            id="noise-translation",
        ),
        pytest.param(
            {"data": {"task": "masked", "source": "digits"}, "model": {"kind": "bag"}},
            "model (bag) must be transformer, cnn or lstm, because data.task is masked; "
            "a token can be guessed only where states know of others",
            id="masked-bag",
        ),
        pytest.param(
            {
                "data": {"task": "classification", "source": "digits"},
                "model": {"kind": "linear"},
                "pretrain": {"kind": "masked"},
            },
            "model (linear) must be transformer, cnn or lstm, because pretrain.kind is masked; "
            "a token can be guessed only where states know of others",
            id="pretrained-linear",
        ),
        pytest.param(
            {"pretrain": {"kind": "masked"}},
            "pretrain.kind (masked) must be none, because data.task is translation; it is for classifiers",
            id="pretrained-translator",
        ),
        pytest.param(
            {"data": {"task": "masked", "source": "digits"}, "pretrain": {"kind": "masked"}},
            "pretrain.kind (masked) must be none, because data.task is masked; it is for classifiers",
            id="pretrained-twice",
        ),
        pytest.param(
            {"pretrain": {"run": "x"}},
            "pretrain.run (x) must be null, because pretrain.kind is none; add pretrain=masked",
            id="a-start-for-nothing",
        ),
        pytest.param(
            {"pretrain": {"max_epochs": None}},
            "pretrain.max_epochs (null) must be set, or max_steps or max_minutes; pretraining needs an end",
            id="endless-pretraining",
        ),
        pytest.param(
            {"masking": {"unknown": 0.95}},
            "masking.random (0.1) must be at most 1 - masking.unknown (0.95); lower one",
            id="masking-shares",
        ),
        pytest.param({"masking": {"rate": 0.0}}, "masking.rate (0.0) must be greater than 0", id="masking-rate"),
    ],
)
def test_a_mistake_is_one_line_with_key_value_rule_and_remedy(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(raw)
    assert str(caught.value) == message


def test_defaults_load_and_are_frozen() -> None:
    config = load({})
    assert config == Config()
    with pytest.raises(Exception, match="frozen"):
        config.model.n_heads = 2  # type: ignore[misc]


def test_r_drop_needs_dropout_somewhere() -> None:
    for dropout in ({"dropout": 0.1}, {"dropout": 0.0, "attention": {"dropout": 0.1}}):
        assert load({"model": dropout, "optim": {"r_drop": 5}}).optim.r_drop == 5.0


def test_any_head_dim_fits() -> None:
    config = load({"model": {"d_model": 256, "n_heads": 3, "head_dim": 64}})
    assert config.model.k_dim == 64


def test_every_key_is_documented_or_speaks_for_itself() -> None:
    keys = list(dotted_keys(Config))
    assert len(keys) == len(set(keys)) and "model.attention.window" in keys and "data.tgt_tokenizer.kind" in keys


def test_a_key_has_one_role_whatever_the_model() -> None:
    """`pooling`, say, is declared anew by some models: its role must be too."""
    roles: dict[str, set[str]] = {}
    for section in MODELS.values():
        for name, field in section.model_fields.items():
            roles.setdefault(name, set()).add(role_of(field))
    assert [name for name, found in roles.items() if len(found) > 1] == []


def test_keys_by_role() -> None:
    assert set(keys_with_role(Config, "seed")) == {"seed", "data.subset_seed", "data.probe.seed"}
    assert {"data.revision", "data.test_path", "trainer.resume"} <= set(keys_with_role(Config, "place"))
    machine = keys_with_role(Config, "machine")
    assert "trainer.speed" in machine and "trainer.speed.onednn" not in machine
    assert "model.attention.dropout" in keys_with_role(Config, "noise")


# ------------------------------------------------------------------------------------------------------------ conf/


def composed(*overrides: str) -> Config:
    train.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return load(plain(compose("config", with_recipe(overrides, train.CONF))))


@pytest.mark.parametrize(
    "choice",
    [f"{g}={name}" for g, names in GROUPS.items() for name in names]
    + [f"experiment={e}" for e in EXPERIMENTS]
    + [f"experiment={name} model={model}" for name, model in SECTIONS],
)
def test_every_file_in_conf_composes_and_types(choice: str) -> None:
    group, _, name = choice.split()[0].partition("=")
    needs_path = group in ("data", "experiment") and name in NEEDING_A_PATH
    more = ["data.path=somewhere.csv"] if needs_path else []
    config = composed(*choice.split(), *more, *(["data=digits"] if group in ("model", "pretrain") else []))
    assert isinstance(config, Config)


def test_a_recipe_has_a_part_of_each_model_own() -> None:
    """The Transformer's keys do not reach another model, by whatever way the recipe was chosen."""
    assert composed("data=digits").model.d_model == composed("experiment=digits").model.d_model == 64
    for way in ("data=digits", "experiment=digits"):
        config = composed(way, "model=cnn")
        assert (config.model.kind, config.optim.lr) == ("cnn", 0.003)
    assert composed("experiment=none", "data=digits").model == TransformerConfig()


def test_a_section_of_a_model_goes_on_top_of_the_one_that_the_recipe_builds_on() -> None:
    """data=newsgroups builds on text_classification; what is typed goes on top of both."""
    section = {"d_model": 64, "token_dropout": 0.5, "n_layers": 1}  # newsgroups, transformer
    below = {"dropout": 0.3, "position": "rotary"}  # text_classification, transformer
    found = composed("data=newsgroups").model.model_dump()
    assert {key: found[key] for key in (section | below)} == section | below
    typed = composed("data=newsgroups", "model.d_model=32", "model.dropout=0.2").model
    assert isinstance(typed, TransformerConfig) and (typed.d_model, typed.dropout, typed.n_layers) == (32, 0.2, 1)
    bag = composed("data=newsgroups", "model=bag")  # no section of its own
    assert (bag.data.tokenizer.kind, bag.optim.lr) == ("word", 0.005)


def test_sections_of_models_are_no_part_of_the_configuration() -> None:
    train.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert "models" not in compose("config", ["data=imdb"])


@pytest.mark.parametrize(
    ("typed", "composed_of"),
    [
        ("experiment=digits seed=3", f"data=digits experiment=digits {OF_THE_MODEL} seed=3"),
        ("seed=3 experiment=multi30k --cfg job", f"seed=3 data=multi30k experiment=multi30k {OF_THE_MODEL} --cfg job"),
        ("data=files experiment=digits", f"data=files experiment=digits {OF_THE_MODEL}"),
        ("trainer.resume=RUN experiment=digits", "trainer.resume=RUN experiment=digits"),
        ("trainer.resume=auto experiment=digits", f"trainer.resume=auto data=digits experiment=digits {OF_THE_MODEL}"),
        ("experiment=none", f"experiment=none {OF_THE_MODEL}"),
        ("data=digits", "data=digits"),
        ("", ""),
    ],
)
def test_an_experiment_brings_its_data(typed: str, composed_of: str) -> None:
    assert with_recipe(typed.split(), train.CONF) == composed_of.split()


def test_swept_experiments_need_their_data_named() -> None:
    with pytest.raises(ConfigError, match="must be named where several experiments are swept"):
        with_recipe(["-m", "experiment=digits,multi30k"], train.CONF)
    named = ["-m", "experiment=digits,multi30k", "data=files"]
    assert with_recipe(named, train.CONF) == [*named[:2], OF_THE_MODEL, named[2]]


def test_an_unknown_experiment_is_a_mistake() -> None:
    with pytest.raises(
        ConfigError, match=r"^experiment \(multi3k\) must name a file of conf/experiment; there are ag_news, banking77"
    ):
        with_recipe(["experiment=multi3k", "data=multi30k"], train.CONF)


def test_every_key_can_be_set_from_the_command_line() -> None:
    """Each section of the typed configuration is in what Hydra composes, the default's values included."""
    train.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        raw = OmegaConf.to_container(compose("config", ["experiment=none"]))
    defaults = Config().model_dump(mode="json")
    assert isinstance(raw, dict)
    assert {name: set(keys) for name, keys in defaults.items() if isinstance(keys, dict)} == {
        name: set(keys) for name, keys in raw.items() if isinstance(keys, dict) and name not in ("minitx", "study")
    }
    assert set(raw["study"]) == set(Study.model_fields)
    config = composed("decode.length_penalty=0.5", "optim.r_drop=1", "model.dropout=0.1")
    assert (config.decode.length_penalty, config.optim.r_drop) == (0.5, 1.0)


def test_conf_states_no_default_again() -> None:
    """A value in conf/ that equals the default of minitx/config would be a fact stated twice."""
    defaults = Config().model_dump(mode="json")
    for group, names in GROUPS.items():
        for name in names:
            tree = yaml.safe_load((CONF / group / f"{name}.yaml").read_text())
            of_group = MODELS[name]().model_dump(mode="json") if group == "model" else defaults[group]
            repeated = [k for k, v in tree.items() if k != "defaults" and of_group.get(k, object()) == v]
            identity = {"name", "source", "task"}  # what a data set is, stated also where it is the default one
            assert not set(repeated) - identity, f"conf/{group}/{name}.yaml repeats {repeated}"


def test_the_default_is_the_embedded_set() -> None:
    assert composed().data.source == "cmudict"


def test_conf_has_no_unread_file() -> None:
    known = {CONF / "config.yaml", CONF / "hydra" / "sweeper" / "minitx.yaml"}
    read = {
        CONF / g / f"{n}.yaml"
        for g, names in itertools.chain(GROUPS.items(), [("experiment", EXPERIMENTS)])
        for n in names
    }
    studies = set(Path(CONF / "study").rglob("*.yaml"))  # tests/studies/test_study.py composes them
    assert set(Path(CONF).rglob("*.yaml")) == known | read | studies
    assert len(SECTIONS) > 20 and {model for _, model in SECTIONS} <= set(MODELS)
