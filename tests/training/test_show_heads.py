"""Head statistics during training: what it shows, and that it changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import fingerprint

from minitx.analysis.head_statistics import head_stats, sample_batches
from minitx.config import Config
from minitx.config.load import load
from minitx.data import load_data
from minitx.predictor import Predictor
from minitx.training import run as session


def test_head_statistics_show_every_head_and_change_no_bit(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """With dropout and an average: after the first of two validations one more random number would be seen."""
    for name, rows in (("plain", 0), ("head_statistics", 11)):
        session.run(
            tiny(trainer={"head_statistics": rows, "average": {"kind": "ema", "decay": 0.5}}),
            tmp_path / name,
            quiet=True,
        )
    plain, looked_at = (fingerprint(tmp_path / name) for name in ("plain", "head_statistics"))
    assert looked_at == plain and len(plain) > 4
    events = EventAccumulator(str(tmp_path / "head_statistics" / "tensorboard"), {"scalars": 0})
    events.Reload()
    tags = {tag for tag in events.Tags()["scalars"] if tag.startswith("view_heads/")}
    far = {"encoder": "distance", "decoder": "distance", "cross": "relative_distance"}
    assert tags == {
        f"view_heads/{role}_L1/H{head}/{name}"
        for role in far
        for head in (1, 2)
        for name in ("entropy", "spread", far[role])
    }
    assert [s.step for s in events.Scalars("view_heads/cross_L1/H2/entropy")] == [6, 12]
    best = Predictor.from_run(tmp_path / "head_statistics")
    data = load_data(best.config.data)
    model = best.nets().models[0]
    batches = sample_batches(model, data.splits["validation"], data, device=best.device, rows=11)
    wanted = {str(layer_id): stats for layer_id, stats in head_stats(model, batches).items()}["cross_L1"].entropy[1]
    shown = [s.value for s in events.Scalars("view_heads/cross_L1/H2/entropy")]
    assert min(abs(value - wanted) for value in shown) == pytest.approx(0, abs=1e-5), "of the averaged weights"
    plain_events = EventAccumulator(str(tmp_path / "plain" / "tensorboard"), {"scalars": 0})
    plain_events.Reload()
    assert not any(tag.startswith("view_heads/") for tag in plain_events.Tags()["scalars"])


def test_where_there_are_no_heads_nothing_is_shown(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny(trainer={"head_statistics": 3, "max_steps": 2})
    lstm = {**config.model_dump(), "model": {"kind": "lstm", "d_model": 8}}
    session.run(load(lstm), tmp_path / "run", quiet=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"scalars": 0})
    events.Reload()
    assert "validation/loss" in events.Tags()["scalars"]
    assert not any(tag.startswith("view_heads/") for tag in events.Tags()["scalars"])
