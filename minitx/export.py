"""A trained run as something that other programs read: a folder for the hub, a torch.export program, an ONNX model.

Every folder holds the weights (safetensors), config.yaml, the tokenisers with their special tokens named, and a card
made from the run's results; `minitx.load` takes it in place of the run. An ONNX folder also holds run.py, which
classifies with onnxruntime and tokenizers alone.

Letters in shapes: B rows, S tokens, C classes.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
import torch
import yaml
from tokenizers import processors
from torch import Tensor, nn

from minitx.batch import CLS, EOS, PAD, SPECIAL_TOKENS, Batch
from minitx.config import BagConfig, CnnConfig, Config, TransformerConfig, rule
from minitx.config.base import keys_with_role
from minitx.data.pipeline.tokenizer import RESERVED
from minitx.errors import RunError
from minitx.nn.classifier import Classifier
from minitx.predictor import Predictor
from minitx.training.checkpoint import Checkpoint, write_checkpoint
from minitx.training.saving import TARGET_TOKENIZER, TOKENIZER, read_checkpoint

Form = Literal["hub", "torch", "onnx"]
PROGRAM, ONNX_MODEL, RUN_SCRIPT, SIGNATURE = "model.pt2", "model.onnx", "run.py", "signature.json"
LEAST_TOKENS = 8
"""Tokens that a text is padded to at least: exported programs have no special cases for shorter ones."""
TOLERANCE = 1e-5
"""Largest difference of a probability between an exported program and the run."""
CHECKED = ((1, 8), (2, 11), (7, 19), (13, 8))
"""(B, S) at which an export is compared with the run; none is the shape that it was traced with."""


def export_run(run: Path, out: Path, form: Form = "hub", device: str = "cpu") -> list[Path]:
    """Write a run's best weights into the folder `out`; returns what was written.

    Raises:
        ConfigError: the folder is no run, `out` is not empty, or the model has no such form.
        RunError: the exported program does not say what the run says.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise rule("--output", out, "be a new folder", "name another")
    predictor = Predictor.from_run(run, device)
    if form == "onnx":
        _check_onnx()
    program = None if form == "hub" else traced(predictor)  # before anything is written: it may be refused
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_hub(predictor, out)
        if program is not None:
            _write_program(program, predictor, out, form)
    except OSError as error:
        raise rule("--output", out, f"be a folder that can be written ({error.strerror})") from None
    return sorted(out.iterdir())


# --------------------------------------------------------------------------------------------------------- hub folder


