"""`minitx tour`: what it explains is so, in both languages, on a bare terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from string import Formatter

import numpy as np
import pytest
import yaml
from tiny import ROOT

from minitx.predictor import Predictor
from minitx.tour import SHADES, Look, head_looks, most_telling, shaded

TEXTS = yaml.safe_load((ROOT / "minitx" / "tour.yaml").read_text(encoding="utf-8"))


def told(folder: Path, *options: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TERM": "dumb", "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "minitx.cli", "tour", "--seconds", "1", "-o", str(folder), *options]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=env, cwd=folder.parent, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tour") / "run"


@pytest.fixture(scope="module")
def english(folder: Path) -> str:
    done = told(folder, encoding="ascii")
    assert done.returncode == 0, done.stderr
    return done.stdout


def columns(line: str) -> int:
    """On a terminal."""
    return sum(1 if char.isascii() or char in "×“”" else 2 for char in line)


def test_it_fits_a_bare_terminal(english: str, folder: Path) -> None:
    assert english.isascii() and "\x1b" not in english
    prose = [line for line in english.splitlines() if str(folder) not in line]
    assert max(map(columns, prose)) <= 80
    assert "[]" in english and "Q, the query" in english


def test_the_numbers_are_those_of_the_run(english: str, folder: Path) -> None:
    predictor = Predictor.from_run(folder, "cpu")
    accuracy = predictor.folder.results()["metrics"]["test"]["accuracy"]["value"]  # type: ignore[index]
    assert f"reads {100 * accuracy:.0f} in 100 right" in " ".join(english.split())
    [picture] = re.findall(r'minitx inspect \S+ "([\d ]+)"', english)
    shares = [int(share) for share in re.findall(r"share (\d+) %", english)]
    assert len(shares) == 4 and shares == sorted(shares, reverse=True)
    [rest] = re.findall(r"the other 61: (\d+) % together", english)
    assert abs(sum(shares) + int(rest) - 100) <= 3, "rounded"
    row, column = (int(found) for found in re.findall(r"brackets, row (\d), column (\d)", english)[0])
    looks = [look for look in head_looks(predictor, picture) if look.query == 8 * (row - 1) + column]
    assert len(looks) == 2 and any(round(100 * look.weights.max()) == shares[0] for look in looks)


def test_shares_are_the_softmax_of_the_scores(english: str, folder: Path) -> None:
    predictor = Predictor.from_run(folder, "cpu")
    looks = head_looks(predictor, " ".join(str(i % 17) for i in range(64)))
    assert len(looks) == 2 * 65
    for look in looks:
        grown = np.exp(look.scores - look.scores.max())
        np.testing.assert_allclose(look.weights, grown / grown.sum(), atol=1e-6)


def test_a_second_tour_trains_no_more_and_speaks_chinese(english: str, folder: Path) -> None:
    weights = (folder / "checkpoints" / "best" / "model.safetensors").read_bytes()
    done = told(folder, "--language", "zh")
    assert done.returncode == 0 and "自注意力" in done.stdout, done.stderr
    prose = [line for line in done.stdout.splitlines() if str(folder) not in line]
    assert max(map(columns, prose)) <= 80
    assert (folder / "checkpoints" / "best" / "model.safetensors").read_bytes() == weights
    assert re.findall(r"score ([+-][\d.]+)", english) == re.findall(r"分数 ([+-][\d.]+)", done.stdout)


def test_a_terminal_that_cannot_show_chinese_is_told_so(folder: Path) -> None:
    done = told(folder, "--language", "zh", encoding="ascii")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "--language (zh) must be one that this terminal can show (its encoding is ascii)" in done.stderr


def test_both_languages_say_the_same_things() -> None:
    def names(text: str) -> list[str]:
        return sorted(name for _, name, _, _ in Formatter().parse(text) if name)

    assert TEXTS["en"].keys() == TEXTS["zh"].keys()
    for key, text in TEXTS["en"].items():
        assert names(text) == names(TEXTS["zh"][key]), key


def test_a_picture_in_characters() -> None:
    picture = np.zeros((8, 8))
    picture[2, 3], picture[7, 7] = 1.0, 0.5
    lines = shaded(picture, marked=8).splitlines()
    assert len(lines) == 10 and {len(line) for line in lines} == {18}
    assert lines[3] == "|      @@        |" and lines[2].startswith("|[]  ")
    assert lines[8].endswith(2 * SHADES[4] + "|")


def test_the_most_telling_pixel_has_ink_and_looks_at_another() -> None:
    picture = np.zeros((8, 8), int)
    picture[0, :3] = 16

    def look(query: int, key: int, share: float) -> Look:
        weights = np.full(65, (1 - share) / 64)
        weights[key] = share
        return Look(query, np.log(weights), weights, 2)

    pale, itself, right, weak = look(40, 7, 0.99), look(1, 1, 0.98), look(2, 9, 0.9), look(3, 9, 0.5)
    assert most_telling([pale, itself, weak, right], picture) is right
