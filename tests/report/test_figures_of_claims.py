"""Which figures a claim has: the panels that its study declares, heads beside published numbers, its effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from minitx.report.ledger import Entry
from minitx.report.write import draw, draw_effects
from minitx.studies.study import PanelOf


def with_panels(entry: Entry, *panels: PanelOf) -> Entry:
    """The same, its study declaring what to draw."""
    assert entry.result is not None
    study = entry.result.evidence.study
    tier = study.chosen.model_copy(update={"panels": {entry.id: [*panels]}})
    evidence = replace(entry.result.evidence, study=study.model_copy(update={study.tier: tier}))
    return replace(entry, result=replace(entry.result, evidence=evidence))


def test_a_claim_without_panels_has_one_figure_for_each_measure(entries: Mapping[str, Entry]) -> None:
    entry = entries["C7"]
    assert entry.result is not None
    assert [one.name for one in draw(entry, entry.result)] == entry.result.measures
    assert [one.name for one in draw_effects(entry)] == ["effects"]


def test_declared_panels_are_drawn_in_one_figure(entries: Mapping[str, Entry]) -> None:
    whole = entries["C7"]
    assert whole.result is not None
    arms = list(whole.result.evidence.tier.arms)
    panels = [PanelOf(title=arm, measure="test.accuracy", chance=0.25, arms={arm: "the arm"}) for arm in arms]
    entry = with_panels(whole, *panels)
    assert entry.result is not None
    [undivided] = [one for one in draw(whole, whole.result) if one.name == "test.accuracy"]
    [divided] = [one for one in draw(entry, entry.result) if one.name == "test.accuracy"]
    assert undivided.svg.count('id="axes_') == 1 and divided.svg.count('id="axes_') == len(panels) > 1


def test_numbers_of_heads_stand_beside_published_ones(entries: Mapping[str, Entry]) -> None:
    for name, beside in (("C8a", True), ("C7", False)):
        entry = entries[name]
        assert entry.result is not None
        assert any(one.name.endswith("-beside") for one in draw(entry, entry.result)) == beside, name
