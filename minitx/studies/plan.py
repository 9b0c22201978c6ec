"""From a study's tier to its cells: overrides are composed, sizes matched, tuning applied, rules of fairness checked.

Study -> (arm, value) -> overrides -> Config, once for all seeds -> cells
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from minitx.config import Config, NetConfig, rule
from minitx.config.base import keys_with_role
from minitx.data import load_data
from minitx.nn.sizes import ModelShape, match, size_of
from minitx.studies import head_measures, measures, timings  # noqa: F401  (they register what a study can measure)
from minitx.studies.fairness import check_fair
from minitx.studies.study import ALONG_THE_AXIS, Study, Tier
from minitx.studies.tuning import Tuned, places_to_try
from minitx.sweeps.cells import MEASURES, Cell, Place, place_name
from minitx.sweeps.machine import machine_name
from minitx.training.trainer import model_shape

SEEDED = keys_with_role(Config, "seed")
"""Keys that follow the seed of a cell, see `seeded_config`."""
PLACES = (*keys_with_role(Config, "place"), "trainer.device")
"""Keys that only say where to read and run, so that they may be typed for tries."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells of one tier of a study."""

    study: Study
    cells: tuple[Cell, ...]
    sizes: Mapping[str, int]
    """`place_name` -> non-embedding parameters, of models that are trained by steps."""

    def record(self, command: str, folders: Sequence[str], tuned: Tuned | None) -> dict[str, Any]:
        """study-<tier>.json; folders: of each cell, relative to the folder of all studies."""
        cells = [
            {"arm": c.arm, "value": c.value, "seed": c.seed, "label": c.label, "hash": c.hash, "folder": folder}
            for c, folder in zip(self.cells, folders, strict=True)
        ]
        return {
            "study": self.study.model_dump(mode="json"),
            "command": command,
            "tuning": None if tuned is None else tuned.to_json(),
            "sizes": dict(self.sizes),
            "cells": cells,
        }


def make_plan(
    study: Study,
    compose: Callable[[Sequence[str]], Config],
    identify: Callable[[Config], str],
    tuned: Tuned | None,
    typed: Sequence[str] = (),
) -> Plan:
    """Every cell of the tier that is asked for.

    compose: overrides -> configuration. identify: configuration -> hash. tuned: what tuning chose, where the tier
    declares some. typed: overrides that the user gave to all cells.

    Raises:
        ConfigError: a cell cannot be composed, models cannot be matched, or a rule of fairness is broken.
    """
    tier = study.chosen
    _check_measures(tier)
    _check_typed(tier, typed)
    composer = _Composer(tier, compose, lambda place: tuned.chosen(tier, place) if tuned is not None else [], typed)
    for arm in tier.arms:
        for value in tier.values_of(arm):
            composer.settle((arm, value))
    check_fair(tier, composer.configs, composer.sizes, tuned)
    cells = []
    for (arm, value), config in composer.configs.items():
        for seed in tier.seeds_of(arm):
            cells.append(_cell(tier, (arm, value), seed, config, composer.overrides[arm, value], identify))
    _check_different(tier, cells)
    sizes = {place_name(place): size for place, size in composer.sizes.items()}
    return Plan(study=study, cells=tuple(cells), sizes=sizes)


def make_tries(
    study: Study,
    compose: Callable[[Sequence[str]], Config],
    identify: Callable[[Config], str],
    typed: Sequence[str] = (),
) -> dict[str, dict[str, list[Cell]]]:
    """Place name -> name of the try -> its cell for each seed, for a tier that declares tuning.

    Raises:
        ConfigError: it declares none, or as of `make_plan`.
    """
    tier = study.chosen
    _check_measures(tier)
    inside = [override for override in typed if _key(override) not in PLACES]
    if inside:
        raise rule(_key(inside[0]), inside[0].partition("=")[2], "not be typed with study.phase=tune", "edit the study")
    if tier.tuning is None:
        raise rule("study.phase", "tune", f"be run, because the {study.tier} tier of {study.name} has no tries")
    cells: dict[str, dict[str, list[Cell]]] = {}
    for name, tried in tier.tuning.tries.items():
        composer = _Composer(tier, compose, _always(tried), typed)
        for place in places_to_try(tier):
            composer.settle(place)
            for seed in tier.tuning.seeds:
                cell = _cell(tier, place, seed, composer.configs[place], composer.overrides[place], identify)
                cells.setdefault(place_name(place), {}).setdefault(name, []).append(
                    replace(cell, values={**cell.values, "try": name}, measures=())
                )
    return cells


def _check_typed(tier: Tier, typed: Sequence[str]) -> None:
    """What was typed holds for every cell, so it may be nothing in which cells differ."""
    own = {str(tier.axis): "the axis", **dict.fromkeys(SEEDED, "each seed of the study")}
    for name, arm in tier.arms.items():
        own |= dict.fromkeys(map(_key, [*arm.overrides, *(o for more in arm.at.values() for o in more)]), f"arm {name}")
    for tried in tier.tuning.tries.values() if tier.tuning is not None else ():
        own |= dict.fromkeys(map(_key, tried), "the tries of tuning")
    for override in typed:
        if _key(override) in own:
            raise rule(
                _key(override), override.partition("=")[2], f"not be typed, because {own[_key(override)]} sets it"
            )


