"""Every number in the README comes from outputs/reference, and the committed results are what they say."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tiny import ROOT

from minitx.report.reference import unseen_rates
from minitx.studies.statistics import claim_verdict, contrast_effects

REFERENCE = ROOT / "outputs" / "reference"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def read(name: str) -> Any:
    return json.loads((REFERENCE / f"{name}.json").read_text(encoding="utf-8"))


def percent(metric: dict[str, Any]) -> str:
    low, high = metric["ci95"]
    return f"{100 * metric['value']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def results_rows() -> list[str]:
    """The README's results table, made from the files."""
    default, digits = read("default"), read("digits")
    test = default["metrics"]["test"]
    accuracies = [100 * r["metrics"]["test"]["accuracy"]["value"] for r in digits]
    half = stats.t.ppf(0.975, len(accuracies) - 1) * stats.sem(accuracies)
    return [
        row(
            "`python train.py`", f"{default['n_params']:,}", f"PER {percent(test['per'])}, WER {percent(test['wer'])}",
            f"{default['seconds']:.0f} s", f"{default['device']}, {default['precision']}", str(default["seed"]),
        ),
        row(
            "`python train.py data=digits`", f"{digits[0]['n_params']:,}",
            f"accuracy {np.mean(accuracies):.2f} ± {half:.2f} % (mean of {len(digits)} seeds)",
            f"{max(r['seconds'] for r in digits):.0f} s", f"{digits[0]['device']}, {digits[0]['precision']}",
            ", ".join(str(r["seed"]) for r in digits),
        ),
    ]  # fmt: skip


def points(metric: dict[str, Any]) -> str:
    low, high = metric["ci95"]
    return f"{metric['value']:.1f} [{low:.1f}, {high:.1f}]"


def over_seeds(values: list[float], unit: str = "") -> str:
    """Mean and half the 95 % Student interval, with every seed's value."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{np.mean(values):.2f} ± {half:.2f}{unit} ({', '.join(f'{value:.2f}' for value in values)})"


def translation_rows() -> list[str]:
    """The README's table beside published numbers, and its lines on decoding and on R-Drop."""
    tok, [raw], [full] = read("multi30k_tok"), read("multi30k"), read("cmudict_full")
    seconds, arms = read("decoding"), read("r_drop")
    assert [r["seed"] for r in tok] == [0, 1, 2] and {r["decode"]["beam"] for r in (*tok, raw, full)} == {5}
    bleus = [r["metrics"]["test"]["bleu"]["value"] for r in tok]
    test = full["metrics"]["test"]
    plain, dropped = ([100 * r["metrics"]["test"]["accuracy"]["value"] for r in arms[arm]] for arm in ("0", "1"))
    return [
        f"`experiment=multi30k_tok` | {tok[0]['n_params']:,} | BLEU {over_seeds(bleus)}",
        f"`experiment=multi30k trainer.max_steps={raw['steps']}` | {raw['n_params']:,} | "
        f"BLEU {points(raw['metrics']['test']['bleu'])}, chrF {points(raw['metrics']['test']['chrf'])}",
        *(f"`{raw['metrics']['test'][name]['signature']}`" for name in ("bleu", "chrf")),
        f"`experiment=cmudict_full` | {full['n_params']:,} | WER {percent(test['wer'])}, PER {percent(test['per'])}",
        f"{seconds['beam_1_seconds']:.0f} s greedily and {seconds['beam_5_seconds']:.0f} s with a beam of 5",
        f"{over_seeds(plain, ' %')} without and {over_seeds(dropped, ' %')} with it",
        f"`{tok[0]['metrics']['test']['bleu']['signature']}`",
    ]


def test_the_readme_states_translation_as_stored() -> None:
    text = " ".join(README.split())
    assert [line for line in translation_rows() if line not in text] == []


MODELS = ("linear", "bag", "cnn", "lstm", "transformer")


def classification_rows() -> list[str]:
    """The README's table of models by data set, and of the Transformer's differences from the others."""
    rows = []
    for data, found in read("classification").items():
        cells = [reached(found["runs"][model]) for model in MODELS]
        rows.append(row(f"`{data}`", *cells))
        against = [difference(found["transformer_minus"][model]) for model in MODELS[:-1]]
        rows.append(row(f"`{data}`", *against))
    return rows


