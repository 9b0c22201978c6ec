"""The declaration of a study: its claims, arms, values, seeds and contrasts, as conf/study/<name>.yaml has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from minitx.config import rule
from minitx.config.base import Section
from minitx.config.load import error_line
from minitx.errors import ConfigError
from minitx.studies.verdicts import LOOKS, Expect
from minitx.sweeps.cells import Place, Value

TierName = Literal["quick", "full"]
TIERS: tuple[TierName, ...] = get_args(TierName)
Fairness = Literal["size", "data", "head", "budget", "tuning"]
ALONG_THE_AXIS = ("slope", "exponent", "excess_exponent", "rows_ratio")
"""Contrasts that read an arm at all its values."""
FIRST_SEED = 100
"""Verdicts come from seeds from here on; those below have shaped designs."""
TUNING_SEEDS = (1000, 1001, 1002)
"""Of tries; no verdict comes from them."""


class Contrast(Section):
    """One contrast: a number for each seed, and where it is expected to lie."""

    contrast: Literal["difference", "slope", "log_ratio", "exponent", "excess_exponent", "rows_ratio"] = "difference"
    """difference: arm minus against, at one value of the axis. slope: of that difference (of the arm alone, where
    there is nothing to compare with) on the logarithm of the axis, see `per`. log_ratio: ln(arm / against). exponent:
    slope of ln(measure) on ln(axis) over the last decade, minus `centre`. excess_exponent: the same of m(2n) - 2 m(n),
    which leaves out what grows in proportion to n. rows_ratio: log10 of how many times the axis's value `arm` needs
    that `against` needs, to come `share` of the way from `centre` to where the worse of them ends."""
    measure: str
    """`test.accuracy`, `loss.test`, `seconds`, or one of what the tier's `measures` give, as `fit.gap`."""
    arm: str
    against: str | None = None
    at: Value | None = None
    """The arm's value on the axis; null where the tier has none, or for a contrast along the axis."""
    against_at: Value | None = None
    """null = `at`."""
    delta: float = Field(gt=0)
    """The smallest effect worth naming; for `exact`, the largest error of rounding."""
    expect: Expect = "above"
    """above: beyond delta. flat: within +-delta. no_better: below delta. exact: every run within +-delta, as what is
    counted, or equal by construction; that needs no seeds."""
    expected: float | None = None
    """The effect that pilots, of other seeds, have shown; `minitx.studies.power` plans for it."""
    test: Literal["t", "sign"] = "t"
    """sign: of the median. Where values are all equal, in two heaps or censored, t becomes sign by itself."""
    solved_at: float | None = None
    """The measure from which on a run has solved its task: the contrast is then about rates of success, with exact
    binomial intervals."""
    censored_at: str | None = None
    """A measure that says how far a run has come that lacks `measure`, because it never got there."""
    centre: float = 0.0
    """exponent, or a difference with nothing to compare with: what is taken away, e.g. the value that is expected, or
    chance."""
    falls: bool = False
    """slope: what is expected is a fall, so that the slope's sign is changed."""
    per: Literal["tenfold", "doubling"] = "tenfold"
    """Of a slope."""
    share: float = Field(0.9, gt=0, lt=1)
    """Of a rows_ratio."""
    note: str = ""
    """What the contrast asks, in a few words for the report."""

    @property
    def kind(self) -> str:
        """How the contrast is computed."""
        return self.contrast

    @property
    def other_at(self) -> Value | None:
        """The value at which `against` is read."""
        return self.at if self.against_at is None else self.against_at

    @property
    def places(self) -> list[Place]:
        """What a contrast at one value reads: the arm's place, and the other's."""
        return [(self.arm, self.at), *([] if self.against is None else [(self.against, self.other_at)])]


class Arm(Section):
    """One way of doing it, at every value of the tier's axis."""

    overrides: list[str] = Field(default_factory=list)
    """As typed after `python train.py`."""
    values: list[Value] | None = None
    """Values of the axis that this arm has; null = all of the tier's."""
    at: dict[str, list[str]] = Field(default_factory=dict)
    """Value -> what else is set there."""
    seeds: int | None = Field(None, ge=1)
    """The first so many of the tier's seeds; null = all."""
    match: str | None = None
    """The arm whose number of non-embedding parameters it is given, by its inner width (see `minitx match`)."""
    tuned: bool = True
    """Whether the tier's tries are run for it too."""
    kind: str = "train"
    """Else a timing, `cost` (time and memory of a layer) or `parallel` (gain of a wider machine): nothing is trained,
    and seeds are rounds of measuring."""

    @field_validator("overrides", mode="before")
    @classmethod
    def _flat(cls, overrides: Any) -> Any:
        """Lists within the list are joined to it, so that arms can share a part of it by a YAML anchor."""
        if not isinstance(overrides, list):
            return overrides
        return [one for part in overrides for one in (part if isinstance(part, list) else [part])]


