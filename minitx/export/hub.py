"""The folder that `minitx.load` and the hub take: weights, configuration, tokenisers, a card; and its upload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import processors

from minitx.batch import CLS, EOS, SPECIAL_TOKENS
from minitx.config import Config
from minitx.config.base import keys_with_role
from minitx.data.pipeline.tokenizer import RESERVED
from minitx.errors import RunError
from minitx.predictor import Predictor
from minitx.training.checkpoint_files import Checkpoint, write_checkpoint
from minitx.training.run_folder import RunFolder
from minitx.training.saver import TARGET_TOKENIZER, TOKENIZER, read_checkpoint


def write_hub(predictor: Predictor, out: Path, *, by_script: bool = False) -> None:
    """Write the folder. by_script: it will hold a run.py too, which the card names."""
    checkpoint = read_checkpoint(predictor.folder)
    lead = predictor.processor.task != "translation"
    texts = {
        name: with_special_tokens(text, lead) if name in (TOKENIZER, TARGET_TOKENIZER) else text
        for name, text in checkpoint.texts.items()
    }
    write_checkpoint(out, Checkpoint(tensors=checkpoint.tensors, texts=texts, state=checkpoint.state))
    results = predictor.folder.results() or {}
    RunFolder(out).write_settings(_without_places(predictor.config))
    RunFolder(out).write_results(results)
    files = {
        "tokenizer_config.json": json.dumps(_tokenizer_config(predictor), indent=1) + "\n",
        "README.md": card(predictor.config, results, by_script=by_script),
    }
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")


def with_special_tokens(tokenizer: str, lead: bool) -> str:
    """A tokeniser's JSON with [CLS] before each text (lead), or [EOS] after it, for programs that ask for special
    tokens; minitx puts them there itself."""
    inner = tokenizers.Tokenizer.from_str(tokenizer)
    name, number = (RESERVED[CLS], CLS) if lead else (RESERVED[EOS], EOS)
    template = ["$A:0"]
    template.insert(0 if lead else 1, f"S{number}:0")
    special = {"id": f"S{number}", "ids": [number], "tokens": [name]}
    stored = json.loads(tokenizer)
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=[special])
    stored["post_processor"] = json.loads(inner.to_str())["post_processor"]
    return json.dumps(stored, ensure_ascii=False)


def _tokenizer_config(predictor: Predictor) -> dict[str, Any]:
    """For `transformers.PreTrainedTokenizerFast`. Special tokens have names that no text can spell."""
    names = {f"{token[1:-1].lower()}_token": RESERVED[i] for i, token in enumerate(SPECIAL_TOKENS)}
    side = {"head": "right", "tail": "left"}.get(predictor.processor.truncate, "right")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "model_max_length": predictor.processor.max_length,
        "truncation_side": side,
        "padding_side": "right",
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }


def _without_places(config: Config) -> dict[str, Any]:
    """The configuration as plain mappings without paths of the machine; of the data's own path its last part stays."""
    tree, default = config.model_dump(mode="json"), Config().model_dump(mode="json")
    for key in keys_with_role(Config, "place"):
        section, _, name = key.rpartition(".")
        there, usual = tree, default
        for part in section.split(".") if section else ():
            there, usual = there.get(part) or {}, usual.get(part) or {}
        if name in there:
            value = there[name]
            there[name] = Path(value).name if key == "data.path" and value is not None else usual.get(name)
    return tree


def card(config: Config, results: Mapping[str, Any], *, by_script: bool = False) -> str:
    """The README of an exported folder, made from the configuration and results.json."""
    metrics = results.get("metrics", {}).get("test", {})
    rows = [f"| {name} | {one['value']:.4f} | {_interval(one)} |" for name, one in metrics.items()]
    table = ["| test | value | 95 % interval |", "|---|---|---|", *rows] if rows else ["No results were stored."]
    facts = [
        f"- data: `{config.data.name}`, {results.get('n_train', '?')} training rows",
        f"- model: {config.model.kind}, {results.get('n_params', '?')} parameters, seed {results.get('seed', '?')}",
        f"- trained: {results.get('steps', '?')} steps, {results.get('seconds', '?')} s, {results.get('device', '?')}",
        f"- versions: {', '.join(f'{name} {version}' for name, version in results.get('versions', {}).items())}",
    ]
    use = ["```python", "import minitx", 'minitx.load("THIS_FOLDER").predict(["a text"])', "```"]
    if by_script:
        use += ["", "or, without minitx,", "", "```", 'python run.py "a text"', "```"]
    licence = "The data's licence holds for what was learnt from it; add it here before you publish this folder."
    title = f"# {config.model.kind} on {config.data.name}"
    blocks = [[title], ["Made by minitx."], facts, table, use, [licence]]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _interval(metric: Mapping[str, Any]) -> str:
    low, high = metric.get("ci95") or (None, None)
    return "" if low is None else f"[{low:.4f}, {high:.4f}]"


def push(folder: Path, name: str) -> str:
    """Upload an exported folder to the hub as `user/name`; returns its address.

    Raises:
        RunError: the hub cannot be reached, or does not take it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api = HfApi()
        address = api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except (HfHubHTTPError, OSError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise RunError(f"{folder} is written, but not uploaded as {name} ({line}); see huggingface-cli login") from None
    return str(address)
