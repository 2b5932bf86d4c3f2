"""A book: where its files are, and the run that each chapter's sources and parameters make."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zonb.press import chapters
from zonb.press.chapters import Chapter


class RunnerError(RuntimeError):
    """What was asked cannot be done; the message says why and what to do."""


@dataclass(frozen=True)
class Run:
    """A chapter with all its parameters fixed.

    Attributes:
        chapter: its source.
        parts: what the result follows from.
        key: their hash.
        path: where the executed notebook is, or will be.
    """

    chapter: Chapter
    parts: Mapping[str, Any]
    key: str
    path: Path

    @property
    def done(self) -> bool:
        """Whether the result is stored."""
        return self.path.exists()


def find_root(start: Path) -> Path:
    """The book's folder: the nearest one at or above ``start`` with a ``_toc.yml`` and chapters in ``notebooks/``.

    Raises:
        RunnerError: there is none, or it has a zonb of its own that is not this one.
    """
    for folder in (start, *start.parents):
        if (folder / "_toc.yml").exists() and chapters.paths(folder):
            if (folder / "zonb").is_dir() and not (folder / "zonb").samefile(chapters.PACKAGE):
                raise RunnerError(f"this zonb is not that of {folder.name}; use .venv/bin/zonb there")
            return folder
    raise RunnerError("no book here: run zonb in the folder that holds _toc.yml and notebooks/*.md, or below it")


def plan(root: Path, chapter: Chapter, given: Mapping[str, Any], profile: str = "quick") -> Run:
    """The run of a chapter under a profile, with ``given`` replacing the profile's parameters.

    Raises:
        ParameterError: a parameter is unknown, ill-typed or out of range.
    """
    values = chapter.values({**_profile(root, profile).get(chapter.slug, {}), **given})
    parts = chapters.ingredients(chapter, values, root / "requirements.txt")
    key = chapters.key(parts)
    return Run(chapter, parts, key, root / "_build" / profile / f"{chapter.slug}-{key}.ipynb")


def _profile(root: Path, name: str) -> dict[str, dict[str, Any]]:
    if name == "quick":  # the notebooks' own defaults
        return {}
    path = root / "profiles" / f"{name}.yml"
    if not path.is_file():
        known = ["quick", *sorted(p.stem for p in (root / "profiles").glob("*.yml"))]
        raise RunnerError(f"no profile {name!r}; choose one of {', '.join(known)}")
    import yaml

    try:
        profile = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunnerError(f"profiles/{path.name} is not YAML: {error}") from None
    if not isinstance(profile, dict) or not all(isinstance(values, dict) for values in profile.values()):
        raise RunnerError(f"profiles/{path.name} must read 'CHAPTER: {{PARAMETER: VALUE}}'")
    if unknown := sorted(map(str, profile.keys() - chapters.paths(root).keys())):
        raise RunnerError(f"profiles/{path.name} names {', '.join(unknown)}, which are not chapters")
    return profile


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new content and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="utf-8") as file:
        try:
            file.write(text)
            file.close()
            mask = os.umask(0)
            os.umask(mask)
            Path(file.name).chmod(0o666 & ~mask)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
