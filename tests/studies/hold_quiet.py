"""`python hold_quiet.py train|time`: a process that begins a cell as soon as it may, says so, and works on for ever."""

from __future__ import annotations

import sys
import time

from minitx.studies.quiet import Quiet


def main() -> None:
    training = sys.argv[1] == "train"
    with Quiet() as quiet:
        print("asks", flush=True)
        while not quiet.admits(training=training, idle=True):
            time.sleep(0.01)
        print("works", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main()
