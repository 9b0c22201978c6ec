"""The ledger of a folder of studies: every claim with the verdict of each tier of each study, or with none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from minitx.config import rule
from minitx.studies.claims import ClaimResult, ContrastResult, evaluate_claims
from minitx.studies.evidence import Evidence, read_evidence
from minitx.studies.study import Claim, Contrast, load_study
from minitx.studies.verdicts import MIN_SEEDS, Verdict, benjamini_hochberg, holm
from minitx.training.run_folder import safe_name

RECORDS = "study-*.json"
STUDIES = Path(__file__).parents[2] / "conf" / "study"
"""Study files, which declare all claims."""


@dataclass(frozen=True)
class Entry:
    """A claim with the result of one tier of one study, or without any where no study of the folder asks about it."""

    id: str
    claim: Claim
    study: str
    """Name of the study that asks about it."""
    result: ClaimResult | None

    @property
    def verdict(self) -> Verdict | None:
        """None: not tested here."""
        return self.result.verdict if self.result is not None else None

    @property
    def anchor(self) -> str:
        """Names its section and its figures."""
        return self.id if self.result is None else safe_name(f"{self.id}-{self.study}-{self.result.tier}")

    @property
    def command(self) -> str:
        """The line that runs the study (again)."""
        return command_of(self.study) if self.result is None else self.result.evidence.command

    @property
    def contrasts(self) -> tuple[ContrastResult, ...]:
        """The contrasts that have been measured."""
        return self.result.contrasts if self.result is not None else ()

    @property
    def unmeasured(self) -> dict[str, Contrast]:
        """The contrasts that wait for cells."""
        if self.result is None:
            return {}
        measured = {one.name for one in self.contrasts}
        return {name: contrast for name, contrast in self.result.declared.items() if name not in measured}

    @property
    def exploratory(self) -> bool:
        """Whether a contrast has fewer seeds than a verdict needs."""
        return any(one.effect.n_seeds < MIN_SEEDS and one.contrast.expect != "exact" for one in self.contrasts)


@dataclass(frozen=True)
class Ledger:
    """All claims, and where the studies are."""

    folder: Path
    """The folder of all studies; folders of cells are relative to it."""
    entries: tuple[Entry, ...]

    @property
    def tested(self) -> list[tuple[Entry, ClaimResult]]:
        """The entries of studies in the folder, finished or not."""
        return [(entry, entry.result) for entry in self.entries if entry.result is not None]

    @property
    def decided(self) -> list[tuple[Entry, ClaimResult]]:
        """The entries that are supported or contradicted."""
        return [(entry, result) for entry, result in self.tested if result.decided]

    @cached_property
    def marks(self) -> dict[str, tuple[bool, bool]]:
        """Anchor of each tested entry -> whether its verdict survives Holm's correction over all verdicts of the
        report, and Benjamini and Hochberg's."""
        tested = [(entry.anchor, result.p) for entry, result in self.tested if result.verdict is not None]
        ps = [p for _, p in tested]
        both = zip(holm(ps), benjamini_hochberg(ps), strict=True)
        return {anchor: marks for (anchor, _), marks in zip(tested, both, strict=True)}


def command_of(study: str, tier: str = "quick") -> str:
    """The line that runs a study."""
    return f"python train.py -m study={study}" + ("" if tier == "quick" else f" study.tier={tier}")


def read_ledger(folder: Path) -> Ledger:
    """Evaluate every study of a folder, together.

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
