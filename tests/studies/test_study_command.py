"""A study as a person runs it: `python train.py -m study=...`, then `minitx report`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import Output

from minitx.cli import main
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
    assert "C9   Two ways to build heads" in ended.out and "INCONCLUSIVE" in ended.out, "one seed decides nothing"
    trained = [RunFolder(root / cell["folder"]) for cell in record["cells"] if cell["arm"] == "split"]
    model = trained[0].read_config().model
    assert model.position == "sinusoidal", "experiment=none takes the model's part of a recipe away too"
    assert "[" not in train_py(*COMMAND, bare=True).out.partition("by itself")[0], "typed again it runs no cell"
    main(["report", str(root), "-o", str(tmp_path / "report")])
    claims = {claim["id"]: claim for claim in json.loads((tmp_path / "report" / "claims.json").read_text())}
    assert claims["C9"]["exploratory"] and claims["C9"]["runs"] and claims["C7"]["verdict"] is None
    assert claims["C9"]["command"] == " ".join(("python train.py", *COMMAND[:2], "study.tier=quick", *TYPED))
