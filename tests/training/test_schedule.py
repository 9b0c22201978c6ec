"""The schedule of a run that minutes end: it follows the clock (here our own), only falls, and goes on exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import fingerprint

from minitx.config import Config, OptimConfig
from minitx.training import loop
from minitx.training import run as session
from minitx.training.loop import Counters
from minitx.training.optim import learning_rate
from minitx.training.schedule import SETTLED_AT, Schedule
from minitx.training.step import Stepper

Cost = Callable[[int, float], float]
"""(step, seconds so far) -> seconds of that step."""


def rates(schedule: Schedule, cost: Cost, counters: Counters | None = None, to_step: int = 10**6) -> list[float]:
    """The learning rate of each step until the run is over (or at `to_step`), as the loop counts steps and seconds."""
    counters, found = counters or Counters(), []
    while not schedule.is_over(counters) and counters.step < to_step:
        found.append(schedule.learning_rate(counters))
        counters.seconds += cost(counters.step, counters.seconds)
        counters.step += 1
        if counters.step == SETTLED_AT:
            counters.settled = counters.seconds
    return found


def slower_from(when: float, factor: float) -> Cost:
    return lambda step, seconds: factor * 0.1 if seconds >= when else 0.1


COSTS: dict[str, Cost] = {
    "steady": lambda step, seconds: 0.1,
    "slows to a third": slower_from(101.0, 3.0),
    "three times as fast": slower_from(101.0, 1 / 3),
    "compiles first": lambda step, seconds: 3.7 if step < SETTLED_AT else 0.1,
    "uneven": lambda step, seconds: (0.01, 0.31, 0.04)[step % 3] if step % 97 else 5.0,
}


@pytest.mark.parametrize("warmup", [{"warmup_ratio": 0.05}, {"warmup_steps": 53}, {"warmup_steps": 0}], ids=str)
@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("speed", COSTS)
def test_the_end_of_the_minutes_is_the_end_of_the_schedule(speed: str, shape: str, warmup: dict[str, Any]) -> None:
    optim = OptimConfig.model_validate({"lr": 1.0, "schedule": shape, **warmup})
    found = rates(Schedule(optim, None, 303.0), COSTS[speed])
    peak = found.index(max(found))
    assert found[peak] == pytest.approx(1.0, abs=0.03)
    assert all(later <= earlier for earlier, later in zip(found[peak:], found[peak + 1 :], strict=False))
    assert found[-1] < 0.03 and min(found) > 0


@pytest.mark.parametrize("ratio", [0.05, 0.1])
def test_at_a_steady_speed_it_is_the_schedule_of_as_many_steps(ratio: float) -> None:
    optim = OptimConfig(lr=1.0, warmup_ratio=ratio)
    found = rates(Schedule(optim, None, 400.0), COSTS["steady"])
    wanted = [learning_rate(optim, step, len(found)) for step in range(len(found))]
    after = round(1.1 * ratio * len(found))
    assert len(found) == pytest.approx(4000, abs=2)
    assert found[after:] == pytest.approx(wanted[after:], abs=0.01)


@pytest.mark.parametrize("speed", ["steady", "compiles first", "slows to a third"])
def test_minutes_that_are_not_reached_change_nothing(speed: str) -> None:
    optim = OptimConfig(lr=1.0)
    with_minutes = rates(Schedule(optim, 1709, 2003.0), COSTS[speed])
    assert with_minutes == [learning_rate(optim, step, 1709) for step in range(1709)]


@pytest.mark.parametrize("step", [7, 61, 900, 1400])
def test_it_goes_on_from_its_progress_alone(step: int) -> None:
    schedule, cost, counters = Schedule(OptimConfig(lr=1.0), None, 303.0), COSTS["slows to a third"], Counters()
    before = rates(schedule, cost, counters, to_step=step)
    again = Counters.from_json(json.loads(json.dumps(counters.to_json())))
    after = rates(Schedule(OptimConfig(lr=1.0), None, 303.0), cost, again)
    assert len(before) == step and before + after == rates(schedule, cost)


def test_a_run_that_is_given_minutes_later_goes_down_from_where_it_is() -> None:
    """A run that is over by its steps goes on for some minutes; its warm-up is not held again."""
    counters = Counters(step=500, seconds=50.0, settled=1.0)
    found = rates(Schedule(OptimConfig(lr=1.0), None, 100.0), COSTS["steady"], counters)
    assert 0.4 < found[0] < 0.6 and found == sorted(found, reverse=True) and found[-1] < 1e-4


def test_a_run_on_a_machine_that_slows_down(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a third of its speed, at a third of its minutes; once straight, and once killed and resumed."""
    step, now = Stepper.step, [0.0]
    die_at: list[int] = []

    def timed(self: Stepper, *what: Any) -> Any:
        n = timed.steps = timed.steps + 1  # type: ignore[attr-defined]
        if n in die_at:
            raise KeyboardInterrupt
        now[0] += 1.0 if n <= 60 else 3.0
        return step(self, *what)

    monkeypatch.setattr(Stepper, "step", timed)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    limits = {"max_steps": None, "max_minutes": 3.0, "log_every": 1, "eval_every": 20, "save_every": 7}
    config = tiny(trainer={**limits, "resume": "auto"})
    for name, deaths in (("straight", []), ("killed", [48, 83])):
        timed.steps, die_at[:] = 0, deaths  # type: ignore[attr-defined]
        for death in deaths:
            with pytest.raises(KeyboardInterrupt):
                session.run(config, tmp_path / name, quiet=True)
            timed.steps = (death - 1) // 7 * 7  # type: ignore[attr-defined]
            die_at.remove(death)
        assert session.run(config, tmp_path / name, quiet=True)["steps"] == 100
    straight, killed = fingerprint(tmp_path / "straight"), fingerprint(tmp_path / "killed")
    assert straight == killed
    found = [line["lr"] for line in straight["log"] if line["split"] == "train"]
    assert len(found) == 100 and found[-1] < 0.01 * max(found)
