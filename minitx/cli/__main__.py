"""`python -m minitx.cli`, the same as `minitx`."""

from minitx.cli import main

if __name__ == "__main__":
    main()
