"""What a study may declare; a mistake names its key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from study_helpers import heads, study
from tiny import ROOT

import train
from minitx.config import ConfigError
from minitx.studies.study import load_study
from minitx.sweeps.cells import place_name

FILES = sorted(path for path in (ROOT / "conf" / "study").glob("*.yaml") if path.stem not in ("none", "all"))


def along(contrast: str, **changes: Any) -> dict[str, Any]:
    """A contrast of one arm alone."""
    part = {"contrast": contrast, "measure": "seconds", "arm": "wide", "delta": 0.1}
    return {"contrasts": {"C8a": {"more": part}}, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"wide": {"match": "thin"}}}, "study.wide.match (thin) must be another of wide"),
        ({"axis": None, "values": [], "arms": {"wide": {"values": [1]}}}, "study.wide.values ([1]) must be left out"),
        ({"on_purpose": {"luck": "why not"}}, "study.quick.on_purpose.luck"),
        ({"arms": {"broad": {}}}, "study.C8a.more.arm (wide) must be one of broad"),
        ({"values": [1, 3]}, "study.C8a.more.at (2) must be a value of wide: 1, 3"),
        ({"arms": {"wide": {"match": "wide"}}}, "study.wide.match (wide) must be another of wide"),
        ({"arms": {"wide": {"at": {"3": []}}}}, "study.wide.at (3) must be a value of wide: 1, 2"),
        (along("slope", axis=None, values=[]), "study.C8a.more.contrast (slope) must have numbers on an axis"),
        (along("exponent", values=["a", "b"]), "study.C8a.more.contrast (exponent) must have numbers on an axis"),
        (along("log_ratio"), "study.C8a.more.against (null) must be an arm"),
        (along("rows_ratio"), "study.C8a.more.against (null) must be an arm"),
        ({"at_least_one": ["C8b"]}, "study.at_least_one (C8b) must be one of C8a"),
        ({"panels": {"C8b": []}}, "study.panels (C8b) must be one of C8a"),
        (
            {"panels": {"C8a": [{"measure": "seconds", "arms": {"broad": "b"}}]}},
            "study.panels.C8a (broad) must be one of wide",
        ),
        ({"looks": [7, 20]}, "study.looks ([7, 20]) must be some of 5, 10, 20, 40"),
    ],
)
def test_a_wrong_declaration_names_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        study(heads(**changes))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_claims_and_tiers_must_be_there() -> None:
    with pytest.raises(ConfigError, match=r"study\.claims\.C99\.statement"):
        load_study({"name": "x", "claims": {"C99": {"prediction": "", "would_change": ""}}})
    with pytest.raises(ConfigError, match=r"study.quick.contrasts \(C7\) must be a claim of the study: C8a"):
        study(heads(contrasts={"C7": heads()["contrasts"]["C8a"]}))
    with pytest.raises(ConfigError, match=r"study.tier \(full\) must be quick"):
        _ = study(heads(), tier="full").chosen


def test_arms_have_their_own_values_and_share_the_first_seeds() -> None:
    tier = study(heads(arms={"wide": {}, "thin": {"values": [2], "seeds": 2}})).chosen
    assert tier.values_of("wide") == [1, 2] and tier.values_of("thin") == [2]
    assert tier.seeds_of("wide") == [0, 1, 2, 3, 4] and tier.seeds_of("thin") == [0, 1]
    few = study(heads(), seeds=3)
    assert few.chosen.looks == [3] and few.at_look(3).chosen.seeds == [0, 1, 2]


def test_arms_can_share_a_part_of_their_overrides() -> None:
    tier = study(heads(arms={"wide": {"overrides": [["a=1", "b=2"], "c=3"]}})).chosen
    assert tier.arms["wide"].overrides == ["a=1", "b=2", "c=3"]


def test_looks_are_some_of_those_of_the_rule() -> None:
    assert study(heads(), looks=[5, 20]).chosen.looks == [5, 20]
    assert study(heads(), looks=[5, 20]).at_look(5).chosen.looks == [5], "what is recorded is what was looked at"
    with pytest.raises(ConfigError, match=r"study.seeds \(6\) must be at most 5"):
        _ = study(heads(), seeds=6).chosen
    for looks in ([5, 7], [20, 5], []):
        with pytest.raises(ConfigError, match=r"study.looks .* must be some of 5, 10, 20, 40, in order"):
            study(heads(), looks=looks)
    assert study(heads(axis=None, values=[], contrasts={})).chosen.values_of("wide") == [None]
    assert place_name(("wide", 2)) == "wide@2" and place_name(("wide", None)) == "wide"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_study_of_conf_is_typed(path: Path) -> None:
    train.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        found = load_study(OmegaConf.to_container(compose("config", [f"study={path.stem}"]).study, resolve=True))
    assert found.name == path.stem and found.claims
    for tier in (found.quick, found.full):
        assert tier is None or set(tier.contrasts) == set(found.claims)
