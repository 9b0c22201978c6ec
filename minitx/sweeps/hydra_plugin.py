"""What minitx adds to Hydra: the name of a run's folder, errors in one line, and a sweeper that can be killed.

With `train.py` the only file that knows Hydra.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from minitx.config import Config, rule
from minitx.config.base import dotted_keys
from minitx.config.load import load, override, unknown_key
from minitx.errors import ConfigError, RunError
from minitx.sweeps.cells import Cell
from minitx.sweeps.executor import InThisProcess
from minitx.sweeps.sweep import run_sweep, sweep_name

AROUND = ("hydra", "study")
"""Nodes around a run's configuration, of which its result does not depend."""
STUDIES = Path("outputs/studies")
AUTO_SWEEP_DIR = "outputs/sweeps/auto"


# --------------------------------------------------------------------------------------------------- configuration


def config_of(raw: DictConfig) -> Config:
    """Type what Hydra composed of a run."""
    tree = OmegaConf.to_container(OmegaConf.masked_copy(raw, [str(k) for k in raw if k not in AROUND]), resolve=True)
    assert isinstance(tree, dict)
    return load({str(k): v for k, v in tree.items()})


def continued(run: str, overrides: Sequence[str]) -> Config:
    """The configuration of an earlier run with the typed overrides on top.

    Raises:
        ConfigError: there is no such run, or a group (`data=...`) was typed, which only the run itself can say.
    """
    from minitx.training.run_folder import RunFolder

    groups = [o for o in overrides if "." not in o.split("=", 1)[0] and not o.startswith("seed=")]
    if groups:
        raise ConfigError(
            f"{groups[0]} must not be given with trainer.resume, because {run}/config.yaml says it; drop it"
        )
    kept = [o for o in overrides if not o.startswith("trainer.resume=")]
    return override(RunFolder(Path(run)).read_config("trainer.resume"), [*kept, "trainer.resume=auto"])


def with_data(arguments: Sequence[str], conf: Path) -> list[str]:
    """`experiment=NAME` also means what NAME has for the model, and alone `data=NAME`, where there is such a set.

    Hydra lets an experiment choose its data, but not one that is itself chosen by the data, as conf/config.yaml has it.
    conf: the folder of configurations.
    """
    place = next((i for i, argument in enumerate(arguments) if argument.startswith("experiment=")), None)
    if place is None:
        return list(arguments)
    names = arguments[place].partition("=")[2].split(",")
    recipes = sorted(path.stem for path in (conf / "experiment").glob("*.yaml"))
    for name in names:  # Hydra would leave an unknown one out: it is optional, where it goes by the data
        if name not in recipes:
            raise rule("experiment", name, "name a file of conf/experiment", f"there are {', '.join(recipes)}")
    model_recipe = "experiment@_global_=${experiment}/${model}"
    continued = {argument for argument in arguments if argument.startswith("trainer.resume=")} - {"trainer.resume=auto"}
    if continued:
        return list(arguments)
    if any(argument.startswith("data=") for argument in arguments):
        return [*arguments[: place + 1], model_recipe, *arguments[place + 1 :]]
    if len(names) > 1:
        raise rule("data", "not given", "be named where several experiments are swept", "add data=NAME")
    known = (conf / "data" / f"{names[0]}.yaml").is_file()
    return [
        *arguments[:place],
        *([f"data={names[0]}"] if known else []),
        arguments[place],
        model_recipe,
        *arguments[place + 1 :],
    ]


def default_run_dir(root: DictConfig) -> str:
    """`outputs/runs/<date>/<time>-<data>-<model>-s<seed>-<hash>`, or the folder of the run to be continued.

    Types the configuration on the way, so that a mistake in it ends here, before any folder is made.
    """
    resume = root.trainer.resume
    if resume not in (None, "auto"):
        return str(resume)
    config = config_of(root)
    now = datetime.now()
    name = f"{now:%H-%M-%S}-{config.data.name}-{config.model.kind}-s{config.seed}-{identify(config)}"
    return f"outputs/runs/{now:%Y-%m-%d}/{name}"


def identify(config: Config) -> str:
    """The run's hash on this machine."""
    from minitx.data import identify_source
    from minitx.training.device import resolve_compute
    from minitx.training.run_folder import run_hash

    compute = resolve_compute(config.trainer)
    return run_hash(config, identify_source(config.data), compute.device.type, compute.precision)


# ---------------------------------------------------------------------------------------------------------- errors


def one_line(error: BaseException) -> tuple[str | None, int]:
    """(line, exit code) of an error that is shown in one line; (None, 1) for one that needs its traceback."""
    for cause in _chain(error):
        if isinstance(cause, ConfigError | RunError):
            return str(cause), cause.exit_code
        line = _composition_line(cause)
        if line is not None:
            return line, ConfigError.exit_code
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
        return (
            f"{group} ({choice}) must be one of {', '.join(o for o in error.options or () if not o.startswith('base'))}"
        )
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


RunStudy = Callable[
    [dict[str, Any], Path, Path, Callable[[Sequence[str]], Config], Callable[[Config], str], Sequence[str]], None
]
"""(the `study` node, folder of studies, folder of tuning records, overrides -> configuration, configuration -> hash,
what was typed): runs a study. It is given from above, because sweeps lie below studies."""


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
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
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
        return run_sweep(cells, folder, swept, InThisProcess(self._launch) if self._workers == 1 else self._workers)

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
        node = {str(key): value for key, value in study.items()}
        type(self).run_study(node, STUDIES, self._conf / "study" / "tuned", self._as_typed, identify, typed)

    @property
    def _conf(self) -> Path:
        """The folder of configurations."""
        main = next(s.path for s in self._composed.hydra.runtime.config_sources if s.provider == "main")
        return Path(main.removeprefix("file://"))

    def _as_typed(self, overrides: Sequence[str]) -> Config:
        """What `python train.py` makes of these, `experiment=` with all that goes with it."""
        return self._compose(with_data(overrides, self._conf))

    def _compose(self, overrides: Sequence[str]) -> Config:
        return config_of(self._context.config_loader.load_sweep_config(self._composed, list(overrides)))

    def _cell(self, overrides: Sequence[str], swept: Sequence[str]) -> Cell:
        values = {key: value for key, _, value in (o.partition("=") for o in overrides) if key in swept}
        try:
            config = self._compose(overrides)
            if config.trainer.resume is not None:
                raise rule(
                    "trainer.resume", config.trainer.resume, "be null in a sweep", "its cells resume by themselves"
                )
            return Cell(overrides=tuple(overrides), values=values, config=config, hash=identify(config))
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


def register_sweeper(run_study: RunStudy) -> None:
    """Make the sweeper known as `hydra_plugins.minitx.ResumableSweeper`: Hydra takes plugins from that package alone,
    which this project, with its one package, does not install."""
    ResumableSweeper.run_study = staticmethod(run_study)
    ResumableSweeper.__module__ = "hydra_plugins.minitx"
    plugins = Plugins.instance()  # first, for it looks into a real `hydra_plugins` package where others installed one
    package = sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins"))
    module = sys.modules.setdefault("hydra_plugins.minitx", ModuleType("hydra_plugins.minitx"))
    vars(module)["ResumableSweeper"] = ResumableSweeper
    vars(package)["minitx"] = module
    plugins.register(ResumableSweeper)
