"""`python run_tiny_study.py ROOT CLASSES.json WORKERS STEPS`: the process that a test kills."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from study_helpers import composer, heads, study

from minitx.studies.run import run_study
from minitx.training.run import hash_of


def main() -> None:
    root, classes, workers, steps = sys.argv[1:]
    tier = heads(overrides=[f"trainer.max_steps={steps}", "trainer.eval_every=3"], seeds=[0, 1, 2])
    declared = study(tier, workers=int(workers))
    run_study(declared, Path(root), Path(root) / "tuned", composer(json.loads(classes)), hash_of, [])


if __name__ == "__main__":
    main()
