"""What is simulated at the noise of a folder of studies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import synthetic_studies

from minitx.studies.power import Noise, main, noise_of, simulate, wrong_verdicts


def test_nothing_is_wrong_far_from_every_edge() -> None:
    assert wrong_verdicts([Noise(0.1, 1.0)], 0.0, 200) == {"supported": 0.0, "contradicted": 0.0}
    assert Noise(0.1, 1.0).planned == 2.0 and Noise(0.1, 1.0, "flat").planned == 0.0
    assert Noise(0.1, 1.0, "no_better").planned == -1.0 and Noise(0.1, 1.0, expected=0.3).planned == 0.3


def test_the_noise_of_a_folder(tmp_path: Path) -> None:
    synthetic_studies.write_all(tmp_path)
    noise = noise_of(sorted(tmp_path.glob("*/study-*.json")))
    assert "data_size/quick/C7" in noise and all(n.sd > 0 for parts in noise.values() for n in parts.values())
    [(claim, parts)] = [item for item in noise.items() if item[0].endswith("C7")]
    found = simulate({claim: parts}, rounds=50)
    assert set(found["claims"][claim]["parts"]) == set(parts)
    assert 0 <= found["claims"][claim]["wrong_at_0"]["supported"] <= 0.1


def test_power_json_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minitx.studies.power.simulate", lambda noise: {"claims": sorted(noise)})
    synthetic_studies.write_all(tmp_path)
    main([str(tmp_path)])
    assert json.loads((tmp_path / "power.json").read_text())["claims"]
    with pytest.raises(SystemExit, match="run a study first"):
        main([str(tmp_path / "data_size")])
