"""The order of layers, the size of files, and what importing the package may cost."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT

PACKAGE = ROOT / "minitx"
LAYERS = {
    "errors": 0, "fonts": 0, "openmp": 0, "locks": 0, "config": 1, "batch": 1,
    "nn": 2, "data": 2, "distributed": 2,
    "decoding": 3,
    "metrics": 4,
    "analysis": 5,
    "training": 6,
    "predictor": 7,
    "bench": 8, "export": 8, "serve": 8, "tour": 8,
    "sweeps": 9,
    "studies": 10,
    "report": 11,
    "cli": 12, "__init__": 12,
}  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))
NEVER = {("nn", "data"), ("data", "nn")}


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Dotted names of every import in a file, those inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = layer_of(path)
    for name in imports_of(path):
        root, _, rest = name.partition(".")
        if root != "minitx" or not rest:
            continue
        target = rest.split(".")[0]
        assert (own, target) not in NEVER, f"{path.name} imports {name}: nets and data meet only in minitx/batch.py"
        assert target == own or LAYERS[target] < LAYERS[own], f"{path.name} ({own}) imports {name}: imports point down"


def test_the_layer_test_can_fail(tmp_path: Path) -> None:
    """A file that imports upward is seen."""
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from minitx.training.loop import Loop\n    import minitx.cli\n")
    assert {"minitx.training.loop", "minitx.cli"} <= imports_of(file)
    assert LAYERS["training"] > LAYERS["nn"]


def circles_of(imports: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other, directly or by way of others."""
    found: list[list[str]] = []
    state: dict[str, str] = {}

    def visit(name: str, trail: list[str]) -> None:
        state[name] = "open"
        for other in sorted(imports[name]):
            if state.get(other) == "open":
                found.append([*trail[trail.index(other) :], other])
            elif other not in state:
                visit(other, [*trail, other])
        state[name] = "done"

    for name in sorted(imports):
        if name not in state:
            visit(name, [name])
    return found


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def modules_imported(path: Path, known: set[str]) -> set[str]:
    """Modules of the package that a file imports, inside functions too; `from minitx.data import x` is of the module x
    where there is one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in names}
    return found & known


def test_no_modules_import_each_other() -> None:
    names = {module_name(path): path for path in MODULES}
    assert circles_of({name: modules_imported(path, set(names)) for name, path in names.items()}) == []


def test_the_test_of_circles_can_fail() -> None:
    assert circles_of({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c", "b"]]


def test_every_module_has_a_layer() -> None:
    assert {layer_of(path) for path in MODULES} <= set(LAYERS)


def test_only_three_files_know_hydra() -> None:
    knowing = {
        str(p.relative_to(ROOT))
        for p in [*MODULES, ROOT / "train.py"]
        if any(n.split(".")[0] in ("hydra", "omegaconf") for n in imports_of(p))
    }
    assert knowing == {"train.py", "minitx/sweeps/hydra_plugin.py", "minitx/sweeps/recipes.py"}


@pytest.mark.parametrize("path", [*MODULES, ROOT / "train.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 400, "one file per idea"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


def test_importing_the_package_is_cheap_and_has_no_effect() -> None:
    """No torch, no environment variables, no signal handlers."""
    script = (
        "import os, signal, sys; before = dict(os.environ), signal.getsignal(signal.SIGINT);"
        "import minitx, minitx.cli, minitx.config;"
        "assert (dict(os.environ), signal.getsignal(signal.SIGINT)) == before;"
        "heavy = {'torch', 'datasets', 'matplotlib', 'scipy', 'sklearn', 'tensorboard'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_nothing_loads_code_from_data() -> None:
    forbidden = ("pickle.load", "torch.load(", "trust_remote_code=True", "yaml.load(", "shell=True")
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert not [word for word in forbidden if word in text], path
        calls = [
            n.func.id for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
        ]
        assert not {"eval", "exec"} & set(calls), path


def test_no_two_test_files_share_a_name() -> None:
    """pytest imports them by their name alone."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


def test_the_map_of_the_package_names_its_files() -> None:
    """minitx/README.md names every module but the doors of packages, and none that is not there."""
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    named = {name.rsplit("/", 1)[-1] for name in re.findall(r"`([\w./]+\.py)`", text)} - {"train.py"}
    there = {path.name for path in MODULES} - {"__init__.py", "__main__.py"}
    assert named == there
