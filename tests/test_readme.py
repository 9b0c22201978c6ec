"""The README and the pages beside what they describe: commands compose, links lead somewhere, tables are generated."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from tiny import ROOT

import train
from minitx.cli.main import _parse
from minitx.config import Config
from minitx.config.load import load
from minitx.report import results_page
from minitx.sweeps.hydra_plugin import plain
from minitx.sweeps.recipes import with_recipe

PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "data" / "README.md",
        *(ROOT / "minitx").rglob("README*.md"),
        *(ROOT / "conf").rglob("README*.md"),
        *(ROOT / "outputs" / "reference").glob("*.md"),
    ]
)


def commands(program: str) -> list[tuple[Path, str]]:
    """Every line of a code block that starts with `program`, without its comment."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            lines = [line.split("  #")[0].strip() for line in block.splitlines()]
            found += [(page, line) for line in lines if line.startswith(program)]
    return found


def name(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


@pytest.mark.parametrize(("page", "line"), commands("python train.py"), ids=name)
def test_every_training_command_composes(page: Path, line: str) -> None:
    """With the first value of a sweep; Hydra knows every key, and the typed configuration takes every value."""
    words = [word for word in shlex.split(line)[2:] if not word.startswith("-") and word != "job"]
    single = [re.sub(r"=([^,\[]*),.*", r"=\1", word) for word in words]
    train.register()
    with initialize_config_dir(str(train.CONF), version_base="1.3"):
        raw = compose("config", with_recipe([word.replace("RUN", "null") for word in single], train.CONF))
    assert isinstance(load(plain(raw)), Config)


@pytest.mark.parametrize(("page", "line"), commands("minitx"), ids=name)
def test_every_minitx_command_parses(page: Path, line: str) -> None:
    words = shlex.split(re.sub(r"[<|] .*", "", line))
    assert callable(_parse(words[1:]).command)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_generated_tables_are_those_of_the_files() -> None:
    """Every number of a result comes from outputs/reference."""
    reference = ROOT / results_page.REFERENCE
    assert (reference / results_page.PAGE).read_text(encoding="utf-8") == results_page.results_page(reference)
    for path, language in results_page.READMES.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        assert text == results_page.filled(text, reference, language), f"{path}: python -m minitx.report.results_page"


def test_a_changed_digit_is_noticed() -> None:
    reference = ROOT / results_page.REFERENCE
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    changed = re.sub(r"PER (\d)\.", lambda found: f"PER {(int(found[1]) + 1) % 10}.", text, count=1)
    assert changed != text and results_page.filled(changed, reference, "en") == text
