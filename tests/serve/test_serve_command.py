"""`minitx serve` as a user types it, and the load test in short."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tiny import ROOT

from minitx.cli import main
from minitx.errors import RunError
from minitx.serve import load_test
from minitx.serve.load_requests import KINDS, requests


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["serve", *map(str, arguments)])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_taken_port_is_one_line(translator_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert error_of(capsys, translator_run, "--port", port) == (
            f"--port ({port}) must be free for a server on 127.0.0.1 (address already in use); "
            "end the other program or choose another port, 0 = any that is free\n"
        )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--port", "70000"], "--port (70000) must lie between 0 and 65535"),
        (["--host", "no.such.host.invalid"], "--host (no.such.host.invalid) must be an address of this machine"),
        (["--timeout", "0"], "argument --timeout: '0' must be a number of seconds above 0"),
        (["--max-bytes", "x"], "argument --max-bytes: 'x' must be a whole number"),
    ],
)
def test_wrong_options(
    translator_run: Path, arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error in error_of(capsys, translator_run, *arguments).splitlines()[-1]


def test_without_the_extra(
    translator_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("minitx.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)  # as if it were not there
    assert error_of(capsys, translator_run) == (
        "serve needs fastapi, which is not installed; pip install 'minitx[serve]'\n"
    )


def test_it_serves_until_ctrl_c(translator_run: Path) -> None:
    command = [sys.executable, "-m", "minitx.cli", "serve", str(translator_run), "a <b>", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            url, schema = (process.stdout.readline().split()[0] for _ in range(2))
            with urllib.request.urlopen(url, timeout=60) as answer:
                page = answer.read().decode()
            with urllib.request.urlopen(schema, timeout=60) as answer:
                assert json.load(answer)["info"]["title"] == "minitx: run"
            assert "a &lt;b&gt;</textarea>" in page
            with socket.create_connection(("127.0.0.1", int(url.split(":")[2].strip("/"))), timeout=60) as idle:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
                assert idle.recv(9) == b""
        finally:
            process.kill()
        assert (process.returncode, out, err) == (0, "", "")


def test_the_load_test_has_all_kinds_of_requests() -> None:
    made = requests(1000)
    assert len(made) == 1000 and {kind.make for kind, _ in made} == {kind.make for kind in KINDS}
    assert [steps for _, steps in made] == [steps for _, steps in requests(1000)]
    assert {kind.make for kind, _ in requests(50)} == {kind.make for kind in KINDS}


@pytest.mark.slow
def test_every_request_of_many_clients_is_answered(translator_run: Path, tmp_path: Path) -> None:
    """The load test in short; whole: `python -m minitx.serve.load_test RUN`."""
    errors = tmp_path / "errors.txt"
    found = load_test.load_test(translator_run, errors, n_requests=97, n_clients=16, n_texts=23, seconds=10.0)
    assert found["requests"] == 97 and found["exit_code"] == 0
    assert (found["unanswered"], found["wrong_status"], found["tracebacks"]) == (0, 0, 0), found["kinds"]
    assert errors.read_text() == ""
    assert all(speed["texts_per_second"] > 0 for speed in found["speed"].values()) and len(found["speed"]) == 4


def test_the_load_test_sees_what_is_wrong() -> None:
    [predict, *_] = KINDS
    wanted = [(predict, [b""])] * 3
    answered = [load_test.Exchange(status, b"", 0.1) for status in (200, None, 500)]
    found = load_test.count_answers(wanted, answered)
    assert (found["unanswered"], found["wrong_status"]) == (1, 2)


def test_the_load_test_of_no_run(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match=r"did not start: run \(.* must be a run folder"),
        load_test.running(tmp_path, tmp_path / "e.txt", 1.0),
    ):
        pass