def reached(runs: list[dict[str, Any]]) -> str:
    """Test accuracy in per cent: mean and half the 95 % Student interval over seeds."""
    values = [100 * run["metrics"]["test"]["accuracy"]["value"] for run in runs]
    if len(values) == 1:
        return f"{values[0]:.1f}" + (" (1 seed)" if runs[0]["model"] != "linear" else "")
    return f"{np.mean(values):.1f} ± {stats.t.ppf(0.975, len(values) - 1) * stats.sem(values):.1f}"


def difference(found: dict[str, Any]) -> str:
    """Percentage points, with the interval over paired seeds."""
    if found["n_seeds"] == 1:
        return f"{100 * found['value']:+.1f} (1 seed)"
    low, high = found["ci95"]
    return f"{100 * found['value']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def test_the_readme_states_classification_as_stored() -> None:
    assert [line for line in classification_rows() if line not in README] == []


def test_differences_are_those_of_the_stored_runs() -> None:
    """Paired by seed, against scipy."""
    for found in read("classification").values():
        by_seed = {
            model: {run["seed"]: run["metrics"]["test"]["accuracy"]["value"] for run in runs}
            for model, runs in found["runs"].items()
        }
        for model, stated in found["transformer_minus"].items():
            one = by_seed[model][0]
            pairs = [value - by_seed[model].get(seed, one) for seed, value in by_seed["transformer"].items()
                     if model == "linear" or seed in by_seed[model]]  # fmt: skip
            assert stated["value"] == pytest.approx(np.mean(pairs)) and stated["n_seeds"] == len(pairs)
            if len(pairs) > 1:
                interval = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
                assert stated["ci95"] == pytest.approx([interval.low, interval.high])


def ledger_rows() -> list[str]:
    """The README's table of claims, from the report of the studies."""
    rows = []
    for claim in read("claims"):
        command = claim["command"].removeprefix("python train.py -m ")
        verdict = claim["verdict"] or f"not tested here: `{command}`"
        evidence = "; ".join(contrast(part) for part in claim["parts"])
        seeds = f"{claim['tier']}, {claim['n_seeds']} seeds" if claim["parts"] else ""
        rows.append(row(claim["id"], claim["claim"], verdict, evidence, seeds))
    return rows


def contrast(part: dict[str, Any]) -> str:
    """Effect and corrected interval; the smallest effect worth naming."""
    low, high = ("inf" if bound is None else f"{bound:+.3f}" for bound in part["ci95"])
    name = part["name"].replace("_", " ")
    return f"{name} {part['effect']:+.3f} [{low}, {high}], δ {part['delta']:g}"


def test_the_readme_states_the_ledger_as_stored() -> None:
    assert [line for line in ledger_rows() if line not in README] == []


def test_the_readme_states_time_and_power_of_the_quick_tier_as_stored() -> None:
    told, simulated = read("quick_tier"), read("power")
    assert told["total_seconds"] == sum(told["seconds"].values())
    assert f"nine studies in {told['total_seconds'] / 60:.0f} minutes on two cores" in " ".join(README.split())
    none, just_delta = (100 * simulated["any"][effect] for effect in ("0.0", "1.0"))
    rounds, text = simulated["rounds"], " ".join(README.split())
    assert f"of {rounds:,} simulated reports" in text
    assert f"{none:.2f} % support anything where there is no effect and {just_delta:.2f} % where every effect" in text
    needing_more = [c for c in simulated["contrasts"].values() if (c["seeds_needed"] or 1001) > c["n_seeds"]]
    assert f"{len(needing_more)} of {len(simulated['contrasts'])} contrasts would need more seeds" in text


def alone_line() -> str:
    """What each study says where its own contrasts alone are corrected for."""
    said: dict[str, list[str]] = {"supported": [], "contradicted": []}
    for claim in read("claims"):
        effects = contrast_effects({part["name"]: (part["values"], part["delta"]) for part in claim["parts"]})
        parts = [(effects[part["name"]].verdict, part["expect"]) for part in claim["parts"]]
        if claim["verdict"] is not None and (alone := claim_verdict(parts)) in said:
            said[alone].append(f"{claim['id']} ({claim['tier']})")
    return f"supported {', '.join(said['supported'])}; contradicted {', '.join(said['contradicted'])}"


def test_the_readme_states_what_studies_say_by_themselves() -> None:
    assert f"each study by itself: {alone_line()}" in " ".join(README.split())


