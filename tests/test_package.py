"""Properties of the package as a whole."""

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import zonb
from zonb import directions

FOLDER = Path(zonb.__file__).parent
# Lowest floor first: a module imports only those before it.
FLOORS = ["directions", "streams", "tangents", "differences", "kernels", "theory", "simulate", "perturbed", "optim"]
FLOORS += ["data", "models", "language", "plots", "claims", "chapters", "runner", "pages", "cli"]
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def test_every_module_has_its_floor_and_its_line_in_the_package_docstring():
    assert sorted(FLOORS) == MODULES
    for name in MODULES:
        assert f"    {name} " in zonb.__doc__, name


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name):
    below = set(FLOORS[: FLOORS.index(name)])
    for node in ast.walk(ast.parse((FOLDER / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            if node.module.split(".")[0] == "zonb":
                used = {alias.name for alias in node.names} if node.module == "zonb" else {node.module.split(".")[1]}
                assert used <= below, used - below
        elif isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "zonb" for alias in node.names), "import from zonb by name"


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_documented(name):
    module = importlib.import_module(f"zonb.{name}")
    for public, value in vars(module).items():
        if not public.startswith("_") and getattr(value, "__module__", None) == module.__name__:
            own = vars(value).get("__doc__") if isinstance(value, type) else inspect.getdoc(value)
            assert own and not own.startswith(f"{public}("), f"{name}.{public}"  # a dataclass makes one of its fields


@pytest.mark.parametrize("name", FLOORS[: FLOORS.index("chapters")])
def test_the_public_names_are_written_down_and_used_elsewhere(name):
    tree, defined = ast.parse((FOLDER / f"{name}.py").read_text()), {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {part.id: node for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    public = {key for key in defined if not key.startswith("_")}
    listed = importlib.import_module(f"zonb.{name}").__all__
    assert len(listed) == len(set(listed)) and set(listed) == public
    others = [path for folder in ("zonb", "benchmarks", "tools", "tests") for path in (ROOT / folder).rglob("*.py")]
    others += [*(ROOT / "notebooks").glob("*.md"), *(ROOT / "book").glob("*.md")]
    words = set(re.findall(r"\w+", "".join(path.read_text() for path in others if path != FOLDER / f"{name}.py")))
    assert {key for key in public if not isinstance(defined[key], ast.ClassDef)} <= words


def test_the_command_line_answers_without_loading_torch():
    code = "import sys, zonb.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_nothing_is_read_with_pickle():
    for path in FOLDER.glob("*.py"):
        text = path.read_text()
        assert "pickle" not in text.replace("allow_pickle=False", "").replace("without pickle", ""), path.name
        assert "torch.load" not in text, path.name


def test_the_reference_has_every_module_below_the_book_and_every_law():
    text = "".join(path.read_text() for path in (ROOT / "book" / "api").glob("*.md"))
    assert sorted(re.findall(r"automodule:: zonb\.(\w+)", text)) == sorted(FLOORS[: FLOORS.index("chapters")])
    laws = [name for name, value in vars(directions).items() if isinstance(value, directions.Law)]
    assert re.search(r"py:data::((\s+\w+\n)+)", text)[1].split() == laws


def test_the_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0" and cited["version"] == zonb.__version__
    book = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert cited["title"].split(":")[0] == book["title"]


def test_a_wheel_holds_the_package_its_data_and_nothing_else(tmp_path):
    source = tmp_path / "source"  # setuptools leaves a folder beside what it builds
    shutil.copytree(ROOT / "zonb", source / "zonb", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"zonb-{zonb.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        packed = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for path in FOLDER.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    assert packed == {path.relative_to(FOLDER.parent).as_posix(): path.read_bytes() for path in files}
    assert {"zonb/py.typed", "zonb/_data/SHA256SUMS", "zonb/_data/mnist-train.npz"} <= packed.keys()
