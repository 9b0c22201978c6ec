"""What minitx adds to Hydra: defaults to compose from, a run's folder, errors in one line, and its sweeper.

With `train.py` and `recipes.py` the only file that knows Hydra.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from minitx import distributed
from minitx.config import MODELS, Config, rule
from minitx.config.base import dotted_keys, in_one_line
from minitx.config.load import load, unknown_key
from minitx.errors import ConfigError, RunError, Stopped, memory_line
from minitx.sweeps.cells import Cell
from minitx.sweeps.executor import CellResult, InThisProcess
from minitx.sweeps.launched import MakeLauncher
from minitx.sweeps.recipes import RecipePath, RecipeSource, with_recipe
from minitx.sweeps.sweep import run_sweep, sweep_name
from minitx.training.run import hash_of
from minitx.training.run_folder import default_run_dir

AROUND = ("hydra", "study")
"""Nodes around a run's configuration, of which its result does not depend."""
STUDIES = Path("outputs/studies")
ALL = "all"
"""`study=all`: every study of conf/study."""
HYDRAS_OWN = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
AUTO_SWEEP_DIR = "outputs/sweeps/auto"
RunStudy = Callable[
    [
        dict[str, Any],
        Path,
        Path,
        Callable[[Sequence[str]], Config],
        Callable[[Config], str],
        Sequence[str],
        MakeLauncher | None,
    ],
    None,
]
"""(the `study` node, folder of studies, folder of tuning records, overrides -> configuration, configuration -> hash,
what was typed, a launcher that is not Hydra's own): runs a study. It is given from above, because sweeps lie below
studies."""


def register(study_defaults: Mapping[str, Any], run_study: RunStudy) -> None:
    """Hand Hydra the defaults of minitx/config, the recipes, our sweeper, and the name of a run's folder.

    study_defaults: the node `study` where no study is named.
    """
    sections = Config().model_dump(mode="json")
    store = ConfigStore.instance()
    store.store(name="base", node={"seed": sections.pop("seed")})
    sections.pop("model")
    for kind, model in MODELS.items():
        store.store(group="model", name=f"base_{kind}", node=model().model_dump(mode="json"))
    for group, defaults in (*sections.items(), ("study", dict(study_defaults))):
        store.store(group=group, name="base", node=defaults)
    OmegaConf.register_new_resolver("minitx.run_dir", lambda *, _root_: _run_dir(_root_), replace=True)
    ResumableSweeper.run_study = staticmethod(run_study)
    _register_plugins(ResumableSweeper, RecipeSource, RecipePath)


def _register_plugins(*plugins: type[Any]) -> None:
    """Make them known as `hydra_plugins.minitx.<name>`: Hydra takes plugins from that package alone, which this
    project, with its one package, does not install. Once known, they are called what they are again, so that the
    processes of a launcher find them."""
    known = Plugins.instance()
    for plugin in plugins:
        module, plugin.__module__ = plugin.__module__, "hydra_plugins.minitx"
        known.register(plugin)
        plugin.__module__ = module


def plain(raw: DictConfig) -> dict[str, Any]:
    """What Hydra composed of a run, resolved, without the nodes around it."""
    tree = OmegaConf.to_container(OmegaConf.masked_copy(raw, [str(k) for k in raw if k not in AROUND]), resolve=True)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _run_dir(root: DictConfig) -> str:
    """The folder of a new run, or of the run to be continued.

    Types the configuration on the way, so that a mistake in it ends here, before any folder is made.
    """
    if root.trainer.resume not in (None, "auto"):
        return str(root.trainer.resume)
    config = load(plain(root))
    # One time for all processes of a run, and so one folder.
    return default_run_dir(config, hash_of(config), distributed.current().started or datetime.now())


# ------------------------------------------------------------------------------------------------------- overrides


def check_overrides(arguments: Sequence[str], conf: Path) -> None:
    """What Hydra would answer with a traceback: numbers that no integer holds, and a group without a name; and a
    section that is set as a whole.

    arguments: of the command line; options (`-m`, `--cfg job`) are Hydra's own. conf: the folder of configurations.

    Raises:
        ConfigError: names the override.
    """
    groups = {path.name for path in conf.iterdir() if path.is_dir()} | {"hydra"}
    sections = {name for name in ConfigStore.instance().list("") if not name.endswith(".yaml")} - groups
    parser = OverridesParser.create()
    for typed in arguments:
        if typed.startswith("-") or "=" not in typed:
            continue
        try:
            parsed = parser.parse_override(typed)
        except HydraException:
            continue  # Hydra says it, in its own words or ours
        except (ValueError, RecursionError):
            must = "be a value that can be read"
            raise rule(typed.partition("=")[0], f"{typed.partition('=')[2]:.20}…", must, "it is too long") from None
        group, value = parsed.key_or_group, parsed.value()
        if not group:
            raise rule("override", typed, "be of the form key=value")
        if group in sections:  # Hydra takes it for a group, whose one file is our defaults
            keys = [key for key in dotted_keys(Config) if key.startswith(f"{group}.")]
            must = "be set key by key"
            raise rule(group, typed.partition("=")[2] or "nothing", must, f"its keys are {', '.join(keys)}")
        named = value if isinstance(value, list) else [value]
        if group in groups and not parsed.is_sweep_override() and not all(isinstance(name, str) for name in named):
            names = sorted(path.stem for path in (conf / group).glob("*.yaml") if not path.stem.startswith("base"))
            known = f"be one of {', '.join(names)}" if names else "name a group of Hydra's"
            raise rule(group, typed.partition("=")[2] or "nothing", known)


