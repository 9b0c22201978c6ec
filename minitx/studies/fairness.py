"""Rules that make arms comparable. Breaking one is an error, unless the study gives a reason under on_purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from minitx.config import Config, LinearConfig, NetConfig, rule
from minitx.config.base import keys_with_role
from minitx.config.load import flat
from minitx.nn.sizes import TOLERANCE
from minitx.studies.study import ALONG_THE_AXIS, Contrast, Fairness, Tier
from minitx.studies.tuning import Tuned
from minitx.sweeps.cells import Place, place_name

HEAD_KEYS = ("d_model", *(key.removeprefix("model.") for key in keys_with_role(Config, "head")))
"""Model keys of what comes before and after an encoder; compared where both models have them."""
SECTIONS: Mapping[str, Fairness] = {
    "data": "data", "masking": "data", "trainer": "budget", "pretrain": "budget", "optim": "tuning",
}  # fmt: skip
"""Section of the configuration -> the rule that it comes under."""
OF_TIMINGS: tuple[Fairness, ...] = ("size", "data", "budget")
"""Rules for arms that are timed: nothing is learnt there, so tuning and heads do not matter."""


def check_fair(tier: Tier, configs: Mapping[Place, Config], sizes: Mapping[Place, int], tuned: Tuned | None) -> None:
    """Check every contrast between two places.

    size: non-embedding parameters within 5 %. data: the same data. head: the same embedding width, pooling and tying.
    budget: the same loop and no pretraining, and no limit that goes by time or by patience. tuning: at least one try
    and as many for either, recorded; beside what was tried, the same optimiser and noise. The axis may differ.

    Raises:
        ConfigError: names the contrast, the two places and what differs.
    """
    for key, contrast in _contrasts(tier):
        for own, other in _pairs(tier, contrast):
            where = f"study.{key} ({place_name(own)} and {place_name(other)})"
            if other not in configs:
                raise rule(where, place_name(other), "be there", "give the arm the values of the other")
            found = [*_broken(tier, configs[own], configs[other]), *_unequal(tier, own, other, sizes, tuned)]
            for broken, what in found:
                if tier.arms[contrast.arm].kind == "train" or broken in OF_TIMINGS:
                    _refuse(tier, where, broken, what)


def _refuse(tier: Tier, where: str, broken: Fairness, what: str) -> None:
    if broken not in tier.on_purpose:
        raise rule(where, what, f"be fair in {broken}", f"or say why not under on_purpose.{broken}")


def _contrasts(tier: Tier) -> Iterator[tuple[str, Contrast]]:
    """Contrasts that compare two arms."""
    for claim, contrasts in tier.contrasts.items():
        for name, contrast in contrasts.items():
            if contrast.against is not None:
                yield f"{claim}.{name}", contrast


def _pairs(tier: Tier, contrast: Contrast) -> list[tuple[Place, Place]]:
    """Pairs of places that a contrast compares."""
    assert contrast.against is not None
    if contrast.kind in ALONG_THE_AXIS:
        return [((contrast.arm, value), (contrast.against, value)) for value in tier.values_of(contrast.arm)]
    own, other = contrast.places
    return [(own, other)]


def _broken(tier: Tier, a: Config, b: Config) -> Iterator[tuple[Fairness, str]]:
    """(rule, what differs) of two configurations."""
    if isinstance(a.model, LinearConfig) or isinstance(b.model, LinearConfig):
        yield "budget", "a linear model is not trained by steps"
        return
    varied = {*_varied(tier), *keys_with_role(Config, "logging")}
    for section, broken in SECTIONS.items():
        differing = [key for key in _differing(_keys(a, section), _keys(b, section)) if key not in varied]
        if differing:
            yield broken, f"{', '.join(differing)} differ"
    head = [key for key in HEAD_KEYS if hasattr(a.model, key) and hasattr(b.model, key)]
    noise = [key for key in NetConfig.model_fields if key not in HEAD_KEYS and f"model.{key}" not in varied]
    for broken, keys in (("head", head), ("tuning", noise)):
        differing = [f"model.{key}" for key in keys if getattr(a.model, key) != getattr(b.model, key)]
        if differing:
            yield broken, f"{', '.join(differing)} differ"
    if a.trainer.patience is not None or a.trainer.max_minutes is not None:
        yield "budget", "trainer.patience or trainer.max_minutes is set"


def _varied(tier: Tier) -> set[str]:
    """Keys that differ by intent: the axis, and what was tried for every arm alike."""
    tries = tier.tuning.tries.values() if tier.tuning is not None else ()
    return {override.partition("=")[0] for tried in tries for override in tried} | {str(tier.axis)}


def _keys(config: Config, section: str) -> dict[str, Any]:
    return flat({section: getattr(config, section).model_dump(mode="json")})


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def _unequal(
    tier: Tier, own: Place, other: Place, sizes: Mapping[Place, int], tuned: Tuned | None
) -> Iterator[tuple[Fairness, str]]:
    """(rule, what differs) of two places of nets: their sizes and their tries."""
    if own not in sizes or other not in sizes:
        return
    if abs(sizes[own] - sizes[other]) > TOLERANCE * max(sizes[own], sizes[other]):
        yield "size", f"{sizes[own]:,} and {sizes[other]:,} non-embedding parameters"
    tries = [len(tuned.scores_of(tier, place)) if tuned is not None else 0 for place in (own, other)]
    if tries[0] != tries[1] or tries[0] == 0:
        yield "tuning", f"{tries[0]} and {tries[1]} tries"
