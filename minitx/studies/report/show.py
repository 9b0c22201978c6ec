"""The ledger on the console."""

from __future__ import annotations

from minitx.studies.report.ledger import Entry, Ledger
from minitx.studies.report.words import counted, effect_text, verdict_word
from minitx.training.console import Reporter


def say_ledger(reporter: Reporter, ledger: Ledger) -> None:
    """A line for each claim and tier; under it, how to test what has not been."""
    columns = ["id", "claim", "verdict", "effect [interval]", "tier"]
    reporter.table(counted(ledger.entries), columns, [_row(entry) for entry in ledger.entries], names={"claim"})
    for command in dict.fromkeys(entry.command for entry in ledger.entries if entry.verdict is None):
        reporter.say(f"not tested here: {command}")


def _row(entry: Entry) -> list[str]:
    found = entry.finding
    effects = "\n".join(effect_text(part) for part in entry.parts)
    return [entry.claim.id, entry.claim.says, verdict_word(entry.verdict), effects, "" if found is None else found.tier]