# ---------------------------------------------------------------------------------------------------------- errors


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """A user's mistake becomes one line and exit code, a stop its exit code; anything else stays a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped outside training; nothing is lost", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        line, code = one_line(error)
        if line is None:
            raise
        if distributed.current().first_to_print(line):
            print(line, file=sys.stderr)
        sys.exit(code)
    except Stopped as stop:
        sys.exit(stop.exit_code)


def one_line(error: BaseException) -> tuple[str | None, int]:
    """(line, exit code) of an error that is shown in one line; (None, 1) for one that needs its traceback."""
    for cause in _chain(error):
        if isinstance(cause, ConfigError | RunError):
            return str(cause), cause.exit_code
        used_up = memory_line(cause)
        if used_up is not None:
            return used_up, RunError.exit_code
        line = _composition_line(cause)
        if line is not None:
            return in_one_line(line), ConfigError.exit_code
    if isinstance(error, HydraException | OmegaConfBaseException):
        return str(error).splitlines()[0], ConfigError.exit_code
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full; free some space, then continue with trainer.resume=RUN (checkpoints are whole)", 1
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used ({error.strerror}); name another folder or free the place", 1
    return None, 1


def _composition_line(error: BaseException) -> str | None:
    """What Hydra found wrong with the overrides, in our own shape."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        there = ", ".join(o for o in error.options or () if not o.startswith("base"))
        more = '; the others come with pip install -e ".[cluster]"' if group == "hydra/launcher" else ""
        return f"{group} ({choice}) must be one of {there}{more}"
    if isinstance(error, OverrideParseException):
        return f"{error.override} must be of the form key=value; quote special characters: 'key=\"...\"'"
    unknown = re.search(r"Could not override '([^']+)'", str(error))
    if unknown and not unknown[1].startswith("model.") and unknown[1] in dotted_keys(Config):
        section, _, key = unknown[1].rpartition(".")
        return f"{section} (null) must be given whole to set {key}; type '+{section}={{{key}:...}}'"
    if unknown and unknown[1].startswith("study."):
        return f"{unknown[1]} is not in conf/study/<study>.yaml; type '+{unknown[1]}=...' to add it"
    return unknown_key(unknown[1]) if unknown else None


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and its causes, the innermost last."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


# --------------------------------------------------------------------------------------------------------- sweeper


def _in_its_folder(work: Callable[[str], CellResult], raw: DictConfig) -> CellResult:
    """A job of a launcher. raw: what Hydra composed, which is not read: a cell has its configuration."""
    return work(HydraConfig.get().runtime.output_dir)


