"""The ledger of a folder of studies: every claim with what each tier of each study found of it, or that none did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from minitx.config import rule
from minitx.studies.evidence import ClaimResult, ContrastResult, Evidence, evaluate_claims, read_evidence
from minitx.studies.statistics import MIN_SEEDS, Verdict
from minitx.studies.study import Claim, Contrast, load_study
from minitx.training.run_folder import safe_name

RECORDS = "study-*.json"
STUDIES = Path(__file__).parents[2] / "conf" / "study"
"""Study files, which hold all that is said of a claim."""


@dataclass(frozen=True)
class Entry:
    """A claim as one tier of one study decided it, or a claim that no study here asks about."""

    id: str
    claim: Claim
    study: str
    """That asks about it."""
    finding: ClaimResult | None

    @property
    def verdict(self) -> Verdict | None:
        """None: not tested here."""
        return self.finding.verdict if self.finding is not None else None

    @property
    def anchor(self) -> str:
        """Names its section, and its figures."""
        found = self.finding
        return self.id if found is None else safe_name(f"{self.id}-{self.study}-{found.tier}")

    @property
    def command(self) -> str:
        """What tests it (again)."""
        return command_of(self.study) if self.finding is None else self.finding.evidence.command

    @property
    def parts(self) -> tuple[ContrastResult, ...]:
        """The contrasts that have been measured."""
        return self.finding.parts if self.finding is not None else ()

    @property
    def unmeasured(self) -> dict[str, Contrast]:
        """The contrasts that wait for cells."""
        if self.finding is None:
            return {}
        declared = self.finding.evidence.tier.contrasts[self.id]
        return {name: part for name, part in declared.items() if name not in {p.name for p in self.parts}}

    @property
    def exploratory(self) -> bool:
        """Whether a contrast has fewer seeds than a verdict needs."""
        return any(part.effect.n_seeds < MIN_SEEDS for part in self.parts)


@dataclass(frozen=True)
class Ledger:
    """What a report tells."""

    folder: Path
    """Of all studies; cells' folders are relative to it."""
    entries: tuple[Entry, ...]

    @property
    def tested(self) -> list[tuple[Entry, ClaimResult]]:
        """The entries that a study speaks of, finished or not."""
        return [(entry, entry.finding) for entry in self.entries if entry.finding is not None]


def command_of(study: str, tier: str = "quick") -> str:
    """What a person types to run a study."""
    return f"python train.py -m study={study}" + ("" if tier == "quick" else f" study.tier={tier}")


def read_ledger(folder: Path) -> Ledger:
    """Judge every study of a folder, together.

    Raises:
        ConfigError: the folder holds none, or a record that cannot be read.
    """
    records = sorted(folder.glob(f"*/{RECORDS}"))
    if not records:
        must = f"be a folder of studies, one of whose folders holds a {RECORDS}"
        raise rule("FOLDER", folder, must, f"run a study first: {command_of('head_count')}")
    return Ledger(folder, entries_of([read_evidence(record) for record in records], declared_claims()))


def entries_of(evidences: Sequence[Evidence], declared: Sequence[Entry] = ()) -> tuple[Entry, ...]:
    """What the studies found of their claims, and the declared claims that none of them asks about."""
    tested = [Entry(found.id, found.claim, found.study, found) for found in evaluate_claims(evidences)]
    untested = [entry for entry in declared if entry.id not in {other.id for other in tested}]
    return tuple(sorted([*tested, *untested], key=lambda entry: (entry.claim.order, entry.id)))


def declared_claims(folder: Path = STUDIES) -> list[Entry]:
    """The claims of every study file in a folder; none where the package is installed without conf/.

    Raises:
        ConfigError: a claim lacks its statement or prediction, or two files have the same claim.
    """
    entries: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.yaml")):
        study = yaml.safe_load(path.read_text(encoding="utf-8"))
        declared = load_study({"name": path.stem, "claims": study.get("claims", {})})
        for name, claim in declared.claims.items():
            if name in entries:
                other = f"{entries[name].study}.yaml"
                raise rule(f"study.claims.{name}", path.name, f"be in one file, it is in {other} too", "drop one")
            entries[name] = Entry(name, claim, path.stem, None)
    return sorted(entries.values(), key=lambda entry: (entry.claim.order, entry.id))
