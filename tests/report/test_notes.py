from __future__ import annotations

from collections.abc import Mapping

from minitx.report.ledger import Entry
from minitx.report.notes import notes_of


def notes(entry: Entry) -> dict[str, tuple[str, ...]]:
    assert entry.result is not None
    return {note.heading: note.lines for note in notes_of(entry, entry.result)}


def test_what_a_finished_study_has_to_say(entries: Mapping[str, Entry]) -> None:
    found = notes(entries["C7"])
    assert [line.split(",")[0] for line in found["Learning curves"]] == ["transformer", "cnn", "bag"]
    assert found["Crossings"] == (
        "The test accuracy of transformer and cnn: the order changes between train_size 2,000 and 4,000.",
    )
    assert found["Seeds and missing cells"][-1] == "All 120 cells of the study have finished."
    [broken] = found["Rules of fairness broken on purpose"]
    assert broken == "Not held to equal numbers of parameters: The bag has no layers to make it larger with."


def test_seeds_of_timings_are_rounds(entries: Mapping[str, Entry]) -> None:
    assert "Seeds 0, 1, 2, 3, 4: each fixes initialisation" in notes(entries["C7"])["Seeds and missing cells"][0]
    [found, *_] = notes(entries["C5"])["Seeds and missing cells"]
    assert found == "Seeds 0, 1, 2, 3, 4: each is a round of timing; nothing is trained."


def test_missing_cells_are_named(entries: Mapping[str, Entry]) -> None:
    found = notes(entries["C8a"])["Seeds and missing cells"]
    assert found[-1] == "Of 35 cells 1 have not finished, and take no part: arm=fixed width value=2 seed=3."


def test_too_few_seeds_are_told(entries: Mapping[str, Entry]) -> None:
    assert "Exploratory" in notes(entries["C2"])["Seeds and missing cells"][1]
    assert list(notes(entries["C4"])) == ["Seeds and missing cells"]
