"""Train one run, or sweep many: compose (Hydra) -> type (minitx.config) -> train (minitx.training.run).

    python train.py                                  the embedded default: letters to phonemes
    python train.py data=banking77 model.n_heads=8   any key of minitx/config
    python train.py experiment=multi30k              a recipe on its data
    python train.py -m model.n_heads=1,2,4 seed=0,1  a sweep that skips what is done
    python train.py -m study=head_count              a study of conf/study; `minitx report` then reports on it
    python train.py trainer.resume=RUN               go on where a run was stopped or killed
    torchrun --nproc-per-node 2 train.py trainer.accumulate=2   one run by two processes

Exit codes: 0 done, 1 failed, 2 a mistake in what was asked, 130 / 143 stopped by Ctrl-C / SIGTERM and saved.
"""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from minitx.openmp import bound_waiting

bound_waiting()  # before an import brings torch

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from minitx import distributed
from minitx.config import rule
from minitx.config.load import load
from minitx.studies.run import run_study
from minitx.studies.study import Study, load_study
from minitx.sweeps import hydra_plugin
from minitx.sweeps.recipes import with_recipe
from minitx.training.results import validation_score
from minitx.training.run import run
from minitx.training.run_folder import continued_config

CONF = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(raw: DictConfig) -> dict[str, Any] | float:
    """Train what Hydra composed, one run; a sweep calls this for each of its cells and gets the validation score, which
    Hydra's sweepers for one metric (Optuna's) go by."""
    job = HydraConfig.get()
    is_cell = job.mode == RunMode.MULTIRUN  # then the sweeper reports errors and results
    with nullcontext() if is_cell else hydra_plugin.errors_in_one_line():
        folder, resume = Path(job.runtime.output_dir), raw.trainer.resume
        if raw.study.name is not None and not is_cell:
            raise rule("study", raw.study.name, "be run by -m", f"type python train.py -m study={raw.study.name}")
        if resume in (None, "auto"):
            config = load(hydra_plugin.plain(raw))
        else:
            if Path(resume).resolve() != folder.resolve():
                raise rule("hydra.run.dir", folder, f"be left out with trainer.resume={resume}", "it goes on in place")
            config = continued_config(Path(resume), job.overrides.task)
        here = Path.cwd()
        results = run(config, folder.relative_to(here) if folder.is_relative_to(here) else folder, quiet=is_cell)
        return validation_score(results) if is_cell else results


def register() -> None:
    """Tell Hydra what minitx adds to it."""
    hydra_plugin.register(Study().model_dump(mode="json"), lambda node, *how: run_study(load_study(node), *how))


def entry() -> None:
    """The command line."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra then raises; without, it prints a trace of its own
    register()
    with hydra_plugin.errors_in_one_line():
        distributed.join()
        hydra_plugin.check_overrides(sys.argv[1:], CONF)
        sys.argv[1:] = with_recipe(sys.argv[1:], CONF)
        main()
        distributed.leave()


if __name__ == "__main__":
    entry()
