"""The table 'What we tried to break', from the record of the fault campaign (tests/faults)."""

from __future__ import annotations

from collections.abc import Iterator

from minitx.report.results_ledger import Json, header, row


def faults_table(found: Json) -> Iterator[str]:
    """One line for each kind of fault: how often it was tried, and what came of it."""
    kills, damage, system = found["kills"], found["damage"], found["system"]
    overrides, files, texts, folders = (found[part] for part in ("overrides", "files", "texts", "folders"))
    yield from header("tried", "how often", "what must hold", "came out wrong")
    signals = ", ".join(f"{name} {n}" for name, n in kills["signals"].items())
    phases = ", ".join(f"{name} {n}" for name, n in kills["phases"].items() if n)
    yield row(
        f"trainings interrupted at random moments: {signals}; in {phases}",
        f"{kills['interruptions']} in {kills['compared']} runs of {len(kills['trainings'])} kinds",
        f"resumed, weights, logs and scores are those of an undisturbed run, bit for bit: {kills['identical']} of "
        f"{kills['compared']} were",
        _wrong(kills),
    )
    yield row(
        "a bit flipped, half cut off or the whole gone, in every file of a run folder and of the cache",
        f"{damage['damaged']}",
        f"it is noticed ({damage['noticed']}), or every answer is as before ({damage['harmless']})",
        _wrong(damage),
    )
    yield row(
        "; ".join(system["cases"]), f"{len(system['cases'])}",
        "one line says what is wrong, and the run then ends as an undisturbed one", _wrong(system),
    )  # fmt: skip
    yield row(
        "overrides made up at random: on a configuration, on a finished run, through Hydra", _inputs(overrides),
        f"taken ({overrides['taken']:,}) or refused in one line ({overrides['refused']:,}), the slowest in "
        f"{overrides['slowest_seconds']:.1f} s", _wrong(overrides),
    )  # fmt: skip
    yield row(
        "files made up at random, half of them damaged: " + ", ".join(sorted(files["inputs"])), _inputs(files),
        f"every row as it was written, or refused in one line ({files['refused']:,}), the slowest in "
        f"{files['slowest_seconds']:.1f} s", _wrong(files),
    )  # fmt: skip
    yield row(
        "texts of all of Unicode and of markup, for runs of " + ", ".join(texts["inputs"]), _inputs(texts),
        "one answer of one line to each, the same beside other texts as alone, the slowest in "
        f"{texts['slowest_seconds']:.1f} s", _wrong(texts),
    )  # fmt: skip
    yield row(
        "a file of an exported folder damaged at random", _inputs(folders),
        f"the answers are as before ({folders['taken']:,}), or it is refused in one line ({folders['refused']:,})",
        _wrong(folders),
    )  # fmt: skip
    yield ""
    yield "`python -m tests.faults --json outputs/reference/faults.json` does all of it again; its tests do a part."


def _inputs(found: Json) -> str:
    return f"{sum(found['inputs'].values()):,}"


def _wrong(found: Json) -> str:
    return f"{len(found['wrong'])}"
