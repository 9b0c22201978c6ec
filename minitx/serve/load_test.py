"""A load test of `minitx serve`: many clients at once, some of whose requests are slow, wrong, too large or no HTTP.

    python -m minitx.serve.load_test RUN -o serve.json

starts the server, counts what is answered and how, watches its memory, and measures its speed beside the same texts
predicted one by one. Written for Linux; elsewhere memory is not measured.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from minitx.errors import RunError
from minitx.predictor import Predictor
from minitx.serve.load_requests import KINDS, Kind, Step, post, requests, word
from minitx.training.device import cpu_name, prepare_process, usable_cores
from minitx.training.run_folder import write_json

PATIENCE = 60.0
"""Seconds that a client waits for an answer."""


# ------------------------------------------------------------------------------------------------------------- clients


@dataclass(frozen=True)
class Exchange:
    """One request's answer."""

    status: int | None
    """None = there was none."""
    body: bytes
    seconds: float


def exchange(port: int, steps: Sequence[Step]) -> Exchange:
    """Send a request step by step and read the answer to its end. A server may answer and leave before it has all."""
    start, answer = time.perf_counter(), b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        try:
            for step in steps:
                if isinstance(step, float):
                    time.sleep(step)
                else:
                    sock.sendall(step)
        except ConnectionError:
            pass  # its answer may lie there nevertheless
        try:
            while received := sock.recv(1 << 16):
                answer += received
        except (ConnectionError, TimeoutError):
            pass  # counted by what has arrived
    head, _, body = answer.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
    return Exchange(int(found[1]) if found else None, body, time.perf_counter() - start)


def send_all(port: int, wanted: Sequence[tuple[Kind, list[Step]]], n_clients: int) -> list[Exchange]:
    """The answers in order, of `n_clients` who each send one request after the other."""
    with ThreadPoolExecutor(n_clients) as clients:
        return list(clients.map(lambda one: exchange(port, one[1]), wanted))


# -------------------------------------------------------------------------------------------------------------- server


