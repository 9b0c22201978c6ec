"""Train one run, or sweep many: compose (Hydra) -> type (minitx.config) -> build and fit (minitx.training).

    python train.py                                  the embedded default: letters to phonemes
    python train.py data=banking77 model.n_heads=8   any key of minitx/config
    python train.py experiment=multi30k              a recipe on its data
    python train.py -m model.n_heads=1,2,4 seed=0,1  a sweep that skips what is done
    python train.py -m study=head_count              a study of conf/study; `minitx report` then reports on it
    python train.py trainer.resume=RUN               go on where a run was stopped or killed

Exit codes: 0 done, 1 failed, 2 a mistake in what was asked, 130 / 143 stopped by Ctrl-C / SIGTERM and saved.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from minitx.config import MODELS, Config, rule
from minitx.errors import Stopped
from minitx.studies.run import run_study
from minitx.studies.study import Study, load_study
from minitx.sweeps.hydra_plugin import config_of, continued, default_run_dir, one_line, register_sweeper, with_data

CONF = Path(__file__).parent / "conf"


def register() -> None:
    """Hand Hydra the defaults of minitx/config, our sweeper, and the name of a run's folder."""
    sections = Config().model_dump(mode="json")
    store = ConfigStore.instance()
    store.store(name="base", node={"seed": sections.pop("seed")})
    sections.pop("model")
    for kind, model in MODELS.items():
        store.store(group="model", name=f"base_{kind}", node=model().model_dump(mode="json"))
    for group, defaults in sections.items():
        store.store(group=group, name="base", node=defaults)
    store.store(group="study", name="base", node=Study().model_dump(mode="json"))
    register_sweeper(lambda node, *how: run_study(load_study(node), *how))
    OmegaConf.register_new_resolver("minitx.run_dir", lambda *, _root_: default_run_dir(_root_), replace=True)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(raw: DictConfig) -> Any:
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    if job.mode == RunMode.MULTIRUN:  # the sweeper tells what became of each cell
        return train(raw, job.overrides.task, folder, quiet=True)
    with plain_errors():
        if raw.study.name is not None:
            raise rule("study", raw.study.name, "be run by -m", f"type python train.py -m study={raw.study.name}")
        return train(raw, job.overrides.task, folder)


def train(raw: DictConfig, overrides: Sequence[str], folder: Path, quiet: bool = False) -> dict[str, Any]:
    """Type the configuration, then train in `folder`; returns results.json."""
    earlier = raw.trainer.resume if raw.trainer.resume not in (None, "auto") else None
    if earlier and Path(earlier).resolve() != folder.resolve():
        raise rule("hydra.run.dir", folder, f"be left out with trainer.resume={earlier}", "a run goes on in place")
    config = continued(earlier, overrides) if earlier else config_of(raw)

    from minitx.training.run import run

    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return run(config, shown, quiet=quiet)


@contextmanager
def plain_errors() -> Iterator[None]:
    """A user's mistake becomes one line, a stop its exit code; anything else stays a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped outside training; nothing is lost", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        line, code = one_line(error)
        if line is None:
            raise
        print(line, file=sys.stderr)
        sys.exit(code)
    except Stopped as stop:
        sys.exit(stop.exit_code)


def entry() -> None:
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises; without, it prints a trace of its own
    register()
    with plain_errors():
        sys.argv[1:] = with_data(sys.argv[1:], CONF)
        main()


if __name__ == "__main__":
    entry()