class Tuning(Section):
    """Settings tried on validation, the same for every arm that is compared; see `study.phase`."""

    tries: dict[str, list[str]]
    """Name -> overrides."""
    record: str | None = None
    """Name of the record, which studies of the same cells share; null = the study's."""
    seeds: list[int] = Field(default_factory=lambda: [*TUNING_SEEDS], min_length=1)
    """Of the tries alone; the mean of their validation scores counts."""
    values: list[Value] | None = None
    """Values of the axis at which tries run; the others take what the nearest smaller one has chosen. null = all."""


class PanelOf(Section):
    """Axes of a figure: some arms, one measure."""

    title: str = ""
    measure: str
    chance: float | None = None
    """The accuracy of guessing."""
    arms: dict[str, str]
    """Arm -> its name in the figure; arms of one name look alike in all panels."""


class Tier(Section):
    """One size of a study."""

    overrides: list[str] = Field(default_factory=list)
    """What all cells share."""
    seeds: list[int] = Field(default_factory=lambda: [*range(FIRST_SEED, FIRST_SEED + LOOKS[-1])])
    """As many of these are run as the looks need."""
    looks: list[int] = Field(default_factory=lambda: [*LOOKS])
    """Numbers of seeds at which the study asks for its verdicts; it ends at the first that gives them all."""
    minutes: float | None = Field(None, gt=0)
    """Another look is begun only where it will probably end within so many minutes of all; null = no limit."""
    axis: str | None = None
    """The key that `values` are given to."""
    values: list[Value] = Field(default_factory=list)
    arms: dict[str, Arm]
    measures: list[str] = Field(default_factory=list)
    """Names of what is computed of every trained cell beside its results, see minitx/studies/measures.py."""
    across: list[str] = Field(default_factory=list)
    """Arms whose heads are compared between seeds."""
    contrasts: dict[str, dict[str, Contrast]]
    """Claim -> name -> contrast. A claim needs every one of its contrasts, or see `at_least_one`."""
    at_least_one: list[str] = Field(default_factory=list)
    """Claims that need one of their contrasts alone."""
    panels: dict[str, list[PanelOf]] = Field(default_factory=dict)
    """Claim -> what its figure shows, panels of one measure beside each other; a measure of the claim that is in none
    is drawn with all arms."""
    tuning: Tuning | None = None
    on_purpose: dict[Fairness, str] = Field(default_factory=dict)
    """A rule of fairness that this study breaks on purpose -> why."""

    @model_validator(mode="after")
    def _consistent(self) -> Tier:
        check_looks("study.looks", self.looks)
        for key, claims in (("at_least_one", self.at_least_one), ("panels", self.panels)):
            unknown = [claim for claim in claims if claim not in self.contrasts]
            if unknown:
                raise rule(f"study.{key}", unknown[0], f"be one of {', '.join(self.contrasts)}")
        for claim, panels in self.panels.items():
            strange = [arm for panel in panels for arm in panel.arms if arm not in self.arms]
            if strange:
                raise rule(f"study.panels.{claim}", strange[0], f"be one of {', '.join(self.arms)}")
        for name, arm in self.arms.items():
            if arm.match is not None and arm.match not in set(self.arms) - {name}:
                raise rule(f"study.{name}.match", arm.match, f"be another of {', '.join(self.arms)}")
            if self.axis is None and (arm.values or arm.at):
                raise rule(f"study.{name}.values", arm.values or list(arm.at), "be left out where the tier has no axis")
            strange = [value for value in arm.at if value not in map(str, self.values_of(name))]
            if strange:
                raise rule(f"study.{name}.at", strange[0], f"be a value of {name}: {_listed(self.values_of(name))}")
        for claim, contrasts in self.contrasts.items():
            for key, contrast in contrasts.items():
                self._check_contrast(f"study.{claim}.{key}", contrast)
        return self

    def _check_contrast(self, key: str, contrast: Contrast) -> None:
        """That a contrast can be read from the cells that there are."""
        for arm in (contrast.arm, contrast.against):
            if arm is not None and arm not in self.arms:
                raise rule(f"{key}.arm", arm, f"be one of {', '.join(self.arms)}")
        along = contrast.kind in ALONG_THE_AXIS
        if along and (self.axis is None or not all(isinstance(v, int | float) for v in self.values_of(contrast.arm))):
            raise rule(f"{key}.contrast", contrast.kind, "have numbers on an axis", "or be a difference")
        if contrast.kind in ("log_ratio", "rows_ratio") and contrast.against is None:
            raise rule(f"{key}.against", None, f"be an arm, because the contrast is a {contrast.kind}")
        for name in ("solved_at", "censored_at"):
            if along and getattr(contrast, name) is not None:
                raise rule(f"{key}.{name}", getattr(contrast, name), f"be left out of a {contrast.kind}")
        for arm, at in [] if along else contrast.places:
            if at not in self.values_of(arm):
                raise rule(f"{key}.at", at, f"be a value of {arm}: {_listed(self.values_of(arm))}")

    def values_of(self, arm: str) -> list[Value | None]:
        """What the arm has on the axis; [None] without an axis."""
        if self.axis is None:
            return [None]
        return list(self.arms[arm].values or self.values)

    def seeds_of(self, arm: str) -> list[int]:
        """Its seeds; arms share the first ones."""
        return self.seeds[: self.arms[arm].seeds]


