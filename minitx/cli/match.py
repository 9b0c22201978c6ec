"""`minitx match`: a model of another kind in the size of a run, as overrides that can be pasted."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.cli.shared import Commands, add_command
from minitx.errors import ConfigError

if TYPE_CHECKING:
    from minitx.config import Config, NetConfig
    from minitx.nn.sizes import ModelShape


def add_parser(commands: Commands) -> None:
    """Register the command and its options."""
    summary = "the inner width at which another model has the size of a run"
    parser = add_command(commands, "match", run, summary, "minitx match cnn --like RUN model.n_layers=4")
    parser.add_argument("model", metavar="MODEL", help="transformer, cnn or lstm")
    parser.add_argument("--like", required=True, type=Path, metavar="RUN", help="a run folder, or a config.yaml")
    parser.add_argument("overrides", nargs="*", help="other keys of MODEL, e.g. model.n_layers=4")


def run(options: argparse.Namespace) -> None:
    """The overrides on one line, and on the next, as a comment, both sizes."""
    found = match_run(options.model, options.like, options.overrides)
    print(" ".join(found.overrides))
    sizes = f"{found.size:,} non-embedding parameters, {found.target:,} in {options.like}"
    print(f"# {sizes}: {100 * found.difference:+.2f} %")


@dataclass(frozen=True, kw_only=True)
class Matched:
    """A model in the size of another."""

    model: NetConfig
    overrides: tuple[str, ...]
    """`model=cnn`, `model.d_model=128`, ... for `python train.py`."""
    size: int
    target: int

    @property
    def difference(self) -> float:
        """Relative to the target."""
        return (self.size - self.target) / self.target


def match_run(kind: str, like: Path, overrides: Sequence[str] = ()) -> Matched:
    """A model of `kind` in the size of the one in `like`, a run folder or a resolved configuration (a YAML file).

    overrides: `model.*` keys of the new model; a key not given has its default, `model.d_model` that of the other.

    Raises:
        ConfigError: kind is unknown or cannot be matched, an override is none of the model, or no width comes near.
    """
    from minitx.config import MODELS, NetConfig, rule
    from minitx.config.load import override_tree
    from minitx.nn.sizes import match, no_width, size_of

    section = MODELS.get(kind)
    if section is None:
        raise rule("MODEL", kind, f"be one of {', '.join(MODELS)}")
    inner = getattr(section, "INNER", None)
    if inner is None:
        raise no_width(kind)
    fixed = [
        o for o in overrides if not o.startswith("model.") or o.split("=")[0] in ("model.d_model", f"model.{inner}")
    ]
    if fixed:
        must = f"be a key of the model other than model.d_model (that of {like}) and model.{inner} (which is sought)"
        raise ConfigError(f"{fixed[0]} must {must}; e.g. model.n_layers=2")
    config, shape = _read(like)
    if not isinstance(config.model, NetConfig):
        raise rule("--like", like, f"be of a net, because model={config.model.kind} has no width to share")
    tree = {**config.model_dump(mode="json"), "model": {"kind": kind, "d_model": config.model.d_model}}
    wanted = override_tree(tree, overrides).model
    assert isinstance(wanted, NetConfig), "model.kind is what was asked for"
    target = size_of(config.model, shape)
    found = match(wanted, shape, target)
    return Matched(model=found, overrides=_spelled(kind, found, overrides), size=size_of(found, shape), target=target)


def _read(like: Path) -> tuple[Config, ModelShape]:
    """Configuration and shape: from a checkpoint where there is one, else from the data."""
    import yaml

    from minitx.config import NetConfig, rule
    from minitx.config.load import load
    from minitx.data import load_data
    from minitx.training.run_folder import RunFolder
    from minitx.training.saver import load_model
    from minitx.training.trainer import model_shape

    if like.is_file():
        try:
            tree = yaml.safe_load(like.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            tree = None
        if not isinstance(tree, dict):
            raise rule("--like", like, "be a run folder or the config.yaml of one")
        config = load(tree)
        return config, model_shape(config, load_data(config.data))
    folder = RunFolder(like)
    config = folder.read_config("--like")
    if isinstance(config.model, NetConfig) and folder.has_checkpoint():
        shape = load_model(folder, "last").shape
        assert shape is not None, "of a net"
        return config, shape
    return config, model_shape(config, load_data(config.data))


def _spelled(kind: str, model: NetConfig, overrides: Sequence[str]) -> tuple[str, ...]:
    """Every key that the size depends on, for a recipe may set them otherwise, then what else was asked for."""
    from minitx.config.base import keys_with_role
    from minitx.config.load import flat

    values = flat(model.model_dump(mode="json"))
    spelled = tuple(f"model.{key}={_word(values[key])}" for key in keys_with_role(type(model), "size", "head"))
    named = {text.split("=")[0] for text in spelled}
    return (f"model={kind}", *spelled, *(o for o in overrides if o.split("=")[0] not in named))


def _word(value: object) -> str:
    """A value as it is typed on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
