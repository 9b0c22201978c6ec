"""Rules that make arms comparable. Breaking one is an error, unless a study says that it means to, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from minitx.config import Config, LinearConfig, NetConfig, rule
from minitx.nn.match import TOLERANCE
from minitx.studies.study import Fairness, Part, Place, Tier
from minitx.studies.tuning import Tuned

HEAD_KEYS = ("d_model", "pooling", "tie_embeddings")
"""What stands before and after an encoder; compared where both models have it."""


def check_fair(tier: Tier, configs: Mapping[Place, Config], sizes: Mapping[Place, int], tuned: Tuned | None) -> None:
    """Hold every contrast between two arms to the rules.

    size: non-embedding parameters within 5 %. data: the same data. head: the same embedding width, pooling and tying.
    budget: the same loop, and no limit that goes by time or by patience. tuning: the same number of tries, recorded.

    Raises:
        ConfigError: names the contrast, the two arms and what differs.
    """
    for key, part in _contrasts(tier):
        assert part.against is not None
        for own, other in _pairs(tier, part):
            where = f"study.{key} ({own[0]} and {other[0]}{'' if own[1] is None else f' at {own[1]}'})"
            for broken, what in _broken(tier, configs, sizes, tuned, own, other):
                if broken not in tier.on_purpose:
                    raise rule(where, what, f"be fair in {broken}", f"or say why not under on_purpose.{broken}")


def _contrasts(tier: Tier) -> Iterator[tuple[str, Part]]:
    """Those of two trained arms."""
    for claim, parts in tier.contrasts.items():
        for name, part in parts.items():
            if part.against is None or tier.arms[part.arm].kind == "cost":
                continue
            yield f"{claim}.{name}", part


def _pairs(tier: Tier, part: Part) -> list[tuple[Place, Place]]:
    """Places that a contrast sets beside each other; the same arm at two values differs by what is studied alone."""
    assert part.against is not None
    if part.contrast == "slope":
        return [((part.arm, value), (part.against, value)) for value in tier.values_of(part.arm)]
    against_at = part.at if part.against_at is None else part.against_at
    return [((part.arm, part.at), (part.against, against_at))]


def _broken(
    tier: Tier,
    configs: Mapping[Place, Config],
    sizes: Mapping[Place, int],
    tuned: Tuned | None,
    own: Place,
    other: Place,
) -> Iterator[tuple[Fairness, str]]:
    """(rule, what differs) of two places."""
    if own not in configs or other not in configs:
        raise rule("study", f"{other[0]} at {other[1]}", "have the value of the arm that it is compared with")
    a, b = configs[own], configs[other]
    if isinstance(a.model, LinearConfig) or isinstance(b.model, LinearConfig):
        yield "budget", "a linear model is not trained by steps"
        return
    if abs(sizes[own] - sizes[other]) > TOLERANCE * max(sizes[own], sizes[other]):
        yield "size", f"{sizes[own]:,} and {sizes[other]:,} non-embedding parameters"
    if own[1] == other[1] and a.data != b.data:
        yield "data", "the data sections differ"
    assert isinstance(a.model, NetConfig) and isinstance(b.model, NetConfig)
    head = [key for key in HEAD_KEYS if hasattr(a.model, key) and hasattr(b.model, key)]
    differing = [key for key in head if getattr(a.model, key) != getattr(b.model, key)]
    if differing:
        yield "head", ", ".join(f"model.{key}" for key in differing)
    if a.trainer != b.trainer:
        yield "budget", "the trainer sections differ"
    if a.trainer.patience is not None or a.trainer.max_minutes is not None:
        yield "budget", "trainer.patience or trainer.max_minutes is set"
    tries = [len(tuned.scores_of(tier, place)) if tuned is not None else 0 for place in (own, other)]
    if tries[0] != tries[1]:
        yield "tuning", f"{tries[0]} and {tries[1]} tries"
