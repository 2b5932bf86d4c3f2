"""A chapter is a MyST notebook without outputs; here it is read as source: its parameters and its content key."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import math
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

import zonb

PACKAGE = Path(zonb.__file__).parent
_RANGE = re.compile(
    r"#\s*(?:(?P<open>[\[(])\s*(?P<low>[^,\s]+)\s*,\s*(?P<high>[^\])\s]+)\s*(?P<close>[\])])"
    r"|\{(?P<choices>[^}]*)\})\s*(?P<text>.*)"
)


class ParameterError(ValueError):
    """A parameter is unknown, ill-typed or out of range."""


class ChapterError(ValueError):
    """A notebook's source is not what a chapter must be."""


@dataclass(frozen=True)
class Parameter:
    """One assignment of a parameters cell: ``name = default  # [low, high] what it is``.

    The range stands in the comment: ``[1, 100]``, half-open ``(0, 1]`` or a choice ``{a, b}``, which with three
    dots, ``{a, b, ...}``, names examples of a string and allows any. For a list the range is that of each element.
    """

    name: str
    default: Any
    range: str
    text: str
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> Any:
        """The value that ``text`` from a command line stands for; checked by `check`."""
        if isinstance(self.default, str) and text in self.choices and text != "...":
            return text
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = text
        return self.check(value)

    def check(self, value: Any) -> Any:
        """The value, if it has the default's type and lies in the range; an int serves as a float."""
        if isinstance(self.default, list):
            if not isinstance(value, list) or not value:
                raise ParameterError(f"{self.name}={value!r} must be a list that is not empty, such as {self.default}")
            return [self._check_one(item, self.default[0]) for item in value]
        return self._check_one(value, self.default)

    def _check_one(self, value: Any, like: Any) -> Any:
        kind = type(like)
        if kind is float and type(value) is int and abs(value) < 2**1000:
            value = float(value)
        if type(value) is not kind:
            raise ParameterError(f"{self.name}={value!r} must be of type {kind.__name__}, as in {self.default!r}")
        if self.choices:
            free = "..." in self.choices and kind is str and value.strip()
            inside = value != "..." and bool(free or str(value) in self.choices)
        else:
            above = value > self.low if self.low_open else value >= self.low
            inside = above and (value < self.high if self.high_open else value <= self.high)
        if not inside:
            raise ParameterError(f"{self.name}={value!r} is outside {self.range}")
        return value


@dataclass(frozen=True)
class Chapter:
    """A notebook: its source file, cells and parameters."""

    path: Path
    notebook: nbformat.NotebookNode
    parameters: Mapping[str, Parameter]

    @property
    def slug(self) -> str:
        """The file name without its suffix, such as ``01-taylor-step``."""
        return self.path.stem

    @property
    def title(self) -> str:
        """The first heading."""
        for cell in self.notebook.cells:
            if cell.cell_type == "markdown" and (found := re.search(r"^# (.+)$", cell.source, re.MULTILINE)):
                return found[1]
        raise ChapterError(f"{self.path.name} has no title: begin it with a line '# ...'")

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters: the defaults, replaced by ``given`` where given.

        Raises:
            ParameterError: a name or a value is not allowed; the message lists the parameters.
        """
        try:
            if unknown := sorted(given.keys() - self.parameters.keys()):
                raise ParameterError(f"no parameter {', '.join(map(repr, unknown))}")
            checked = {name: self.parameters[name].check(value) for name, value in given.items()}
        except ParameterError as error:
            raise self.explained(error) from None
        return {name: parameter.default for name, parameter in self.parameters.items()} | checked

    def explained(self, error: ParameterError) -> ParameterError:
        """The error with the chapter's name and the parameters there are."""
        return ParameterError(f"{self.slug}: {error}\n{self.describe()}")

    def describe(self) -> str:
        """A table of the parameters: name, default, range, meaning."""
        rows = [("parameter", "default", "range", "what it is")]
        rows += [(p.name, repr(p.default), p.range, p.text) for p in self.parameters.values()]
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        return "\n".join(
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)) + "  " + row[3]
            for row in rows
        )