def test_verdicts_of_the_ledger_follow_from_its_numbers() -> None:
    """Each contrast's interval at its level by scipy, and the verdict that it and delta give."""
    for claim in read("claims"):
        for part in claim["parts"]:
            values, (low, high), delta = part["values"], part["ci95"], part["delta"]
            assert part["effect"] == pytest.approx(np.mean(values), abs=1e-12)
            if np.std(values) > 0:
                interval = stats.ttest_1samp(values, 0).confidence_interval(part["level"])
                assert (low, high) == pytest.approx((interval.low, interval.high))
            inside = -delta < low and high < delta
            said = "supported" if low > delta else "contradicted" if high < -delta else "negligible" if inside else None
            assert part["found"] in (said, "inconclusive")


def speed_rows() -> list[str]:
    """The README's tables of speed and of the default after three minutes."""
    parts, rows = read("bench_cpu")["parts"], []
    for part, what in (
        ("classification", "training, classification: width 256, 4 layers, 256 tokens, 32 rows"),
        ("translation", "training, translation: width 128, 4 + 4 layers, 4,096 padded tokens"),
    ):
        speed, ratios = parts[part]["medians"]["tokens_per_second"], parts[part]["ratios"]
        share = f"{100 * parts[part]['medians']['mfu']['minitx']:.0f} % of peak"
        rows.append(row(what, f"{speed['minitx']:,.0f} tokens/s, {share}", *opponents(speed, ratios)))
    for task, what in (
        ("classification", "inference, the same classifier"),
        ("translation", "inference, greedy decoding by the same translator"),
    ):
        found = parts["inference"][task]
        speed, ratios = (
            {label.removeprefix(f"{task} "): value for label, value in found[key].items()}
            for key in ("medians", "ratios")
        )
        rows.append(row(what, f"{speed['minitx']:,.0f} {found['unit']}", *opponents(speed, ratios)))
    for name, run in zip(("before", "after"), read("three_minutes"), strict=True):
        test, rate = run["metrics"]["test"], f"{run['tokens_per_second']:,.0f} tokens/s"
        rows.append(
            row(name, rate, f"{run['steps']:,} steps", f"PER {percent(test['per'])}, WER {percent(test['wer'])}")
        )
    return rows


def opponents(speed: dict[str, float], ratios: dict[str, Any]) -> list[str]:
    """Each one's speed, and how many times as fast minitx was: median and range of rounds."""
    cells = []
    for name in ("torch", "transformers"):
        if name in speed:
            ratio = ratios[name]
            cells.append(f"{speed[name]:,.0f}: {ratio['median']:.2f} × [{ratio['min']:.2f}, {ratio['max']:.2f}]")
        else:
            cells.append("–")
    return cells


def growth_line() -> str:
    """Exponents of memory and time between the last three lengths."""
    parts = read("bench_cpu")["parts"]
    each = [
        f"{name} {parts['memory']['exponents'][name]:.2f} and {parts['cost']['exponents'][name]:.2f}"
        for name in ("sdpa", "naive", "window")
    ]
    return f"exponents of memory and time: {', '.join(each)}"


def test_the_readme_states_how_memory_and_time_grow() -> None:
    assert growth_line() in " ".join(README.split())


@pytest.mark.parametrize("line", [*results_rows(), *speed_rows()])
def test_the_readme_shows_the_stored_results(line: str) -> None:
    assert line in README


def test_the_readme_shows_the_stored_console() -> None:
    assert f"```\n{(REFERENCE / 'default_console.txt').read_text(encoding='utf-8')}```" in README


def test_every_file_the_readme_names_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links and not [link for link in links if not (ROOT / link).exists()]


def test_the_unseen_words_are_scored_as_reported() -> None:
    report = read("default")["unseen_words"]
    assert {name: interval.to_json() for name, interval in unseen_rates().items()} == report
    wer = report["wer"]["value"]
    assert f"{round(50 * (1 - wer))} of 50 words" in README


def test_the_unseen_words_are_in_no_dictionary_we_train_on(tmp_path: Path) -> None:
    from minitx.config.load import load
    from minitx.data import load_data

    data = load_data(load({"data": {"tokenizer": {"kind": "char", "joint": False}, "cache_dir": str(tmp_path)}}).data)
    known = {split.text(i) for split in data.splits.values() for i in range(len(split))}
    with (REFERENCE / "unseen_words.csv").open(encoding="utf-8") as file:
        words = [line["word"] for line in csv.DictReader(file)]
    assert len(words) == len(set(words)) == 50 and not known & set(words)
