"""Properties of the package as a whole."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import zonb

FOLDER = Path(zonb.__file__).parent
# Lowest floor first: a module imports only those before it.
FLOORS = ["data", "directions", "streams", "tangents", "optim", "kernels", "theory", "models", "language", "plots"]
FLOORS += ["claims", "chapters", "runner", "pages", "cli"]
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def test_every_module_has_its_floor_and_its_line_in_the_package_docstring():
    assert sorted(FLOORS) == MODULES
    for name in MODULES:
        assert f"    {name} " in zonb.__doc__, name


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name):
    below = set(FLOORS[: FLOORS.index(name)])
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "zonb":
            used = {alias.name for alias in node.names} if node.module == "zonb" else {node.module.split(".")[1]}
            assert used <= below, used - below


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_documented(name):
    module = importlib.import_module(f"zonb.{name}")
    for public, value in vars(module).items():
        if not public.startswith("_") and getattr(value, "__module__", None) == module.__name__:
            assert inspect.getdoc(value), f"{name}.{public}"


def test_the_command_line_answers_without_loading_torch():
    code = "import sys, zonb.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_nothing_is_read_with_pickle():
    for path in FOLDER.glob("*.py"):
        text = path.read_text()
        assert "pickle" not in text.replace("allow_pickle=False", "").replace("without pickle", ""), path.name
        assert "torch.load" not in text, path.name
