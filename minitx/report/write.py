"""Writes the report: index.html, report.md with figures/, and claims.json; and the ledger on the console."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from minitx.config import rule
from minitx.report.drawing import drawn_language
from minitx.report.effects import EFFECTS_CAPTION, effects_figure
from minitx.report.figures import Panel, caption, panels_figure, svg_of
from minitx.report.head_figure import HEADS, HEADS_CAPTION, head_count_figure
from minitx.report.labels import in_words
from minitx.report.ledger import Entry, Ledger
from minitx.report.markdown import report_markdown
from minitx.report.page import report_page
from minitx.report.phrases import say, speaking, spoken, told
from minitx.report.wording import counted, effect_text, verdict_word
from minitx.studies.claims import ClaimResult, ContrastResult
from minitx.training.console import Reporter
from minitx.training.run_folder import safe_name, write_atomic


def print_ledger(reporter: Reporter, ledger: Ledger) -> None:
    """A line for each claim and tier, then the commands that test what has not been tested."""
    columns = ["id", *map(say, ("claim", "verdict", "effect [interval]", "tier"))]
    reporter.table(counted(ledger.entries), columns, [_row(entry) for entry in ledger.entries], names={say("claim")})
    for command in dict.fromkeys(entry.command for entry in ledger.entries if entry.verdict is None):
        reporter.info(say("not tested here: {command}", command=command))


def _row(entry: Entry) -> list[str]:
    effects = "\n".join(effect_text(one) for one in entry.contrasts)
    tier = "" if entry.result is None else say(entry.result.tier)
    return [entry.id, told(entry.claim.statement), verdict_word(entry.verdict), effects, tier]


FIGURES = "figures"


@dataclass(frozen=True)
class Drawn:
    """A figure of an entry."""

    name: str
    """What it shows, as its measure."""
    svg: str
    caption: str


def write_report(ledger: Ledger, out: Path) -> list[Path]:
    """Write the report into `out`, in the language of the context; the paths of its page, its Markdown and its JSON.

    Raises:
        ConfigError: `out` cannot be written.
    """
    link = _link(ledger.folder, out)
    try:
        (out / FIGURES).mkdir(parents=True, exist_ok=True)
        with speaking(drawn_language(spoken())):
            drawn = {entry.anchor: draw(entry, result) for entry, result in ledger.tested}
            effects = {entry.anchor: draw_effects(entry) for entry, _ in ledger.tested}  # the page draws each by itself
        in_page = {anchor: {one.name: (one.svg, one.caption) for one in each} for anchor, each in drawn.items()}
        beside = {anchor: _write_figures(out, anchor, [*each, *effects[anchor]]) for anchor, each in drawn.items()}
        texts = {
            "index.html": report_page(ledger, in_page, link),
            "report.md": report_markdown(ledger, beside, link),
            "claims.json": json.dumps(claims_json(ledger), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        }
        for name, text in texts.items():
            write_atomic(out / name, text)
    except OSError as error:
        raise rule("--output", out, f"be a folder that can be written ({error.strerror})", "name another") from None
    return [out / name for name in texts]


def draw(entry: Entry, result: ClaimResult, *, narrow: bool = False) -> list[Drawn]:
    """The figures of a claim, the most telling first: heads beside published numbers where it is about their number,
    then each measure. narrow: panels below each other."""
    title, language, evidence, drawn = told(entry.claim.statement), spoken(), result.evidence, list[Drawn]()
    for measure, panels in _panels(entry, result).items():
        if evidence.tier.axis == HEADS and measure.startswith(("test.", "loss.")):
            figure = head_count_figure(
                evidence, measure, title, names=panels[0].names, narrow=narrow, language=language
            )
            if figure is not None:
                drawn.append(Drawn(f"{measure}-beside", svg_of(figure), say(HEADS_CAPTION)))
        figure = panels_figure(panels, title, narrow=narrow, language=language)
        if figure is not None:
            text = caption(evidence, measure, entry.contrasts, language=language)
            drawn.append(Drawn(measure, svg_of(figure), text))
    return drawn


def _panels(entry: Entry, result: ClaimResult) -> dict[str, list[Panel]]:
    """Measure -> its panels: as the study declares them, else one of all arms."""
    evidence, found = result.evidence, dict[str, list[Panel]]()
    for declared in evidence.tier.panels.get(entry.id, ()):
        names = {arm: told(name) for arm, name in declared.arms.items()}
        panel = Panel(
            evidence, declared.measure, entry.contrasts, told(declared.title), chance=declared.chance, names=names
        )
        found.setdefault(declared.measure, []).append(panel)
    for measure in result.measures:
        found.setdefault(measure, [Panel(evidence, measure, entry.contrasts)])
    return found


def draw_effects(entry: Entry) -> list[Drawn]:
    """The contrasts of a claim in one figure; none without any."""
    names = {one.name: told(in_words(one.name)) for one in entry.contrasts}
    figure = effects_figure(entry.contrasts, told(entry.claim.statement), names=names, language=spoken())
    return [] if figure is None else [Drawn("effects", svg_of(figure), say(EFFECTS_CAPTION))]


def _write_figures(out: Path, anchor: str, drawn: list[Drawn]) -> dict[str, tuple[str, str]]:
    """Name -> (address from report.md, caption)."""
    written = {}
    for one in drawn:
        name = f"{anchor}-{safe_name(one.name)}.svg"
        write_atomic(out / FIGURES / name, one.svg)
        written[one.name] = (f"{FIGURES}/{name}", one.caption)
    return written


def _link(folder: Path, out: Path) -> Callable[[str], str]:
    """Addresses of what lies in the folder of studies, from the report; of a run whose folder is gone, its study's."""
    there = os.path.relpath(folder, out)

    def link(inside: str) -> str:
        shown = inside if (folder / inside).exists() else Path(inside).parts[0]
        return quote(Path(there, shown).as_posix())

    return link


