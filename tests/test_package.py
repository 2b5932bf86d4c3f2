"""Properties of the package as a whole."""

import ast
import importlib
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import zonb
import zonb.press
from zonb import directions

FOLDER = Path(zonb.__file__).parent
ROOMS = {"zonb": zonb, "zonb.press": zonb.press}


def floors(room):
    """The modules that a package's docstring names, lowest first."""
    return re.findall(r"^    (\w+)  +\S", ROOMS[room].__doc__, re.MULTILINE)


def folder(room):
    return Path(ROOMS[room].__file__).parent


MODULES = [f"{room}.{name}" for room in ROOMS for name in floors(room) if (folder(room) / f"{name}.py").exists()]


def imports(path):
    """What a module imports of this project: full names, such as ``zonb.press.book``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            if node.module in ROOMS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif node.module.split(".")[0] == "zonb":
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "zonb")


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_has_its_floor_in_the_docstring_of_its_package(room):
    there = {path.stem for path in folder(room).glob("*.py")} | {
        path.parent.name for path in folder(room).glob("*/__init__.py")
    }
    assert sorted(floors(room)) == sorted(there - {"__init__"})


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down_only(name):
    room, _, module = name.rpartition(".")
    above = floors(room)[floors(room).index(module) :]
    for used in imports(folder(room) / f"{module}.py"):
        other, _, what = used.rpartition(".")
        assert used == "zonb" or other != room or what not in above, used
        assert room == "zonb.press" or not used.startswith("zonb.press"), used


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_documented(name):
    module = importlib.import_module(name)
    for public, value in vars(module).items():
        if not public.startswith("_") and getattr(value, "__module__", None) == module.__name__:
            own = vars(value).get("__doc__") if isinstance(value, type) else inspect.getdoc(value)
            assert own and not own.startswith(f"{public}("), f"{name}.{public}"  # a dataclass makes one of its fields


@pytest.mark.parametrize("name", [name for name in floors("zonb") if name != "press"])
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
    code = "import sys, zonb.press.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def without_the_book(code, *blocked):
    """Run code where the packages of the extra ``book`` are not installed, or those that are named."""
    names = set(blocked)
    if not blocked:
        extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["book"]
        names = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in extra}
        names |= {"bs4", "dask", "myst_nb", "sklearn", "sphinx", "yaml"}
    program = BLOCKED.replace("{blocked}", repr(names)) + code
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)


def test_the_mathematics_needs_no_package_of_the_book():
    names = ", ".join(floors("zonb")[:-1])
    code = f"from zonb import {names}\nclaims.claim('one', 1, 1, tol=1, rejects={{'nine': 9}})"
    done = without_the_book(code)
    assert done.returncode == 0 and done.stdout.startswith("one: measured 1"), done.stderr


@pytest.mark.parametrize("blocked", [(), ("jupytext",), ("yaml",)])
def test_without_the_packages_of_the_book_the_command_says_what_to_install(blocked):
    done = without_the_book("from zonb.press.cli import main\nsys.exit(main(['list']))", *blocked)
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"zonb: there is no package \w+; pip install 'zonb\[book\]' brings it\n", done.stderr)


def test_nothing_is_read_with_pickle():
    for path in FOLDER.rglob("*.py"):
        text = path.read_text()
        assert "pickle" not in text.replace("allow_pickle=False", "").replace("without pickle", ""), path.name
        assert "torch.load" not in text, path.name


def test_the_reference_has_every_module_below_the_book_and_every_law():
    text = "".join(path.read_text() for path in (ROOT / "book" / "api").glob("*.md"))
    assert sorted(re.findall(r"automodule:: zonb\.(\w+)", text)) == sorted(floors("zonb")[:-1])
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