def _write_hub(predictor: Predictor, out: Path) -> None:
    checkpoint = read_checkpoint(predictor.folder)
    lead = predictor.processor.task != "translation"
    texts = {
        name: with_special_tokens(text, lead) if name in (TOKENIZER, TARGET_TOKENIZER) else text
        for name, text in checkpoint.texts.items()
    }
    write_checkpoint(out, Checkpoint(tensors=checkpoint.tensors, texts=texts, state=checkpoint.state))
    config = yaml.safe_dump(_without_places(predictor.config), sort_keys=False)
    results = predictor.folder.results() or {}
    files = {
        "config.yaml": config,
        "tokenizer_config.json": json.dumps(_tokenizer_config(predictor), indent=1) + "\n",
        "results.json": json.dumps(results, indent=1, ensure_ascii=False) + "\n",
        "README.md": card(predictor.config, results),
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


def card(config: Config, results: Mapping[str, Any]) -> str:
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
    licence = "The data's licence holds for what was learnt from it; add it here before you publish this folder."
    title = f"# {config.model.kind} on {config.data.name}"
    blocks = [[title], ["Made by minitx."], facts, table, use, [licence]]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _interval(metric: Mapping[str, Any]) -> str:
    low, high = metric.get("ci95") or (None, None)
    return "" if low is None else f"[{low:.4f}, {high:.4f}]"


# ----------------------------------------------------------------------------------------------------------- programs


class Probabilities(nn.Module):
    """Token ids (B, S) int64 and their mask (B, S) bool, True = real token -> probabilities (B, C) float32."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        nothing = ids[:0, 0]
        logits: Tensor = self.model(Batch(rows=nothing, src=ids, src_mask=mask, targets=nothing))
        return logits.float().softmax(-1)


def _check_onnx() -> None:
    """That the optional packages are there.

    Raises:
        ConfigError: names one that is not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise rule("--to", "onnx", f"have {missing[0]} installed", "pip install 'minitx[export]'")


def traced(predictor: Predictor) -> torch.export.ExportedProgram:
    """A classifier as a program for any number of rows and tokens, compared with the run.

    Raises:
        ConfigError: the model has no such form.
        RunError: the program does not say what the run says.
    """
    model = _classifier(predictor)
    whole = Probabilities(model).eval()
    rows, tokens = (
        torch.export.Dim("rows", min=1),
        torch.export.Dim("tokens", min=LEAST_TOKENS, max=predictor.processor.max_length),
    )
    ids, mask = _example(predictor, 3, min(13, predictor.processor.max_length))
    shapes = {"ids": {0: rows, 1: tokens}, "mask": {0: rows, 1: tokens}}
    with torch.no_grad(), _quiet():
        program = torch.export.export(whole, (ids, mask), dynamic_shapes=shapes)
        run = program.module()
    _compare(predictor, whole, lambda ids, mask: run(ids, mask))
    return program


def _classifier(predictor: Predictor) -> Classifier:
    nets = predictor.nets("be a run of a net to be exported so", "--to hub takes every run")
    [model] = nets.models
    config, remedy = predictor.config.model, "--to hub takes every run"
    if not isinstance(model, Classifier):
        raise rule("RUN", predictor.folder.path, f"be a classifier, its task is {predictor.processor.task}", remedy)
    if not isinstance(config, TransformerConfig | CnnConfig | BagConfig):
        raise rule("RUN", predictor.folder.path, f"be a transformer, cnn or bag, it is {config.kind}", remedy)
    if config.reads_sentences:
        raise rule("RUN", predictor.folder.path, "not read sentences (model.attention.span)", remedy)
    if config.chunk is not None:
        raise rule("RUN", predictor.folder.path, "read texts whole (model.chunk is set)", remedy)
    if predictor.processor.max_length <= LEAST_TOKENS:
        must = f"read more than {LEAST_TOKENS} tokens (data.max_length is {predictor.processor.max_length})"
        raise rule("RUN", predictor.folder.path, must, remedy)
    return model.float().cpu()


def _example(predictor: Predictor, n_rows: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random ids and a mask with padding in every row but the first."""
    rng = np.random.default_rng((seed, n_rows, length))
    ids = rng.integers(len(SPECIAL_TOKENS), predictor.processor.src_tokenizer.vocab_size, (n_rows, length))
    ids[:, 0] = CLS
    lengths = np.array([length, *rng.integers(1, length + 1, n_rows - 1)])
    mask = np.arange(length) < lengths[:, None]
    return torch.from_numpy(np.where(mask, ids, PAD)), torch.from_numpy(mask)


def _compare(predictor: Predictor, whole: nn.Module, program: Callable[[Tensor, Tensor], Tensor]) -> None:
    """That a program gives what the model gives, at other shapes than it was made with."""
    for n_rows, length in (*CHECKED, (3, predictor.processor.max_length)):
        ids, mask = _example(predictor, n_rows, min(length, predictor.processor.max_length), seed=1)
        with torch.no_grad():
            difference = float((program(ids, mask) - whole(ids, mask)).abs().max())
        if not difference <= TOLERANCE:
            shape = f"{n_rows} rows of {length} tokens"
            raise RunError(
                f"the exported program differs by {difference:.1e} from the run on {shape}; please report it"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of what is theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _write_program(program: torch.export.ExportedProgram, predictor: Predictor, out: Path, form: Form) -> None:
    processor = predictor.processor
    signature = {
        "inputs": {"ids": "int64 (rows, tokens)", "mask": "bool (rows, tokens), true = a real token"},
        "output": "float32 (rows, classes): probabilities",
        "labels": list(processor.label_names or ()),
        "max_length": processor.max_length, "truncate": processor.truncate, "least_tokens": LEAST_TOKENS,
        "cls_id": CLS, "pad_id": PAD,
    }  # fmt: skip
    (out / SIGNATURE).write_text(json.dumps(signature, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if form == "torch":
        torch.export.save(program, out / PROGRAM)
        return
    import onnxruntime  # type: ignore[import-untyped]

    with torch.no_grad(), _quiet():
        made = torch.onnx.export(program, dynamo=True, verbose=False)
    assert made is not None, "an exporter that fails raises"
    made.save(str(out / ONNX_MODEL))
    session = onnxruntime.InferenceSession(str(out / ONNX_MODEL), providers=["CPUExecutionProvider"])

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})[0])

    _compare(predictor, Probabilities(_classifier(predictor)).eval(), run)
    (out / RUN_SCRIPT).write_text(SCRIPT, encoding="utf-8")


SCRIPT = '''"""Classify texts with onnxruntime and tokenizers alone: python run.py "a text" "another text"."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

HERE = Path(__file__).parent
SIGNATURE = json.loads((HERE / "signature.json").read_text(encoding="utf-8"))
TOKENIZER = Tokenizer.from_file(str(HERE / "tokenizer.json"))
TOKENIZER.encode_special_tokens = True  # names of special tokens are text where they stand in a text


def ids_of(text):
    ids, room = TOKENIZER.encode(text, add_special_tokens=False).ids, SIGNATURE["max_length"] - 1
    if len(ids) > room:
        head = {"head": room, "tail": 0, "head_tail": -(-room // 4)}[SIGNATURE["truncate"]]
        ids = ids[:head] + ids[len(ids) - room + head :]
    return [SIGNATURE["cls_id"], *ids]


def classify(texts):
    rows = [ids_of(text) for text in texts]
    length = max(SIGNATURE["least_tokens"], *map(len, rows))
    ids = np.array([row + [SIGNATURE["pad_id"]] * (length - len(row)) for row in rows], np.int64)
    mask = np.array([[place < len(row) for place in range(length)] for row in rows])
    session = onnxruntime.InferenceSession(str(HERE / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": ids, "mask": mask})[0]


if __name__ == "__main__":
    for text, probabilities in zip(sys.argv[1:], classify(sys.argv[1:])):
        best = int(probabilities.argmax())
        print(f"{SIGNATURE['labels'][best]}\\t{probabilities[best]:.4f}\\t{text}")
'''


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