# ---------------------------------------------------------------------------------------------------------------- JSON


def claims_json(ledger: Ledger) -> list[dict[str, Any]]:
    """One object for each claim and tier of a study, and for each claim without one, every number in full.

    `verdict` null: not tested here, `command` tests it. `effect`, `interval`, `delta` and `n_seeds` are the first
    part's; the interval has the level of a look, see minitx/studies/verdicts.py; an infinite bound is null. `seeds`: at
    the look that the verdict is of. `runs`: folders of the cells that the contrasts read, relative to the
    folder of studies.
    """
    return [_claim(entry) for entry in ledger.entries]


def _claim(entry: Entry) -> dict[str, Any]:
    result, parts = entry.result, [_part(one) for one in entry.contrasts]
    first = parts[0] if parts else dict.fromkeys(("effect", "interval", "delta", "n_seeds"))
    return {
        "id": entry.id,
        "claim": entry.claim.statement,
        "verdict": entry.verdict,
        **{key: first[key] for key in ("effect", "interval", "delta", "n_seeds")},
        "runs": [] if result is None else result.runs(),
        "command": entry.command,
        "study": entry.study,
        "tier": None if result is None else result.tier,
        "seeds": None if result is None else result.n_seeds,
        "p": None if result is None or not result.decided else result.p,
        "seeds_needed": None if result is None else result.seeds_needed,
        "exploratory": entry.exploratory,
        "parts": parts,
    }


def _part(found: ContrastResult) -> dict[str, Any]:
    contrast, effect = found.contrast, found.effect
    return {
        "name": found.name,
        "measure": contrast.measure,
        "contrast": contrast.kind,
        "arm": contrast.arm,
        "against": contrast.against,
        "expect": contrast.expect,
        "found": effect.finding,
        "state": effect.state,
        "method": effect.method,
        "effect": _finite(effect.mean),
        "interval": [_finite(effect.low), _finite(effect.high)],
        "level": effect.level,
        "p": effect.p,
        "delta": contrast.delta,
        "n_seeds": effect.n_seeds,
        "seeds": list(found.seeds),
        "values": [_finite(value) for value in found.values],
    }


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
