"""The recipes of conf/experiment as Hydra composes them: one file for a data set, with a section for each model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from minitx.config import rule

RECIPES = "experiment"
"""The folder of recipes in conf."""


class RecipeSource(FileConfigSource):
    """conf/experiment as Hydra composes it: NAME is the file NAME.yaml without `models`, NAME/MODEL its `models.MODEL`.

    Where NAME.yaml builds on another recipe, its model's section goes on top of that recipe's section.
    """

    @staticmethod
    def scheme() -> str:
        return "recipes"

    def available(self) -> bool:
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        name, model = _name_and_model(config_path)
        loaded = super().load_config(f"{RECIPES}/{name}")
        assert isinstance(loaded.config, DictConfig)
        sections = loaded.config.pop("models", {})
        if model is not None:
            below = [f"/{RECIPES}/{base}/{model}@_here_" for base in _bases(loaded) if model in self._models(base)]
            loaded.config = OmegaConf.create({"defaults": [*below, "_self_"], **sections.get(model, {})})
        return loaded

    def is_config(self, config_path: str) -> bool:
        name, model = _name_and_model(config_path)
        return self._is_recipe(config_path, name) and (model is None or model in self._models(name))

    def is_group(self, config_path: str) -> bool:
        name, model = _name_and_model(config_path)
        is_file = config_path.endswith(".yaml")
        return config_path == RECIPES or (not is_file and model is None and self._is_recipe(config_path, name))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path == RECIPES:
            return super().list(config_path, results_filter)
        return sorted(self._models(_name_and_model(config_path)[0]))

    def _is_recipe(self, config_path: str, name: str) -> bool:
        return config_path.startswith(f"{RECIPES}/") and super().is_config(f"{RECIPES}/{name}")

    def _models(self, name: str) -> set[str]:
        """The models for which a recipe, or one that it builds on, has a section."""
        loaded = super().load_config(f"{RECIPES}/{name}")
        assert isinstance(loaded.config, DictConfig)
        return {str(kind) for kind in loaded.config.get("models", {})}.union(*map(self._models, _bases(loaded)))


def _bases(loaded: ConfigResult) -> Sequence[str]:
    """The recipes that one builds on."""
    assert isinstance(loaded.config, DictConfig)
    return [str(base) for base in loaded.config.get("defaults", []) if base != "_self_"]


def _name_and_model(config_path: str) -> tuple[str, str | None]:
    name, _, model = config_path.removesuffix(".yaml").removeprefix(f"{RECIPES}/").partition("/")
    return name, model or None


class RecipePath(SearchPathPlugin):
    """Lets Hydra look for recipes by `RecipeSource`, in the folder of configurations that it was given."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        main = next((str(entry.path) for entry in search_path.get_path() if entry.provider == "main"), None)
        if main is not None:
            search_path.prepend("minitx", f"{RecipeSource.scheme()}://{main.removeprefix('file://')}")


def with_recipe(arguments: Sequence[str], conf: Path) -> list[str]:
    """`experiment=NAME` also means what NAME has for the model, and alone `data=NAME`, where there is such a set.

    Hydra lets an experiment choose its data, but not one that is itself chosen by the data, as conf/config.yaml has it.
    conf: the folder of configurations.

    Raises:
        ConfigError: there is no such recipe, or several are swept and no data is named.
    """
    place = next((i for i, argument in enumerate(arguments) if argument.startswith("experiment=")), None)
    resumed = any(a.startswith("trainer.resume=") and a != "trainer.resume=auto" for a in arguments)
    if place is None:
        return list(arguments)
    names = arguments[place].partition("=")[2].split(",")
    recipes = sorted(path.stem for path in (conf / RECIPES).glob("*.yaml"))
    for name in names:  # Hydra would leave an unknown one out: it is optional, where it goes by the data
        if name not in recipes:
            raise rule("experiment", name, "name a file of conf/experiment", f"there are {', '.join(recipes)}")
    if resumed:  # the run's own config.yaml has it all
        return list(arguments)
    named = any(argument.startswith("data=") for argument in arguments)
    if not named and len(names) > 1:
        raise rule("data", "not given", "be named where several experiments are swept", "add data=NAME")
    data = [f"data={names[0]}"] if not named and (conf / "data" / f"{names[0]}.yaml").is_file() else []
    own = "experiment@_global_=${experiment}/${model}"
    return [*arguments[:place], *data, arguments[place], own, *arguments[place + 1 :]]
