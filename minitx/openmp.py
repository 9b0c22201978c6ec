"""How long a thread of OpenMP, by which torch computes on a CPU, waits in a loop for the others before it sleeps."""

from __future__ import annotations

import os

SPINS = "1000"
"""Some 20 to 50 microseconds: longer than the gap between two operations of a step. GNU's OpenMP, which torch's builds
for Linux bring along, waits 300,000 by itself. Where another process has the core of one thread, the others then burn
theirs until it comes back, at every operation: with two threads on two busy cores a step took 1.7 s of processor time,
instead of 0.2.

The default run, two threads, thousand tokens/s by 1,000, 3,000, 10,000 and 300,000 rounds: 21, 22, 23, 23 on idle cores
(3 turns), and 10, 8, 4 by the first three beside a process that takes one core. On a machine of one's own
`GOMP_SPINCOUNT=300000 python train.py` is a tenth faster."""


def bound_waiting() -> None:
    """To be called before torch is loaded, which is when its OpenMP reads this. What the user has set stays."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
