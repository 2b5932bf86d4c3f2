"""A chapter is a MyST notebook without outputs; here it is read as source: its parameters and its content key."""

from __future__ import annotations

import ast
import functools
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

import jupytext
import nbformat

import zonb

PACKAGE = Path(zonb.__file__).parent
PRESS = "press"
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
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
    def code(self) -> list[str]:
        """The sources of its code cells."""
        return [cell.source for cell in self.notebook.cells if cell.cell_type == "code"]

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


def digest(code: str) -> str:
    """The SHA-256 of what a module means: its syntax tree. Comments, docstrings and layout are not in it.

    >>> digest("x = 1  # one") == digest("'A module.'\\nx = (1)") != digest("x = 1.0")
    True
    """
    return _parsed(code)[0]


def cell_digest(code: str) -> str:
    """The SHA-256 of what a notebook's cell means. A string that it begins with is shown, and no docstring.

    >>> cell_digest("x = 1  # one") == cell_digest("x = 1") != cell_digest("x = 1;")
    True
    """
    return _sha([_plain(ast.parse(code).body), ";" in code and _silent(code)])


def modules(code: Iterable[str]) -> dict[str, str]:
    """The zonb modules that pieces of code import, transitively, with the `digest` of each.

    Raises:
        ChapterError: there is no such module, or it is of `zonb.press`, which is not for chapters.

    >>> sorted(modules(["from zonb import kernels"]))
    ['__init__', 'directions', 'kernels', 'streams', 'tangents']
    """
    found: dict[str, str] = {}
    waiting = [name for piece in code for name in _imports(ast.parse(piece))]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name == PRESS:
            raise ChapterError(f"zonb.{PRESS} prints the book; a chapter, and what it imports, must do without it")
        path = PACKAGE / f"{name}.py"
        if not path.is_file():
            raise ChapterError(f"there is no module zonb.{name}")
        try:
            found[name], imported = _parsed(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            raise ChapterError(f"zonb/{path.name}, line {error.lineno}: {error.msg}") from None
        waiting += imported
    return dict(sorted(found.items()))


def ingredients(chapter: Chapter, values: Mapping[str, Any], lock: Path) -> dict[str, Any]:
    """Everything a run's result follows from: code, modules, lock file, data and parameters.

    Code and modules are there by their `digest`, so that prose, comments and docstrings may change freely.
    """
    used = modules(chapter.code)
    return {
        "code": [cell_digest(piece) for piece in chapter.code],
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
    return _sha(parts)[:16]


def _sha(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plain(node: Any) -> Any:
    """A syntax tree as lists and names. What is empty is left out, so that versions of Python agree on a tree."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if isinstance(node, ast.Constant):
        return ["Constant", type(node.value).__name__, ascii(node.value)]
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if value is not None and value != []}
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends a nested format with an empty string
        fields["values"] = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    return [type(node).__name__, {name: _plain(value) for name, value in fields.items()}]


def _silent(code: str) -> bool:
    """Whether the last value of a cell is not shown, because a semicolon ends it."""
    words = [token for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.string.strip()]
    return [token.string for token in words if token.type != tokenize.COMMENT][-1:] == [";"]


@functools.cache
def _parsed(code: str) -> tuple[str, frozenset[str]]:
    """The digest of a module's code, and the zonb modules that it imports itself."""
    tree = ast.parse(code)
    return _sha(_plain(tree)), frozenset(_imports(tree))


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


def _imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # relative, and what chapters import is flat
                module = f"zonb.{module}" if module else "zonb"
            if module == "zonb":
                known = {alias.name for alias in node.names if (PACKAGE / f"{alias.name}.py").exists()}
                names |= {"__init__"} | known | ({PRESS} & {alias.name for alias in node.names})
            elif module.startswith("zonb."):
                names |= {"__init__", module.split(".")[1]}
        elif isinstance(node, ast.Import):
            for parts in (alias.name.split(".") for alias in node.names):
                if parts[0] == "zonb":
                    names |= {"__init__", *parts[1:2]}
    return names