@dataclass(frozen=True)
class Server:
    """A server process."""

    process: subprocess.Popen[str]
    port: int

    def cpu_seconds(self) -> float | None:
        """Used so far; None where the system does not say."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float | None:
        """Resident now; None where the system does not say."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        except OSError:
            return None
        return next(round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmRSS:"))


@contextmanager
def running(run: Path, errors: Path, seconds: float) -> Iterator[Server]:
    """`minitx serve` on a free port, ended as by Ctrl-C. errors: where its error stream goes. seconds: `--timeout`."""
    command = [sys.executable, "-m", "minitx.cli", "serve", str(run), "--port", "0", "--timeout", str(seconds)]
    with (
        errors.open("w", encoding="utf-8") as stream,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            found = re.match(r"http://[^:]+:(\d+)/", process.stdout.readline())
            if found is None:
                process.wait()
                raise RunError(f"minitx serve {run} did not start: {errors.read_text(encoding='utf-8').strip()}")
            server = Server(process, int(found[1]))
            _wait_until_it_answers(server)
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=PATIENCE)


def _wait_until_it_answers(server: Server) -> None:
    [found] = send_all(server.port, [(KINDS[0], [post("/predict", {"texts": ["a"]})])], 1)
    if found.status != 200:
        raise RunError(f"the server's first answer is {found.status}: {found.body[:200]!r}")


@contextmanager
def memory_watched(server: Server, seconds: float = 0.5) -> Iterator[list[float]]:
    """MiB, again and again while the block runs; [] where it cannot be known."""
    found: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(seconds):
            if (now := server.memory_mib()) is not None:
                found.append(now)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


# --------------------------------------------------------------------------------------------------------------- speed


def serve_speed(server: Server, texts: Sequence[str], n_clients: int) -> Speed:
    """Of requests of one text each, by clients who keep their connections."""
    parts, start, cpu = [texts[i::n_clients] for i in range(n_clients)], time.perf_counter(), server.cpu_seconds()

    def client(part: Sequence[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        for text in part:
            body = json.dumps({"texts": [text]})
            connection.request("POST", "/predict", body, {"content-type": "application/json"})
            found = connection.getresponse()
            if found.status != 200:
                raise RunError(f"the server answered {found.status} to a right request: {found.read(200)!r}")
            found.read()
        connection.close()

    with ThreadPoolExecutor(n_clients) as clients:
        list(clients.map(client, parts))
    seconds, cpu_now = time.perf_counter() - start, server.cpu_seconds()
    return speed_of(len(texts), seconds, None if cpu is None or cpu_now is None else cpu_now - cpu)


Speed = dict[str, float | None]


def speed_of(n: int, seconds: float, cpu_seconds: float | None) -> Speed:
    """On a busy machine the second says more: processor time does not depend on what else runs."""
    cpu = None if cpu_seconds is None else round(1000 * cpu_seconds / n, 2)
    return {"texts_per_second": round(n / seconds, 1), "cpu_ms_per_text": cpu}


def alone(run: Path, texts: Sequence[str]) -> dict[str, Speed]:
    """Without a server: one text after the other, and all in one call."""
    predictor = Predictor.from_run(run)
    prepare_process(predictor.config.trainer.speed, predictor.device, predictor.config.trainer.threads)
    predictor.predict(texts[:8])
    calls = {"no server, one by one": [[text] for text in texts], "no server, one call": [[*texts]]}
    found = {}
    for name, parts in calls.items():
        start, cpu = time.perf_counter(), time.process_time()
        for part in parts:
            predictor.predict(part)
        found[name] = speed_of(len(texts), time.perf_counter() - start, time.process_time() - cpu)
    return found


# -------------------------------------------------------------------------------------------------------------- report


def load_test(
    run: Path, errors: Path, *, n_requests: int, n_clients: int, n_texts: int, seconds: float
) -> dict[str, Any]:
    """Everything in a dict for JSON. The same requests are sent twice: memory after the second time is compared with
    that after the first, which grew what a process needs once."""
    wanted, rng = requests(n_requests), random.Random(1)
    texts = [word(rng) for _ in range(n_texts)]
    with running(run, errors, seconds) as server:
        memory = [server.memory_mib()]
        send_all(server.port, wanted, n_clients)
        memory.append(server.memory_mib())
        with memory_watched(server) as watched:
            start = time.perf_counter()
            answered = send_all(server.port, wanted, n_clients)
            taken = time.perf_counter() - start
        memory.append(server.memory_mib())
        speed = {
            "one client": serve_speed(server, texts, 1),
            f"{n_clients} clients": serve_speed(server, texts, n_clients),
        }
    log = errors.read_text(encoding="utf-8")
    return {
        **count_answers(wanted, answered),
        "clients": n_clients,
        "seconds": round(taken, 1),
        "tracebacks": log.count("Traceback") + sum(b"Traceback" in one.body for one in answered),
        "exit_code": server.process.returncode,
        "memory_mib": dict(zip(("at start", "after once", "after twice"), memory, strict=True))
        | {"most": max(watched, default=None)},
        "texts": n_texts,
        "speed": {**alone(run, texts), **speed},
    }


def count_answers(wanted: Sequence[tuple[Kind, list[Step]]], answered: Sequence[Exchange]) -> dict[str, Any]:
    """By kind of request: number, answers by status, and how long they took."""
    by_kind: dict[str, list[Exchange]] = defaultdict(list)
    for (kind, _), found in zip(wanted, answered, strict=True):
        by_kind[kind.make.__name__].append(found)
    right = {kind.make.__name__: kind.right for kind in KINDS}
    return {
        "requests": len(wanted),
        "unanswered": sum(found.status is None for found in answered),
        "wrong_status": sum(one.status not in right[name] for name, found in by_kind.items() for one in found),
        "kinds": {
            name: {
                "requests": len(found),
                "statuses": dict(sorted(Counter(str(one.status) for one in found).items())),
                "median_ms": round(1000 * float(np.median([one.seconds for one in found])), 1),
                "most_ms": round(1000 * max(one.seconds for one in found), 1),
            }
            for name, found in sorted(by_kind.items())
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print where the report is. Exit code 1: a request was unanswered or wrongly answered, or the server failed."""
    parser = argparse.ArgumentParser(
        prog="python -m minitx.serve.load_test", description="Load a server with requests."
    )
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--texts", type=int, default=512, help="for the comparison of speed")
    parser.add_argument("-o", "--output", type=Path, default=Path("serve.json"))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors.txt"
        found = load_test(
            options.run,
            errors,
            n_requests=options.requests,
            n_clients=options.clients,
            n_texts=options.texts,
            seconds=5.0,
        )
    config = Predictor.from_run(options.run).config
    report = {
        "command": f"python -m minitx.serve.load_test RUN --requests {options.requests} --clients {options.clients}",
        "run": {"data": config.data.name, "model": config.model.kind},
        "machine": {
            "cpu": cpu_name(),
            "usable_cores": usable_cores(),
            "load_average": [round(load, 2) for load in os.getloadavg()],
            "niceness": os.nice(0),
            "versions": {name: version(name) for name in ("minitx", "torch", "fastapi", "uvicorn")},
        },
        **found,
    }
    write_json(options.output, report)
    print(options.output)
    if found["unanswered"] or found["wrong_status"] or found["tracebacks"] or found["exit_code"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
