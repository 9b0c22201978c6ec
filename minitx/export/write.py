"""`minitx export`: a run as a folder that other programs read.

Every folder holds the weights (safetensors), config.yaml, the tokenisers with their special tokens named, and a card
made from the run's results; `minitx.load` takes it in place of the run. Beside that lies what the form asks for:

| form    | of           | files                                                                             |
|---------|--------------|-----------------------------------------------------------------------------------|
| `hub`   | every run    | no more                                                                           |
| `torch` | nets         | torch.export programs: model.pt2, or of a translator encoder.pt2 and step.pt2     |
| `onnx`  | nets         | the same for ONNX, and run.py, which needs onnxruntime and tokenizers alone       |
| `numpy` | model=linear | model.npz, and run.py, which needs numpy alone                                    |
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minitx.config import LinearConfig, rule
from minitx.decoding.text import LinearTextModel
from minitx.errors import RunError
from minitx.export.classifier import export_classifier
from minitx.export.hub import write_hub
from minitx.export.programs import TOLERANCE, check_onnx
from minitx.export.translator import export_translator
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator
from minitx.predictor import Predictor

Form = Literal["hub", "torch", "onnx", "numpy"]
ARRAYS, RUN_SCRIPT, SIGNATURE = "model.npz", "run.py", "signature.json"
HUB_TAKES_ALL = "--to hub takes every run"


def export_run(run: Path, out: Path, form: Form = "hub", device: str = "cpu") -> list[Path]:
    """Write a run's best weights into the folder `out`, which is complete or absent; returns what was written.

    Raises:
        ConfigError: the folder is no run, `out` is not empty, or the model has no such form.
        RunError: the exported program does not say what the run says.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise rule("--output", out, "be a new folder", "name another")
    predictor = Predictor.from_run(run, device)
    if form == "onnx":
        check_onnx()
    try:
        with _complete(out) as folder:
            write_hub(predictor, folder, by_script=form in ("onnx", "numpy"))
            if form != "hub":
                _write_form(predictor, folder, form)
    except OSError as error:
        raise rule("--output", out, f"be a folder that can be written ({error.strerror})") from None
    return sorted(out.iterdir())


@contextmanager
def _complete(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place in the end; an error removes it."""
    beside = out.absolute().with_name(f".{out.absolute().name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        if out.exists():
            out.rmdir()
        beside.rename(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_form(predictor: Predictor, folder: Path, form: Literal["torch", "onnx", "numpy"]) -> None:
    """What lies beside the hub's files.

    Raises:
        ConfigError: the model has no such form.
        RunError: what was written does not say what the run says.
    """
    if form == "numpy":
        signature = _write_arrays(predictor, folder)
    else:
        remedy = "--to numpy is for model=linear" if predictor.config.model.kind == "linear" else HUB_TAKES_ALL
        [model] = predictor.nets("be a run of a net to be exported so", remedy).models
        if isinstance(model, Classifier):
            signature = export_classifier(model, predictor, folder, form)
        elif isinstance(model, Translator):
            signature = export_translator(model, predictor, folder, form)
        else:
            must = f"be a classifier or a translator, its task is {predictor.processor.task}"
            raise rule("RUN", predictor.folder.path, must, HUB_TAKES_ALL)
    text = json.dumps(signature, indent=1, ensure_ascii=False) + "\n"
    (folder / SIGNATURE).write_text(text, encoding="utf-8")
    if form != "torch":
        script = "run_arrays.py" if form == "numpy" else "run_onnx.py"
        shutil.copyfile(Path(__file__).with_name(script), folder / RUN_SCRIPT)
    if form == "numpy":
        _check_script(predictor, folder)


def _write_arrays(predictor: Predictor, folder: Path) -> dict[str, Any]:
    """A linear model's numbers; its n-grams lie in vocabulary.json already.

    Raises:
        ConfigError: it is a net.
    """
    if not isinstance(predictor.text_model, LinearTextModel):
        raise rule("RUN", predictor.folder.path, "be of model=linear", "--to torch and --to onnx are for nets")
    config = predictor.config.model
    assert isinstance(config, LinearConfig)
    arrays = {name: tensor.numpy() for name, tensor in predictor.text_model.model.tensors().items()}
    np.savez_compressed(folder / ARRAYS, allow_pickle=False, **arrays)
    return {
        "labels": list(predictor.processor.label_names or ()),
        "ngrams": config.ngrams,
        "sublinear": config.sublinear,
    }


def _check_script(predictor: Predictor, folder: Path) -> None:
    """That the folder's script gives the run's probabilities, for texts of the run's own words.

    Raises:
        RunError: it does not.
    """
    import runpy

    assert isinstance(predictor.text_model, LinearTextModel)
    model = predictor.text_model.model
    rng = np.random.default_rng(0)
    texts = ["", *(" ".join(rng.choice(model.ngrams.vocabulary, n)).title() for n in (1, 2, 5, 13, 64))]
    found = runpy.run_path(str(folder / RUN_SCRIPT))["classify"](texts)
    difference = float(np.abs(found - np.exp(model.log_probs(texts))).max())
    if not difference <= TOLERANCE:
        raise RunError(f"the exported arrays differ by {difference:.1e} from the run; please report it")
