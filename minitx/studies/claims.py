"""The verdict on each claim of a study: Evidence -> the Part of each contrast -> ClaimResult.

Study, console and report all come here, so that the same runs give the same verdict everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minitx.studies.contrasts import known, part_of
from minitx.studies.evidence import Evidence
from minitx.studies.study import Claim, Contrast, Tier
from minitx.studies.verdicts import Effect, Needs, Verdict, claim_p, evaluate

ACROSS = "across"
"""What is measured between two seeds, and stored with the first of them."""


@dataclass(frozen=True)
class ContrastResult:
    """One contrast: its value for each seed, and the effect over seeds."""

    name: str
    contrast: Contrast
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    """The bound that is known, of a censored one."""
    effect: Effect


@dataclass(frozen=True)
class ClaimResult:
    """A study's contrasts and verdict on one claim."""

    id: str
    claim: Claim
    evidence: Evidence
    contrasts: tuple[ContrastResult, ...]
    """At the look that `n_seeds` names."""
    verdict: Verdict | None
    """None where a cell that a contrast needs has not finished or lacks the measure: no seed may be missing, because it
    may have failed for the very reason that is studied."""
    n_seeds: int
    """Seeds at the first look that decided, or at the last."""

    @property
    def decided(self) -> bool:
        return self.verdict in ("supported", "contradicted")

    @property
    def p(self) -> float:
        """Error at which the verdict would just be what it is; 1 where nothing is decided."""
        if self.verdict is None:
            return 1.0
        return claim_p([one.effect for one in self.contrasts], self.verdict, _needs(self.evidence.tier, self.id))

    @property
    def n_holding(self) -> int:
        """Contrasts that are as expected."""
        return sum(one.effect.state == "holds" for one in self.contrasts)

    @property
    def seeds_needed(self) -> int | None:
        """About how many values (seeds, or pairs of them) would decide all open contrasts; None where unknown."""
        found = [one.effect.seeds_needed for one in self.contrasts if one.effect.state == "open"]
        return max(n for n in found if n is not None) if found and None not in found else None

    @property
    def study(self) -> str:
        return str(self.evidence.study.name)

    @property
    def declared(self) -> Mapping[str, Contrast]:
        """Name -> every contrast of the claim, as declared."""
        return self.evidence.tier.contrasts[self.id]

    @property
    def measures(self) -> list[str]:
        """What its contrasts measure."""
        return list(dict.fromkeys(contrast.measure for contrast in self.declared.values()))

    @property
    def arms(self) -> list[str]:
        """The arms that its contrasts read."""
        read = {arm for contrast in self.declared.values() for arm in (contrast.arm, contrast.against)}
        return [arm for arm in self.evidence.tier.arms if arm in read]

    @property
    def tier(self) -> str:
        return self.evidence.study.tier

    def runs(self) -> list[str]:
        """Folders of every cell that a contrast of the claim reads."""
        return [seen.folder for seen in self.evidence.observations if seen.arm in self.arms]


def evaluate_claims(evidences: Sequence[Evidence]) -> list[ClaimResult]:
    """Every claim of every study, in the order of the claims; what else is there changes no verdict."""
    results = [_evaluated(claim, evidence) for evidence in evidences for claim in evidence.tier.contrasts]
    return sorted(results, key=lambda result: (result.claim.order, result.id, result.tier))


def _evaluated(claim: str, evidence: Evidence) -> ClaimResult:
    """At the first look that decides, else at the last that is complete; without a verdict where none is."""
    tier = evidence.tier
    looks = [look for look in tier.looks if look <= len(tier.seeds)] or [len(tier.seeds)]
    results = [_at_look(claim, evidence, n_seeds) for n_seeds in looks]
    complete = [result for result in results if result.verdict is not None]
    return next((result for result in complete if result.decided), complete[-1] if complete else results[0])


def _at_look(claim: str, evidence: Evidence, n_seeds: int) -> ClaimResult:
    tier, declared = evidence.tier, evidence.tier.contrasts[claim]
    seeds = tier.seeds[:n_seeds]
    parts = {name: part_of(evidence, contrast, seeds) for name, contrast in declared.items()}
    parts = {name: (part, of) for name, (part, of) in parts.items() if part.n}
    verdict, effects = evaluate({name: part for name, (part, _) in parts.items()}, _needs(tier, claim))
    found = tuple(
        ContrastResult(
            name, declared[name], of, tuple(map(known, zip(part.low, part.high, strict=True))), effects[name]
        )
        for name, (part, of) in parts.items()
    )
    whole = len(parts) == len(declared) and all(
        set(of) == _seeds_of(evidence, declared[name], seeds) for name, (_, of) in parts.items()
    )
    return ClaimResult(claim, evidence.study.claims[claim], evidence, found, verdict if whole else None, n_seeds)


def _needs(tier: Tier, claim: str) -> Needs:
    return "one" if claim in tier.at_least_one else "all"


def _seeds_of(evidence: Evidence, contrast: Contrast, seeds: Sequence[int]) -> set[int]:
    """Seeds that both arms have; the first of each pair of them, where pairs are compared."""
    of_arms = [evidence.tier.seeds_of(arm) for arm in (contrast.arm, contrast.against or contrast.arm)]
    common = [seed for seed in seeds if all(seed in of for of in of_arms)]
    if contrast.measure.startswith(f"{ACROSS}."):
        return set(common[: len(common) // 2 * 2 : 2])
    return set(common)
