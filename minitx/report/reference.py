"""The small committed results that the README quotes, made from run folders.

python -m minitx.report.reference default RUN     default.json, its console, its picture, the unseen words
python -m minitx.report.reference runs NAME RUN...  NAME.json: what several runs reached, beside a trivial baseline
python -m minitx.report.reference arms NAME ARM=RUN[,RUN...]...  NAME.json: the same of runs by arm
python -m minitx.report.reference models NAME RUN...  NAME.json: runs by data set and model, and their differences
python -m minitx.report.reference heads RUN      heads.png: what each head of an encoder's layer looks at in one word
python -m minitx.report.reference decoding RUN   decoding.json: seconds to translate the test split, greedy and by beam
python -m minitx.report.reference bench NAME FOLDER...  NAME.json and figures: what `minitx bench` found, parts joined
python -m minitx.report.reference studies FOLDER  every study's record and cells, power.json, and then:
python -m minitx.report.reference report         report.md, figures/ and claims.json, from what is committed; and the
                                                 figures of the README in Chinese
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from minitx.analysis.attention_maps import inspect_texts
from minitx.analysis.figures import attention_figure
from minitx.data import TaskData, load_data
from minitx.metrics.intervals import Interval
from minitx.metrics.scores import TextOutputs, scores
from minitx.predictor import Predictor
from minitx.report.ledger import read_ledger
from minitx.report.phrases import speaking
from minitx.report.write import FIGURES, draw, write_report
from minitx.studies.statistics import paired_interval
from minitx.training.device import prepare_process, resolve_compute
from minitx.training.run_folder import RunFolder, safe_name, write_atomic

REFERENCE = Path("outputs/reference")
UNSEEN = REFERENCE / "unseen_words.csv"
IN_CHINESE = ("C7-data_size-full", "C8a-head_count-quick")
"""Claims whose figures the Chinese README shows."""
RESULT_KEYS = (
    "data", "model", "seed", "n_params", "n_train", "steps", "seconds", "device", "precision", "tokens_per_second",
    "git",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True)
    default = commands.add_parser("default")
    default.add_argument("run", type=Path)
    default.add_argument("--word", default="thoughtful", help="the word of the picture")
    default.set_defaults(command=lambda o: write_default(o.run, o.word))
    runs = commands.add_parser("runs")
    runs.add_argument("name")
    runs.add_argument("runs", nargs="+", type=Path)
    runs.set_defaults(command=lambda o: write_runs(o.name, o.runs))
    arms = commands.add_parser("arms")
    arms.add_argument("name")
    arms.add_argument("arms", nargs="+", metavar="ARM=RUN[,RUN...]")
    arms.set_defaults(command=lambda o: write_arms(o.name, o.arms))
    models = commands.add_parser("models")
    models.add_argument("name")
    models.add_argument("runs", nargs="+", type=Path)
    models.set_defaults(command=lambda o: write_models(o.name, o.runs))
    heads = commands.add_parser("heads")
    heads.add_argument("run", type=Path)
    heads.add_argument("--word", default="thoughtful")
    heads.set_defaults(command=lambda o: write_heads(o.run, o.word))
    decoding = commands.add_parser("decoding")
    decoding.add_argument("run", type=Path)
    decoding.set_defaults(command=lambda o: write_decoding(o.run))
    bench = commands.add_parser("bench")
    bench.add_argument("name")
    bench.add_argument("folders", nargs="+", type=Path)
    bench.set_defaults(command=lambda o: write_bench(o.name, o.folders))
    studies = commands.add_parser("studies")
    studies.add_argument("folder", type=Path)
    studies.set_defaults(command=lambda o: write_studies(o.folder))
    report = commands.add_parser("report")
    report.set_defaults(command=lambda _: write_ledger())
    options = parser.parse_args()
    options.command(options)


def summary(run: Path) -> dict[str, Any]:
    """What a README line needs of results.json."""
    results = RunFolder(run).results()
    if results is None or results["status"] != "finished":
        raise SystemExit(f"{run} is not a finished run")
    of_translation = ["decode"] if "decode" in results else []
    return {key: results[key] for key in (*RESULT_KEYS, "metrics", "loss", *of_translation, "versions")}


def write_default(run: Path, word: str) -> None:
    """The default run: summary, console, the words that are in no dictionary, and one picture."""
    predictor = Predictor.from_run(run)
    report = {"command": "python train.py", **summary(run), "unseen_words": score_unseen(predictor)}
    _write_json(REFERENCE / "default.json", report)
    log = (run / "train.log").read_text(encoding="utf-8").rstrip()
    (REFERENCE / "default_console.txt").write_text(_shortened(log.splitlines()) + "\n", encoding="utf-8")
    [shown] = inspect_texts(predictor.nets().models[0], [word], predictor.processor, device=predictor.device)
    figure = attention_figure(shown.views[0], f"{shown.text}  →  {shown.output}")
    figure.savefig(REFERENCE / "attention.png", dpi=110)


def score_unseen(predictor: Predictor) -> dict[str, Any]:
    """Predict the words written for this project, store the predictions beside the references, and score them."""
    with UNSEEN.open(encoding="utf-8") as file:
        rows = [(row["word"], row["phonemes"]) for row in csv.DictReader(file)]
    predicted = predictor.predict([word for word, _ in rows])
    with UNSEEN.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["word", "phonemes", "predicted"])
        writer.writerows((word, phonemes, p) for (word, phonemes), p in zip(rows, predicted, strict=True))
    return {name: interval.to_json() for name, interval in unseen_rates().items()}


def unseen_rates() -> dict[str, Interval]:
    """PER and WER of the committed predictions."""
    with UNSEEN.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    references = [row["phonemes"].split("|") for row in rows]
    return scores("error_rate", TextOutputs(hypotheses=[row["predicted"] for row in rows], references=references))


def write_runs(name: str, runs: list[Path]) -> None:
    _write_json(REFERENCE / f"{name}.json", [{**summary(run), "baseline": baseline(run)} for run in runs])


def write_arms(name: str, arms: list[str]) -> None:
    """Runs that differ in one thing, by arm."""
    parts = [arm.partition("=") for arm in arms]
    _write_json(
        REFERENCE / f"{name}.json", {arm: [summary(Path(r)) for r in runs.split(",")] for arm, _, runs in parts}
    )


def write_models(name: str, runs: list[Path]) -> None:
    """Classifiers by data set and model, and how far the Transformer is from each of the others."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in sorted(runs, key=lambda run: str(run)):
        facts = summary(run)
        of_model = found.setdefault(facts["data"], {}).setdefault(facts["model"], [])
        if facts["seed"] in [other["seed"] for other in of_model]:
            raise SystemExit(f"{run} is a second run of {facts['model']} on {facts['data']} with seed {facts['seed']}")
        of_model.append(facts)
    report = {
        data: {"runs": models, "transformer_minus": _differences(models)} for data, models in sorted(found.items())
    }
    _write_json(REFERENCE / f"{name}.json", report)