class ResumableSweeper(Sweeper):
    """Runs the product of the swept values, or a study: finished cells are skipped and half-done ones resumed."""

    run_study: ClassVar[RunStudy]

    def __init__(self, workers: int = 1) -> None:
        """workers: trainings at a time; 1 runs them in this process."""
        self._workers = workers

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context = hydra_context
        self._n_launched = 0
        self._composed = config
        self._launcher = self._make_launcher(task_function, config)
        is_hydras_own = config.hydra.launcher._target_ == HYDRAS_OWN
        self._launcher_of_cells = None if is_hydras_own else self._make_launcher_of_cells

    def _make_launcher(self, task: TaskFunction, config: DictConfig) -> Launcher:
        return Plugins.instance().instantiate_launcher(hydra_context=self._context, task_function=task, config=config)

    def _make_launcher_of_cells(self, work: Callable[[str], CellResult], folder: Path) -> Launcher:
        """See `MakeLauncher`."""
        config = self._composed.copy()
        with open_dict(config):
            config.hydra.sweep.dir = str(folder)
        return self._make_launcher(partial(_in_its_folder, work), config)

    def sweep(self, arguments: list[str]) -> Any:
        if (size := distributed.current().size) > 1:
            must = "be left out with several processes, because a sweep or study starts its own"
            raise rule("-m", f"in {size} processes", must, "type python train.py -m ..., or one run for each torchrun")
        parsed = OverridesParser.create(config_loader=self._context.config_loader).parse_overrides(arguments)
        if self._composed.study.name is not None or any(o.get_key_element().split(".")[0] == "study" for o in parsed):
            return self._study(parsed)
        combinations = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
        swept = [o.get_key_element() for o in parsed if o.is_sweep_override()]
        cells = [self._cell(overrides, swept) for overrides in combinations]
        if self._composed.hydra.sweep.dir == AUTO_SWEEP_DIR:
            with open_dict(self._composed):
                self._composed.hydra.sweep.dir = f"outputs/sweeps/{sweep_name(cells, swept)}"
        folder = Path(str(self._composed.hydra.sweep.dir))
        here = InThisProcess(self._launch) if self._workers == 1 else self._workers
        return run_sweep(cells, folder, swept, self._launcher_of_cells or here)

    def _study(self, parsed: Sequence[Override]) -> None:
        """Run a study; what was typed beside `study.*` holds for every cell.

        Raises:
            ConfigError: values are swept, which a study does itself, or no study is named.
        """
        swept = next((str(o.input_line) for o in parsed if o.is_sweep_override()), None)
        if swept is not None:
            key, _, value = swept.partition("=")
            raise rule(key, value, "be one value, because a study has its own", "run one study after the other")
        study = OmegaConf.to_container(self._composed.study, resolve=True)
        assert isinstance(study, dict)
        if study["name"] is None:
            raise rule("study", "none", "be named", "e.g. python train.py -m study=head_count")
        typed = [str(o.input_line) for o in parsed if o.get_key_element() != "study"]
        if study["name"] == ALL:
            self._all(typed)
        else:
            self._one(study, typed)

    def _one(self, study: Mapping[Any, Any], typed: Sequence[str]) -> None:
        node = {str(key): value for key, value in study.items()}
        tuned = self._conf / "study" / "tuned"
        type(self).run_study(node, STUDIES, tuned, self._as_typed, hash_of, typed, self._launcher_of_cells)

    def _all(self, typed: Sequence[str]) -> None:
        """Every study that has the tier, in the order of its claims; one that fails does not end the others.

        Raises:
            SystemExit: 1 when any could not be run or a cell failed; at once when it was stopped.
        """
        failed = []
        for name, study in self._studies(typed).items():
            try:
                self._one(study, typed)
            except ConfigError as error:
                print(f"{name}: {error}", file=sys.stderr)
                failed.append(name)
            except SystemExit as end:
                if end.code != 1:
                    raise
                failed.append(name)
        print(f"all studies together: minitx report {STUDIES}")
        if failed:
            print(f"not finished: {', '.join(failed)}; the same line tries them again", file=sys.stderr)
            raise SystemExit(1)

    def _studies(self, typed: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Name -> node of every study that has the tier, by the order of its claims.

        Raises:
            ConfigError: none has it.
        """
        of_study = [override for override in typed if override.lstrip("+").startswith("study.")]
        found, tier = {}, self._composed.study.tier
        for name in sorted(path.stem for path in (self._conf / "study").glob("*.yaml")):
            loaded = self._context.config_loader.load_sweep_config(self._composed, [f"study={name}", *of_study])
            study = OmegaConf.to_container(loaded.study, resolve=True)
            assert isinstance(study, dict)
            if study["claims"] and study.get(tier) is not None:
                found[name] = {str(key): value for key, value in study.items()}
        if not found:
            raise rule("study.tier", tier, "be one that a study has", "quick or full")
        order = {name: min(claim["order"] for claim in study["claims"].values()) for name, study in found.items()}
        return {name: found[name] for name in sorted(found, key=lambda name: (order[name], name))}

    @property
    def _conf(self) -> Path:
        """The folder of configurations."""
        main = next(s.path for s in self._composed.hydra.runtime.config_sources if s.provider == "main")
        return Path(main.removeprefix("file://"))

    def _as_typed(self, overrides: Sequence[str]) -> Config:
        """What `python train.py` makes of these, `experiment=` with all that goes with it."""
        return self._compose(with_recipe(overrides, self._conf))

    def _compose(self, overrides: Sequence[str]) -> Config:
        return load(plain(self._context.config_loader.load_sweep_config(self._composed, list(overrides))))

    def _cell(self, overrides: Sequence[str], swept: Sequence[str]) -> Cell:
        values = {key: value for key, _, value in (o.partition("=") for o in overrides) if key in swept}
        try:
            config = self._compose(overrides)
            if config.trainer.resume is not None:
                raise rule(
                    "trainer.resume", config.trainer.resume, "be null in a sweep", "its cells resume by themselves"
                )
            return Cell(overrides=tuple(overrides), values=values, config=config, hash=hash_of(config))
        except Exception as error:  # one impossible combination is reported in the table, and does not end the others
            line, _ = one_line(error)
            if line is None:
                raise
            return Cell(overrides=tuple(overrides), values=values, error=line)

    def _launch(self, cell: Cell, path: Path) -> None:
        """Train one cell by Hydra's launcher; what it raises is raised here."""
        place = [f"hydra.sweep.dir={self._composed.hydra.sweep.dir}", f"hydra.sweep.subdir={cell.folder}"]
        overrides = [*cell.overrides, *place, "trainer.resume=auto"]
        (job,) = self._launcher.launch([overrides], initial_job_idx=self._n_launched)
        self._n_launched += 1
        if isinstance(job._return_value, Exception):  # `return_value` would print a line of its own
            raise job._return_value