class Claim(Section):
    """A claim about self-attention, with what was predicted before the study ran."""

    statement: str
    """The claim in our own words."""
    order: int = 100
    """Its place in a report: smaller ones first, then by id."""
    prediction: str
    """What the study expects, stated before it ran."""
    would_change: str
    """What would change the verdict."""


class Study(Section):
    """The `study` group: what is asked, and how it is run."""

    name: str | None = None
    """null: no study; `-m` sweeps what is typed."""
    title: str = ""
    claims: dict[str, Claim] = Field(default_factory=dict)
    """Id, as `C7`, -> claim."""
    quick: Tier | None = None
    full: Tier | None = None
    tier: TierName = "quick"
    """quick: embedded and generated data, minutes on two cores. full: real sets, larger models."""
    seeds: int | None = Field(None, ge=1)
    """Run the first so many, and look once; fewer than five leave every verdict undecided."""
    looks: list[int] | None = None
    """Instead of the tier's: of 5, 10, 20, 40 those at which verdicts are asked for."""
    minutes: float | None = Field(None, gt=0)
    """Instead of the tier's."""
    phase: Literal["run", "tune"] = "run"
    """tune: try the tier's `tuning` on validation, and write what was best to conf/study/tuned."""
    workers: int | None = Field(None, ge=1)
    """Trainings at a time, each in a process of its own that lives on; threads and GPU memory are divided. null = as
    many as keep the cores busy where every cell sets trainer.threads, else, and on a GPU, one. Timings run alone."""
    on_error: Literal["continue", "stop"] = "continue"
    """stop: the first cell that fails ends the study."""

    @model_validator(mode="after")
    def _known(self) -> Study:
        if self.looks is not None:
            check_looks("study.looks", self.looks)
        for name in TIERS:
            tier = getattr(self, name)
            for claim in tier.contrasts if tier is not None else ():
                if claim not in self.claims:
                    raise rule(f"study.{name}.contrasts", claim, f"be a claim of the study: {', '.join(self.claims)}")
        return self

    @property
    def chosen(self) -> Tier:
        """The tier that is asked for.

        Raises:
            ConfigError: the study has none of that name.
        """
        tier = self.quick if self.tier == "quick" else self.full
        if tier is None:
            other = "full" if self.tier == "quick" else "quick"
            raise rule("study.tier", self.tier, f"be {other}, because {self.name} has no other")
        changes: dict[str, Any] = {"looks": self.looks} if self.looks is not None else {}
        if self.seeds is not None:
            if self.seeds > len(tier.seeds):
                raise rule("study.seeds", self.seeds, f"be at most {len(tier.seeds)}, as many as the study has")
            changes = {"looks": [self.seeds]}
        if self.minutes is not None:
            changes["minutes"] = self.minutes
        return tier.model_copy(update=changes)

    def at_look(self, n_seeds: int) -> Study:
        """The study with so many seeds, looked at as often as that allows."""
        tier = self.chosen
        looks = [look for look in tier.looks if look <= n_seeds] or [n_seeds]
        there = tier.model_copy(update={"seeds": tier.seeds[:n_seeds], "looks": looks})
        return self.model_copy(update={self.tier: there, "seeds": None, "looks": None, "minutes": None})


def check_looks(key: str, looks: Sequence[int]) -> None:
    """That looks are some of those that the rule of verdicts allows, in order; or a single one, at any number."""
    if len(looks) != 1 and (not looks or [look for look in LOOKS if look in looks] != list(looks)):
        raise rule(key, list(looks), f"be some of {', '.join(map(str, LOOKS))}, in order")


def _listed(values: Sequence[Value | None]) -> str:
    return ", ".join("null" if value is None else str(value) for value in values)


def load_study(raw: Mapping[str, Any]) -> Study:
    """Type a plain mapping; a mistake is one line that names the key."""
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(error_line(error, "study")) from None