def _differences(models: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Test accuracy of the Transformer minus that of each other model: pairs of one seed, with Student's interval. A
    model that no seed changes (linear) has one run, which is used for every seed."""
    accuracy = {
        model: {run["seed"]: run["metrics"]["test"]["accuracy"]["value"] for run in runs}
        for model, runs in models.items()
    }
    own, differences = accuracy.pop("transformer", {}), {}
    for model, by_seed in accuracy.items() if own else ():
        theirs = dict.fromkeys(own, by_seed[min(by_seed)]) if model == "linear" else by_seed
        pairs = [value - theirs[seed] for seed, value in own.items() if seed in theirs]
        mean, low, high = paired_interval(pairs)
        differences[model] = {
            "value": mean, "ci95": [low, high] if math.isfinite(low) else None, "n_seeds": len(pairs)
        }  # fmt: skip
    return differences


def write_heads(run: Path, word: str) -> None:
    """The encoder's self-attention of a trained run on one word, every head beside the others."""
    predictor = Predictor.from_run(run)
    [shown] = inspect_texts(predictor.nets().models[0], [word], predictor.processor, device=predictor.device)
    [view] = [view for view in shown.views if view.kind == "encoder"]
    title = f"what each letter (row) of “{word}” looks at"
    attention_figure(view, title).savefig(REFERENCE / "heads.png", dpi=110)


def write_decoding(run: Path, beams: tuple[int, ...] = (1, 5)) -> None:
    """Seconds from texts to texts with each beam, after a warm-up, in a process set up as that of `minitx predict`."""
    predictor = Predictor.from_run(run)
    prepare_process(predictor.config.trainer.speed, predictor.device)
    split = load_data(predictor.config.data).splits["test"]
    texts = [split.text(row) for row in range(len(split))]
    found = {}
    for beam in beams:
        decoding = predictor.with_decoding(beam=beam)
        decoding.predict(texts[:20])
        start = time.perf_counter()
        decoding.predict(texts)
        found[f"beam_{beam}_seconds"] = round(time.perf_counter() - start, 2)
    facts = {key: summary(run)[key] for key in ("data", "n_params", "versions")}
    here = {"device": resolve_compute(predictor.config.trainer).name, "precision": predictor.nets().precision}
    _write_json(REFERENCE / "decoding.json", {**facts, **here, "sentences": len(texts), **found})


def write_bench(name: str, folders: list[Path]) -> None:
    """What `minitx bench` found, without single measurements and paths; a part measured again replaces the earlier."""
    parts: dict[str, Any] = {}
    for folder in folders:
        report = json.loads((folder / "bench.json").read_text(encoding="utf-8"))
        if report["dry_run"]:
            raise SystemExit(f"{folder} is a dry run: its numbers mean nothing")
        of_run = {key: report["machine"][key] for key in ("git", "date", "load_average")}
        counts = {key: report["settings"][key] for key in ("rounds_used", "steps_used", "warmup")}
        done = {part: found for part, found in report["parts"].items() if found["status"] == "done"}
        parts |= {part: {**of_run, **counts, **found["summary"]} for part, found in done.items()}
        for figure in report["figures"]:
            shutil.copyfile(folder / figure, REFERENCE / f"{name}_{figure}")
    machine = {key: report["machine"][key] for key in ("cpu", "usable_cores", "threads", "gpu", "python", "versions")}
    facts = {"machine": machine, "flop_formula": report["flop_formula"], "notes": report["notes"]}
    _write_json(REFERENCE / f"{name}.json", {**facts, "parts": parts})


def write_studies(folder: Path) -> None:
    """Every study's record and table of cells, what power.py simulated, and the report that is made of these alone."""
    stored, power = REFERENCE / "studies", folder / "power.json"
    if not power.is_file():
        raise SystemExit(f"{power} is missing; run python -m minitx.studies.power {folder} first")
    shutil.rmtree(stored, ignore_errors=True)
    for table in sorted(folder.glob("*/cells-*.csv")):
        record = table.with_name(table.name.replace("cells-", "study-")).with_suffix(".json")
        there = stored / table.parent.name
        there.mkdir(parents=True, exist_ok=True)
        for file in (table, record):
            shutil.copyfile(file, there / file.name)
    shutil.copyfile(power, REFERENCE / "power.json")
    write_ledger()


def write_ledger() -> None:
    """report.md with its figures, and claims.json, from the committed records and tables."""
    shutil.rmtree(REFERENCE / FIGURES, ignore_errors=True)
    ledger = read_ledger(REFERENCE / "studies")
    (REFERENCE / FIGURES).mkdir()
    with speaking("zh"):
        for entry, result in ledger.tested:
            for one in draw(entry, result) if entry.anchor in IN_CHINESE else ():
                write_atomic(REFERENCE / FIGURES / f"{entry.anchor}-{safe_name(one.name)}.zh.svg", one.svg)
    for path in write_report(ledger, REFERENCE):
        if path.suffix == ".html":  # it holds every figure a second time
            path.unlink()
        else:
            print(path)


def baseline(run: Path) -> dict[str, float]:
    """What no learning at all reaches on the test split.

    Classification: accuracy of always naming the commonest training class. Translation: cross-entropy per target token
    of the training tokens' relative frequencies (one added to each count), to be compared with the model's test loss.
    """
    config = RunFolder(run).read_config()
    data = load_data(config.data)
    if data.task == "classification":
        train, test = (data.splits[name].labels for name in ("train", "test"))
        assert train is not None and test is not None
        return {"majority_accuracy": float(np.mean(test == np.bincount(train).argmax()))}
    return {"unigram_loss": _unigram_loss(data)}


def _unigram_loss(data: TaskData) -> float:
    train, test = (data.splits[name].tgt for name in ("train", "test"))
    assert train is not None and test is not None and data.tgt_tokenizer is not None
    counts = np.bincount(np.asarray(train.flat), minlength=data.tgt_tokenizer.vocab_size) + 1
    return float(-np.log(counts / counts.sum())[np.asarray(test.flat)].mean())


def _shortened(lines: list[str], head: int = 12, tail: int = 18) -> str:
    """The beginning and the end of a log, the middle left out."""
    return "\n".join(lines if len(lines) <= head + tail else [*lines[:head], "...", *lines[-tail:]])


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
