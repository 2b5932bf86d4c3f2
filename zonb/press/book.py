"""A book: where its files are, its chapters, and the run that each makes with its parameters."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import yaml

from zonb.press import chapters
from zonb.press.chapters import Chapter

QUICK = "quick"  # the profile of the notebooks' own defaults


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

    def result(self) -> nbformat.NotebookNode:
        """The stored result; what it says of itself is under ``zonb`` in its metadata."""
        return nbformat.read(self.path, as_version=4)


class Book:
    """A book under one profile. It knows every path, reads each chapter once, and plans each run once.

    Attributes:
        root: the folder of the book.
        profile: ``quick``, the notebooks' own defaults, or the name of a file in ``profiles``.
        notebooks, profiles: the chapters' sources, and the parameters of full-scale runs.
        toc, config, lock: what Jupyter Book reads, and the versions of all packages.
        prose: the folder ``book``, with ``templates`` of the pages that are made and ``static`` files of the site.
        notation, errata, wording: data of the pages; ``wording`` is that of the claims.
        records: what is published of runs, with the ``ledger``, the ``times``, the ``benchmarks`` and the planted
            ``faults``.
        build: what is derived, with the ``results`` of the profile, the ``cache`` of trained networks, the ``site`` and
            the ``receipt`` of a verification.
    """

    def __init__(self, root: Path, profile: str = QUICK):
        """The book in the folder ``root``; nothing is read yet."""
        self.root, self.profile = root, profile
        self.notebooks, self.profiles = root / "notebooks", root / "profiles"
        self.toc, self.config, self.lock = root / "_toc.yml", root / "_config.yml", root / "requirements.txt"
        self.prose = root / "book"
        self.templates, self.static = self.prose / "pages", self.prose / "_static"
        self.notation, self.errata = self.prose / "notation.yml", self.prose / "errata.yml"
        self.wording = self.prose / "claims.yml"
        self.records = self.prose / "records"
        self.ledger, self.times = self.records / "ledger.json", self.records / "times.json"
        self.benchmarks, self.faults = self.records / "benchmarks", self.records / "faults.json"
        self.build = root / "_build"
        self.results = self.build / profile
        self.cache, self.site = self.build / "cache", self.build / "html"
        self.receipt = self.build / "verify-receipt.json"
        self._chapters: dict[str, Chapter] = {}
        self._plans: dict[str, Run] = {}

    @classmethod
    def find(cls, start: Path, profile: str = QUICK) -> Book:
        """The nearest book at or above ``start``: a folder with a ``_toc.yml`` and chapters in ``notebooks``.

        Raises:
            RunnerError: there is none, or it has a zonb of its own that is not this one.
        """
        for folder in (start, *start.parents):
            book = cls(folder, profile)
            if book.toc.exists() and book.sources:
                package = folder / "zonb"
                if package.is_dir() and not package.samefile(chapters.PACKAGE):
                    raise RunnerError(f"this zonb is not that of {folder.name}; use .venv/bin/zonb there")
                return book
        raise RunnerError("no book here: run zonb in the folder that holds _toc.yml and notebooks/*.md, or below it")

    def under(self, profile: str) -> Book:
        """The same book under another profile; what has been read of the chapters is not read again."""
        other = Book(self.root, profile)
        other._chapters = self._chapters
        return other

    @cached_property
    def sources(self) -> dict[str, Path]:
        """The source of each chapter by its slug, in the order of their numbers."""
        return {path.stem: path for path in sorted(self.notebooks.glob("*.md"))}

    @property
    def chapters(self) -> list[Chapter]:
        """All chapters in the order of their numbers."""
        return [self._chapter(slug) for slug in self.sources]

    def chapter(self, name: str) -> Chapter:
        """The chapter of this number, slug or file.

        Raises:
            RunnerError: there is none.
        """
        stem = Path(name).stem
        for slug in self.sources:
            if stem == slug or stem.zfill(2) == slug.split("-")[0]:
                return self._chapter(slug)
        raise RunnerError(f"no chapter {name!r}; choose one of {', '.join(self.sources)}")

    def plan(self, chapter: Chapter, given: Mapping[str, Any]) -> Run:
        """The run of a chapter under the profile, with ``given`` replacing the profile's parameters.

        Raises:
            ParameterError: a parameter is unknown, ill-typed or out of range.
        """
        request = json.dumps([chapter.slug, dict(given)], sort_keys=True)
        if request not in self._plans:
            values = chapter.values({**self._parameters.get(chapter.slug, {}), **given})
            parts = chapters.ingredients(chapter, values, self.lock)
            key = chapters.key(parts)
            self._plans[request] = Run(chapter, parts, key, self.results / f"{chapter.slug}-{key}.ipynb")
        return self._plans[request]

    @property
    def runs(self) -> list[Run]:
        """The run of every chapter with the profile's parameters."""
        return [self.plan(chapter, {}) for chapter in self.chapters]

    @property
    def profile_names(self) -> list[str]:
        """The profiles that have a file."""
        return sorted(path.stem for path in self.profiles.glob("*.yml"))

    @property
    def record_paths(self) -> list[Path]:
        """The published full-scale runs."""
        return sorted(self.records.glob("*.ipynb"))

    @cached_property
    def _parameters(self) -> Mapping[str, Mapping[str, Any]]:
        if self.profile == QUICK:
            return {}
        path = self.profiles / f"{self.profile}.yml"
        if not path.is_file():
            raise RunnerError(f"no profile {self.profile!r}; choose one of {', '.join([QUICK, *self.profile_names])}")
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunnerError(f"profiles/{path.name} is not YAML: {error}") from None
        if not isinstance(found, dict) or not all(isinstance(values, dict) for values in found.values()):
            raise RunnerError(f"profiles/{path.name} must read 'CHAPTER: {{PARAMETER: VALUE}}'")
        if unknown := sorted(map(str, found.keys() - self.sources.keys())):
            raise RunnerError(f"profiles/{path.name} names {', '.join(unknown)}, which are not chapters")
        return found

    def _chapter(self, slug: str) -> Chapter:
        if slug not in self._chapters:
            self._chapters[slug] = chapters.read(self.sources[slug])
        return self._chapters[slug]


def finished(runs: Sequence[Run]) -> Sequence[Run]:
    """The runs, if all their results are stored.

    Raises:
        RunnerError: one has none.
    """
    for item in runs:
        if not item.done:
            raise RunnerError(f"{item.chapter.slug} has no result for its present sources; run 'zonb book' first")
    return runs


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
