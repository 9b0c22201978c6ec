"""A study as a person runs it: `python train.py -m study=...`, then `minitx report`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import ROOT, Output

from minitx.cli import main
from minitx.config import rule
from minitx.nn.build import ModelShape
from minitx.studies import plan
from minitx.studies.study import load_study
from minitx.studies.tuning import Tuned, places_to_try
from minitx.sweeps import hydra_plugin
from minitx.sweeps.cells import place_name
from minitx.training.run_folder import RunFolder

TYPED = ("study.seeds=1", "trainer.max_steps=4", "trainer.eval_every=2", "trainer.eval_rows=50")
COMMAND = ("-m", "study=two_builds", *TYPED)


@pytest.mark.slow
def test_a_study_is_run_and_reported(train_py: Callable[..., Output], tmp_path: Path) -> None:
    ended = train_py(*COMMAND, bare=True)
    assert ended.code == 0, ended.err
    root = tmp_path / "outputs" / "studies"
    record = json.loads((root / "two_builds" / "study-quick.json").read_text())
    assert len(record["cells"]) == 5 and "written outputs/studies/two_builds/study-quick.json" in ended.out
    assert "C9   Two ways to build heads" in ended.out and "UNDECIDED" in ended.out, "one seed decides nothing"
    trained = [RunFolder(root / cell["folder"]) for cell in record["cells"] if cell["arm"] == "split"]
    model = trained[0].read_config().model
    assert model.position == "sinusoidal", "experiment=none takes the model's part of a recipe away too"
    assert "[" not in train_py(*COMMAND, bare=True).out.partition("C9 ")[0], "typed again it runs no cell"
    main(["report", str(root), "-o", str(tmp_path / "report")])
    claims = {claim["id"]: claim for claim in json.loads((tmp_path / "report" / "claims.json").read_text())}
    assert claims["C9"]["exploratory"] and claims["C9"]["runs"] and claims["C7"]["verdict"] is None
    assert claims["C9"]["command"] == " ".join(("python train.py", *COMMAND[:2], "study.tier=quick", *TYPED))


def test_all_studies_in_the_order_of_their_claims(
    train_py: Callable[..., Output], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`study=all` hands every study that has the tier to the same runner, and goes on after one that failed."""
    ran: list[tuple[Any, Any, int, list[str]]] = []

    def run_study(
        node: dict[str, Any], root: Path, tuned: Path, compose: Any, identify: Any, typed: list[str], launcher: None
    ) -> None:
        ran.append((node["name"], node["tier"], len(node["claims"]), typed))
        if node["name"] == "distance":
            raise SystemExit(1)
        if node["name"] == "span":
            raise rule("study.x", 1, "be 2")

    register = hydra_plugin.register
    monkeypatch.setattr(hydra_plugin, "register", lambda defaults, _: register(defaults, run_study))
    ended = train_py("-m", "study=all", "study.minutes=3", bare=True)
    assert (
        ended.code == 1 and "not finished: distance, span" in ended.err and "span: study.x (1) must be 2" in ended.err
    )
    names = [name for name, *_ in ran]
    assert names[:2] == ["data_size", "head_count"] and len(names) == 12 and sum(n for _, _, n, _ in ran) == 13
    assert {(tier, *typed) for _, tier, _, typed in ran} == {("quick", "study.minutes=3")}
    assert (
        "study.tier (tiny) must be one that a study has"
        in train_py("-m", "study=all", "study.tier=tiny", bare=True).err
    )
    ran.clear()
    train_py("-m", "study=all", "study.tier=full", bare=True)
    with_full = {path.stem for path in (ROOT / "conf" / "study").glob("*.yaml") if "\nfull:" in path.read_text()}
    assert {name for name, *_ in ran} == with_full and all(tier == "full" for _, tier, *_ in ran)


@pytest.mark.parametrize("tier", ["quick", "full"])
def test_every_study_can_be_planned(
    train_py: Callable[..., Output], monkeypatch: pytest.MonkeyPatch, tier: str
) -> None:
    """As if its tries had run and its data were here: what each file declares is complete and fair."""
    shape = ModelShape(task="classification", src_vocab=997, n_classes=7, max_length=16384)
    translation = ModelShape(task="translation", src_vocab=31, tgt_vocab=43, max_length=40)
    masked = ModelShape(task="masked", src_vocab=997, max_length=512)
    shapes = {"classification": shape, "translation": translation, "masked": masked}
    monkeypatch.setattr(plan, "load_data", lambda data: None)
    monkeypatch.setattr(plan, "model_shape", lambda config, _: shapes[config.data.task])
    planned = []

    def run_study(
        node: dict[str, Any], root: Path, record: Path, compose: Any, identify: Any, typed: list[str], launcher: None
    ) -> None:
        study = load_study(node)
        chosen, names = study.chosen, list(study.chosen.tuning.tries) if study.chosen.tuning is not None else []
        scores = {place_name(place): dict.fromkeys(names, 0.5) for place in places_to_try(chosen)} if names else {}
        tuned = Tuned(chosen.tuning, "", "accuracy", scores) if chosen.tuning is not None else None
        planned.append((study.name, len(plan.make_plan(study, compose, identify, tuned).cells)))

    register = hydra_plugin.register
    monkeypatch.setattr(hydra_plugin, "register", lambda defaults, _: register(defaults, run_study))
    ended = train_py("-m", "study=all", f"study.tier={tier}", bare=True)
    assert ended.code == 0, ended.err
    assert len(planned) == {"quick": 12, "full": 9}[tier] and all(n_cells for _, n_cells in planned)
