"""The ids of a part, prepared once before anybody is timed, and what they look like."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from minitx.bench.job import Job
from minitx.bench.ours import batch_budget
from minitx.bench.workloads import load_split


def data(job: Job) -> dict[str, Any]:
    """Rows, deciles of the lengths, the token budget of who has one, and a digest: contestants rebuild these ids."""
    split = load_split(job.size, job.ids)
    sides = {"src": split.src} if split.tgt is None else {"src": split.src, "tgt": split.tgt}
    deciles = np.linspace(0, 1, 11)
    digest = hashlib.sha256()
    for side in sides.values():
        digest.update(np.ascontiguousarray(side.flat).tobytes())
    return {
        "source": job.ids.source,
        "rows": len(split),
        "mean_length": {name: float(side.lengths.mean()) for name, side in sides.items()},
        "deciles": {name: np.quantile(side.lengths, deciles).tolist() for name, side in sides.items()},
        "batch_tokens": batch_budget(job, split),
        "sha256": digest.hexdigest()[:16],
    }