def _key(override: str) -> str:
    """`+model.d_ff=64` -> `model.d_ff`"""
    return override.partition("=")[0].lstrip("+~")


def _check_different(tier: Tier, cells: Sequence[Cell]) -> None:
    """A contrast of a cell with itself would find that nothing differs."""
    hashes = {(cell.arm, cell.value, cell.seed): cell.hash for cell in cells}
    for claim, contrasts in tier.contrasts.items():
        for name, contrast in contrasts.items():
            places = [] if contrast.kind in ALONG_THE_AXIS else contrast.places
            found = [hashes[(*place, tier.seeds[0])] for place in places]
            if len(set(found)) < len(found):
                same = " and ".join(place_name(place) for place in places)
                raise rule(f"study.{claim}.{name}", same, "be different cells", "drop what makes them the same")


def _always(overrides: list[str]) -> Callable[[Place], list[str]]:
    return lambda place: overrides


def _check_measures(tier: Tier) -> None:
    """That every measure and timing has a function."""
    trained = [name for name, one in MEASURES.items() if not one.is_timing]
    kinds = ["train", *(name for name, one in MEASURES.items() if one.is_timing)]
    for number, name in enumerate(tier.measures):
        if name not in trained:
            raise rule(f"study.measures.{number}", name, f"be one of {', '.join(trained)}")
    for name, arm in tier.arms.items():
        if arm.kind not in kinds:
            raise rule(f"study.{name}.kind", arm.kind, f"be one of {', '.join(kinds)}")


def is_trained(tier: Tier, arm: str) -> bool:
    """Whether the arm's cells are runs, not timings."""
    return tier.arms[arm].kind == "train"


def _cell(
    tier: Tier,
    place: Place,
    seed: int,
    config: Config,
    overrides: Sequence[str],
    identify: Callable[[Config], str],
) -> Cell:
    arm, value = place
    seeded = seeded_config(config, seed)
    swept = {"arm": arm} | ({} if tier.axis is None else {tier.axis: str(value)}) | {"seed": str(seed)}
    kind = tier.arms[arm].kind
    name = identify(seeded) + ("" if kind == "train" else f"-{_machine(seeded)}-{kind}")
    return Cell(
        overrides=tuple(overrides), values=swept, config=seeded, hash=name, arm=arm, value=value, seed=seed,
        timing=None if kind == "train" else MEASURES[kind],
        measures=tuple(MEASURES[name] for name in tier.measures) if kind == "train" else (),
    )  # fmt: skip


def _machine(config: Config) -> str:
    """Six hex digits: a timing belongs to the machine that took it."""
    return hashlib.sha256(machine_name(config.trainer).encode()).hexdigest()[:6]


def seeded_config(config: Config, seed: int) -> Config:
    """The same cell with another seed: of initialisation and order, and of what is drawn to be trained on."""
    data = config.data
    if data.train_size is not None:
        data = data.model_copy(update={"subset_seed": seed})
    if data.source == "probe":
        data = data.model_copy(update={"probe": data.probe.model_copy(update={"seed": seed})})
    return config.model_copy(update={"seed": seed, "data": data})


@dataclass
class _Composer:
    """Composes places in the order in which they need each other: a matched arm after the one it is matched to."""

    tier: Tier
    compose: Callable[[Sequence[str]], Config]
    chosen: Callable[[Place], list[str]]
    """Overrides that tuning chose for a place."""
    typed: Sequence[str]
    configs: dict[Place, Config] = field(default_factory=dict)
    overrides: dict[Place, list[str]] = field(default_factory=dict)
    sizes: dict[Place, int] = field(default_factory=dict)
    _shapes: dict[str, ModelShape] = field(default_factory=dict)

    def settle(self, place: Place) -> None:
        """Compose it, and first what it is matched to."""
        if place in self.configs:
            return
        arm, value = place
        overrides = self._overrides(place)
        config = self.compose(overrides)
        like = self.tier.arms[arm].match
        if like is not None:
            model_place = (like, value if value in self.tier.values_of(like) else self.tier.values_of(like)[0])
            self.settle(model_place)
            width = self._matched(config, model_place)
            overrides = [*overrides, width]
            config = self.compose(overrides)
        self.configs[place], self.overrides[place] = config, overrides
        if isinstance(config.model, NetConfig):
            self.sizes[place] = size_of(config.model, self._shape(config))

    def _overrides(self, place: Place) -> list[str]:
        arm, value = place
        asked = self.tier.arms[arm]
        axis = [] if self.tier.axis is None else [f"{self.tier.axis}={value}"]
        there = asked.at.get(str(value), [])
        return [*self.tier.overrides, *asked.overrides, *axis, *there, *self.chosen(place), *self.typed]

    def _matched(self, config: Config, like: Place) -> str:
        """`model.<inner>=<width>` that gives the model the size of another place's."""
        assert isinstance(config.model, NetConfig), "minitx match refuses others by name"
        found = match(config.model, self._shape(config), self.sizes[like])
        return f"model.{found.INNER}={found.inner_width}"

    def _shape(self, config: Config) -> ModelShape:
        """What the data fixes of a model; read once for all models that share it."""
        key = config.data.model_dump_json()
        if key not in self._shapes:
            self._shapes[key] = model_shape(config, load_data(config.data))
        return self._shapes[key]
