"""`python hold_timing_lock.py train|time`: begins a cell as soon as it may, prints so, and runs for ever."""

from __future__ import annotations

import sys
import time

from minitx.sweeps.machine import TimingLock


def main() -> None:
    training = sys.argv[1] == "train"
    with TimingLock() as lock:
        print("asks", flush=True)
        while not lock.admits(training=training, idle=True):
            time.sleep(0.01)
        print("works", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main()