def read(path: Path) -> Chapter:
    """Read a chapter's source.

    Raises:
        ChapterError: no parameters cell, or a parameter without a literal default or a range.
    """
    import jupytext

    try:
        notebook = jupytext.read(path)
        tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    except Exception as error:
        raise ChapterError(f"{path.name} is not a MyST notebook: {error}") from error
    if len(tagged) != 1:
        raise ChapterError(f"{path.name} has {len(tagged)} cells tagged 'parameters'; it needs exactly one")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            try:
                ast.parse(cell.source)
            except SyntaxError as error:
                raise ChapterError(f"{path.name}: {error.msg} in {(error.text or '').strip()!r}") from None
    try:
        parameters = {p.name: p for p in _parameters(tagged[0].source, path.name)}
    except (TypeError, ValueError) as error:
        if isinstance(error, ChapterError):
            raise
        raise ChapterError(f"{path.name}, parameters cell: {error}") from None
    if not parameters:
        raise ChapterError(f"{path.name}: the parameters cell is empty; give at least a seed")
    return Chapter(path, notebook, parameters)


def paths(root: Path) -> dict[str, Path]:
    """The source of each chapter of a book by its slug, in the order of their numbers."""
    return {path.stem: path for path in sorted((root / "notebooks").glob("*.md"))}


def read_all(root: Path) -> list[Chapter]:
    """All chapters of a book in the order of their numbers."""
    return [read(path) for path in paths(root).values()]


def modules(code: Iterable[str]) -> dict[str, str]:
    """The zonb modules that pieces of code import, transitively, with the SHA-256 of each file.

    >>> sorted(modules(["from zonb import kernels"]))
    ['__init__', 'directions', 'kernels', 'streams', 'tangents']
    """
    found: dict[str, str] = {}
    waiting = [name for piece in code for name in _imports(piece)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            path = PACKAGE / f"{name}.py"
            if not path.is_file():
                raise ChapterError(f"there is no module zonb.{name}")
            source = path.read_bytes()
            found[name] = hashlib.sha256(source).hexdigest()
            try:
                waiting += _imports(source.decode())
            except SyntaxError as error:
                raise ChapterError(f"zonb/{path.name}, line {error.lineno}: {error.msg}") from None
    return dict(sorted(found.items()))


def ingredients(chapter: Chapter, values: Mapping[str, Any], lock: Path) -> dict[str, Any]:
    """Everything a run's result follows from: code, modules, lock file, data and parameters. Prose is not in it."""
    code = [cell.source for cell in chapter.notebook.cells if cell.cell_type == "code"]
    used = modules(code)
    return {
        "code": code,
        "modules": used,
        "lock": hashlib.sha256(lock.read_bytes()).hexdigest(),
        "data": data_checksums(used),
        "parameters": dict(values),
    }


def data_checksums(used: Iterable[str]) -> dict[str, str]:
    """The embedded files' checksums if ``zonb.data`` is among the modules used."""
    if "data" not in used:
        return {}
    from zonb import data

    return data.checksums()


def key(parts: Mapping[str, Any]) -> str:
    """The content key of a run: 16 hexadecimal digits of the SHA-256 of its ingredients."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _parameters(source: str, where: str) -> Iterable[Parameter]:
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for node in ast.parse(source).body:
        if not (
            isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(target := node.targets[0], ast.Name)
        ):
            raise ChapterError(f"{where}: the parameters cell may hold assignments 'name = value' only")
        found = _RANGE.fullmatch(comments.get(node.end_lineno or 0, ""))
        if not found:
            raise ChapterError(f"{where}: parameter {target.id} needs its range in a comment: '# [low, high] meaning'")
        default = ast.literal_eval(node.value)
        if found["choices"] is not None:
            choices = tuple(choice.strip() for choice in found["choices"].split(","))
            parameter = Parameter(target.id, default, f"{{{', '.join(choices)}}}", found["text"], choices=choices)
        else:
            shown = f"{found['open']}{found['low']}, {found['high']}{found['close']}"
            low, high = float(found["low"]), float(found["high"])
            ends = (found["open"] == "(", found["close"] == ")")
            parameter = Parameter(target.id, default, shown, found["text"], low, high, *ends)
        parameter.check(default)
        yield parameter


def _imports(code: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # relative, and the package is flat
                module = f"zonb.{module}" if module else "zonb"
            if module == "zonb":
                names |= {"__init__"} | {alias.name for alias in node.names if (PACKAGE / f"{alias.name}.py").exists()}
            elif module.startswith("zonb."):
                names |= {"__init__", module.split(".")[1]}
        elif isinstance(node, ast.Import):
            for parts in (alias.name.split(".") for alias in node.names):
                if parts[0] == "zonb":
                    names |= {"__init__", *parts[1:2]}
    return names
