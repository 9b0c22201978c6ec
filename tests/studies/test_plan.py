"""Cells of a study: seeds, values, matched sizes, tuned settings, rules of fairness."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from study_helpers import composer, heads, name_of, study

from minitx.config import CnnConfig, ConfigError, TransformerConfig
from minitx.studies.plan import make_plan, make_tries
from minitx.studies.tuning import Tuned, digest_of

TRIES = {"slow": ["optim.lr=0.001"], "fast": ["optim.lr=0.01"]}


def two_kinds(**changes: Any) -> dict[str, Any]:
    part = {"measure": "test.accuracy", "arm": "transformer", "against": "cnn", "delta": 0.05}
    return {
        "seeds": [3, 5, 7, 11, 13],
        "arms": {
            "transformer": {"overrides": ["model=transformer", "model.n_layers=1", "model.d_ff=40"]},
            "cnn": {"overrides": ["model=cnn", "model.n_layers=2"], "match": "transformer"},
        },
        "contrasts": {"C8a": {"better": part}},
        "on_purpose": {"tuning": "nothing is tried here"},
        **changes,
    }


def test_a_cell_for_each_value_and_seed(tiny_classes: dict[str, Any]) -> None:
    plan = make_plan(study(heads()), composer(tiny_classes), name_of, None, ["optim.lr=0.003"])
    assert [(c.arm, c.value, c.seed) for c in plan.cells] == [("wide", v, s) for v in (1, 2) for s in range(5)]
    for cell in plan.cells:
        assert cell.config is not None and isinstance(cell.config.model, TransformerConfig)
        assert (cell.config.model.n_heads, cell.config.seed) == (cell.value, cell.seed)
        assert cell.config.trainer.max_steps == 6 and cell.config.optim.lr == 0.003
    assert len({cell.hash for cell in plan.cells}) == 10
    assert plan.cells[0].folder.startswith("arm-wide_n_heads-1_seed-0-")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measures": ["beauty"]}, r"study\.measures\.0 \(beauty\) must be one of .*fit"),
        ({"measures": ["cost"]}, r"study\.measures\.0 \(cost\) must be one of"),
        ({"arms": {"wide": {"kind": "fit"}}}, r"study\.wide\.kind \(fit\) must be one of train, cost, parallel"),
    ],
)
def test_measures_and_timings_must_be_known(
    tiny_classes: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(study(heads(**changes)), composer(tiny_classes), name_of, None)


def test_a_seed_also_chooses_the_subset(tiny_classes: dict[str, Any]) -> None:
    tier = heads(axis="data.train_size", values=[20, 50], contrasts={})
    cells = make_plan(study(tier), composer(tiny_classes), name_of, None).cells
    for cell in cells:
        assert cell.config is not None
        assert (cell.config.data.train_size, cell.config.data.subset_seed) == (cell.value, cell.seed)


def test_a_matched_arm_has_the_size_of_the_other(tiny_classes: dict[str, Any]) -> None:
    plan = make_plan(study(two_kinds()), composer(tiny_classes), name_of, None)
    cnn = next(cell.config for cell in plan.cells if cell.arm == "cnn")
    assert cnn is not None and isinstance(cnn.model, CnnConfig) and cnn.model.channels is not None
    # Of an encoder of width 16: attention 4 (16*16 + 16), feed-forward 40, three norms; two convolutions of width 3.
    transformer = 4 * (16 * 16 + 16) + 2 * 16 * 40 + 16 + 40 + 3 * 32
    assert abs(plan.sizes["cnn"] - plan.sizes["transformer"]) <= 0.05 * plan.sizes["transformer"]
    assert 0 <= plan.sizes["transformer"] - transformer <= 100  # and the head


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"cnn": {"overrides": ["model=cnn", "model.n_layers=5"]}}, "be fair in size"),
        (
            {"cnn": {"overrides": ["model=cnn", "model.pooling=max"], "match": "transformer"}},
            "model.pooling differ) must be fair in head",
        ),
        ({"cnn": {"overrides": ["model=cnn", "trainer.max_steps=7"], "match": "transformer"}}, "be fair in budget"),
        ({"cnn": {"overrides": ["model=cnn", "data.max_length=12"], "match": "transformer"}}, "be fair in data"),
        ({"cnn": {"overrides": ["model=cnn", "trainer.patience=2"], "match": "transformer"}}, "be fair in budget"),
        ({"cnn": {"overrides": ["model=cnn", "pretrain.kind=masked"], "match": "transformer"}}, "be fair in budget"),
    ],
)
def test_unequal_arms_are_refused_but_on_purpose(
    tiny_classes: dict[str, Any], arms: dict[str, Any], message: str
) -> None:
    tier = two_kinds()
    tier["arms"] |= arms
    with pytest.raises(ConfigError) as error:
        make_plan(study(tier), composer(tiny_classes), name_of, None)
    assert message in str(error.value) and "on_purpose." in str(error.value) and "\n" not in str(error.value)
    rule = str(error.value).partition("on_purpose.")[2]
    tier["on_purpose"] |= {rule: "it is what is studied"}
    assert make_plan(study(tier), composer(tiny_classes), name_of, None)


def tuned(
    tmp_path: Path, tier: dict[str, Any], scores: dict[str, dict[str, float]], metric: str = "accuracy"
) -> Tuned | None:
    record = tmp_path / "record.json"
    declared = study(tier)
    assert declared.quick is not None
    stored = {"of": digest_of(declared.quick), "metric": metric, "scores": scores}
    record.write_text(json.dumps(stored))
    return Tuned.read(record, declared)


def test_the_best_try_of_each_arm_is_taken(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    tier = two_kinds(tuning={"tries": TRIES})
    found = tuned(tmp_path, tier, {"transformer": {"slow": 0.5, "fast": 0.7}, "cnn": {"slow": 0.6, "fast": 0.4}})
    plan = make_plan(study(tier), composer(tiny_classes), name_of, found)
    rates = {cell.arm: cell.config.optim.lr for cell in plan.cells if cell.config is not None}
    assert rates == {"transformer": 0.01, "cnn": 0.001}
    found = tuned(tmp_path, tier, {"transformer": {"slow": 0.5, "fast": 0.7}, "cnn": {"slow": 0.6, "fast": 0.4}}, "per")
    plan = make_plan(study(tier), composer(tiny_classes), name_of, found)
    rates = {cell.arm: cell.config.optim.lr for cell in plan.cells if cell.config is not None}
    assert rates == {"transformer": 0.001, "cnn": 0.01}  # an error rate is better where it is lower


def test_arms_tuned_unequally_are_refused(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    tier = two_kinds(tuning={"tries": TRIES}, on_purpose={})
    found = tuned(tmp_path, tier, {"transformer": {"slow": 0.5, "fast": 0.7}, "cnn": {"slow": 0.6}})
    with pytest.raises(ConfigError, match=r"\(2 and 1 tries\) must be fair in tuning"):
        make_plan(study(tier), composer(tiny_classes), name_of, found)


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("optim.weight_decay=0.9", "optim.weight_decay"),
        ("optim.schedule=constant", "optim.schedule"),
        ("model.word_dropout=0.5", "model.word_dropout"),
    ],
)
def test_what_was_not_tried_is_equal(tiny_classes: dict[str, Any], tmp_path: Path, setting: str, key: str) -> None:
    tier = two_kinds(tuning={"tries": TRIES}, on_purpose={})
    scores = {"transformer": {"slow": 0.5, "fast": 0.7}, "cnn": {"slow": 0.6, "fast": 0.4}}
    assert make_plan(study(tier), composer(tiny_classes), name_of, tuned(tmp_path, tier, scores))
    tier["arms"]["cnn"]["overrides"].append(setting)
    with pytest.raises(ConfigError, match=rf"\({key} differ\) must be fair in tuning"):
        make_plan(study(tier), composer(tiny_classes), name_of, tuned(tmp_path, tier, scores))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainer.batch_rows=7", r"trainer\.batch_rows differ\) must be fair in budget"),
        ("model.d_ff=99", "fair in size"),
    ],
)
def test_timings_are_of_one_size_and_batch(tiny_classes: dict[str, Any], setting: str, message: str) -> None:
    part = {"contrast": "log_ratio", "measure": "cost.training_seconds", "arm": "one", "against": "two", "delta": 0.1}
    arms: dict[str, Any] = {
        "one": {"kind": "cost"},
        "two": {"kind": "cost", "overrides": ["model.attention.heads=grouped"]},
    }
    tier = two_kinds(arms=arms, contrasts={"C8a": {"faster": part}}, on_purpose={})
    assert make_plan(study(tier), composer(tiny_classes), name_of, None).cells, "nothing is tuned for a timing"
    arms["two"]["overrides"] = [setting]
    with pytest.raises(ConfigError, match=message):
        make_plan(study(tier), composer(tiny_classes), name_of, None)


def test_tries_do_not_depend_on_arms_that_have_none(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    tier = two_kinds(tuning={"tries": TRIES})
    before = study(tier).chosen
    tier["arms"]["linear"] = {"overrides": ["model=linear"], "tuned": False}
    assert digest_of(study(tier).chosen) == digest_of(before)
    tier["arms"]["linear"]["tuned"] = True
    assert digest_of(study(tier).chosen) != digest_of(before)


def test_arms_without_a_try_are_refused(tiny_classes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"\(0 and 0 tries\) must be fair in tuning"):
        make_plan(study(two_kinds(on_purpose={})), composer(tiny_classes), name_of, None)


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("seed=7", "each seed of the study"),
        ("model.n_heads=2", "the axis"),
        ("model.head_dim=4", "arm thin"),
        ("optim.lr=0.5", "the tries of tuning"),
    ],
)
def test_what_cells_differ_in_is_not_typed(tiny_classes: dict[str, Any], typed: str, why: str) -> None:
    tier = heads(arms={"wide": {}, "thin": {"overrides": ["model.head_dim=6"]}}, tuning={"tries": TRIES})
    with pytest.raises(ConfigError, match=rf"must not be typed, because {why} sets it"):
        make_plan(study(tier), composer(tiny_classes), name_of, None, [typed])
    with pytest.raises(ConfigError, match=r"must not be typed with study\.phase=tune"):
        make_tries(study(tier), composer(tiny_classes), name_of, ["trainer.max_steps=3"])


def test_the_place_of_the_data_may_be_typed_with_tries(tiny_classes: dict[str, Any]) -> None:
    tier, there = heads(tuning={"tries": TRIES}), f"data.path={tiny_classes['path']}"
    tries = make_tries(study(tier), composer(tiny_classes), name_of, [there, "trainer.device=cpu"])
    assert all(there in cell.overrides for named in tries.values() for cells in named.values() for cell in cells)


def test_a_cell_is_not_compared_with_itself(tiny_classes: dict[str, Any]) -> None:
    tier = two_kinds(
        arms={"one": {}, "two": {"overrides": ["model.n_heads=4"]}},
        contrasts={"C8a": {"same": {"measure": "seconds", "arm": "one", "against": "two", "delta": 1.0}}},
    )
    with pytest.raises(ConfigError, match=r"study\.C8a\.same \(one and two\) must be different cells"):
        make_plan(study(tier), composer(tiny_classes), name_of, None)


def test_tries_that_were_not_run_or_are_others_are_an_error(tmp_path: Path) -> None:
    tier = two_kinds(tuning={"tries": TRIES})
    with pytest.raises(ConfigError, match=r"study\.phase=tune"):
        Tuned.read(tmp_path / "nothing.json", study(tier))
    tuned(tmp_path, tier, {})
    other = two_kinds(tuning={"tries": TRIES}, overrides=["trainer.max_steps=7"])
    with pytest.raises(ConfigError, match="must be of the tries and cells that the study declares"):
        Tuned.read(tmp_path / "record.json", study(other))
    assert Tuned.read(tmp_path / "nothing.json", study(two_kinds())) is None


def test_values_between_take_the_tries_below_them(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    tier = heads(
        axis="data.train_size", values=[20, 50, 90, 150], seeds=[0], contrasts={},
        tuning={"tries": TRIES, "values": [20, 90]},
    )  # fmt: skip
    found = tuned(tmp_path, tier, {"wide@20": {"slow": 0.1, "fast": 0.2}, "wide@90": {"slow": 0.2, "fast": 0.1}})
    plan = make_plan(study(tier), composer(tiny_classes), name_of, found)
    rates = {cell.value: cell.config.optim.lr for cell in plan.cells if cell.config is not None}
    assert rates == {20: 0.01, 50: 0.01, 90: 0.001, 150: 0.001}
    tries = make_tries(study(tier), composer(tiny_classes), name_of, [])
    assert {place: list(named) for place, named in tries.items()} == {
        "wide@20": ["slow", "fast"], "wide@90": ["slow", "fast"],
    }  # fmt: skip
    assert {cell.seed for named in tries.values() for cells in named.values() for cell in cells} == {1000, 1001, 1002}


def test_an_arm_without_a_tried_value_is_tried_at_its_own(tiny_classes: dict[str, Any]) -> None:
    tier = heads(
        values=[1, 2, 4], arms={"wide": {}, "thin": {"values": [1], "overrides": ["model.head_dim=6"]}},
        seeds=[0], contrasts={}, tuning={"tries": TRIES, "values": [2]},
    )  # fmt: skip
    assert set(make_tries(study(tier), composer(tiny_classes), name_of, [])) == {"wide@2", "thin@1"}
