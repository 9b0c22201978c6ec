"""`minitx serve`: a run behind HTTP, as a page to type texts into and as JSON."""

from __future__ import annotations

import argparse

from minitx.cli.shared import Commands, add_command, add_run_options, count, load_predictor, print_lines
from minitx.errors import ConfigError

NEEDED = ("fastapi", "starlette", "uvicorn", "h11")


def add_parser(commands: Commands) -> None:
    """Register the command and its options."""
    summary = "a page that shows predictions and attention as you type, and JSON for programs"
    parser = add_command(commands, "serve", run, summary, "minitx serve RUN --port 8000")
    add_run_options(parser, decoding=True)
    parser.add_argument("text", nargs="?", default="", help="what the page shows first")
    where = "an address of this machine (default 127.0.0.1: this machine alone; 0.0.0.0: the network, unprotected)"
    parser.add_argument("--host", default="127.0.0.1", help=where)
    parser.add_argument("--port", type=int, default=8000, help="default 8000; 0 = any that is free")
    parser.add_argument("--timeout", type=seconds, default=30.0, metavar="SECONDS", help="for a request (default 30)")
    parser.add_argument("--max-bytes", type=count, default=1 << 20, metavar="N", help="of a request (default 1 MiB)")


def run(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    try:
        from minitx.serve.app import make_app
        from minitx.serve.limits import LOCAL_HOSTS, Limits
        from minitx.serve.server import address, listen, serve
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise ConfigError(f"serve needs {error.name}, which is not installed; pip install 'minitx[serve]'") from None
    from minitx.training.device import prepare_process

    with listen(options.host, options.port) as sock:
        predictor = load_predictor(options)
        predictor.check_predicts()
        trainer, limits = predictor.config.trainer, Limits(seconds=options.timeout, body_bytes=options.max_bytes)
        app = make_app(
            predictor,
            limits,
            local=options.host in (*LOCAL_HOSTS, "::1"),
            example=options.text,
            # Some settings are of a thread, and the model computes in one of its own.
            prepare=lambda: prepare_process(trainer.speed, predictor.device, trainer.threads),
        )
        url = address(sock)
        print_lines([f"{url}  the page; Ctrl-C ends the server", f"{url}openapi.json  for programs"])
        serve(app, sock, limits)


def seconds(text: str) -> float:
    """An argument that must be a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds above 0")
    return value
