"""What each command of ``zonb`` does."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zonb.data import DataError
from zonb.press import ledger
from zonb.press.book import QUICK, Book, Run, RunnerError, write_atomic
from zonb.press.chapters import Chapter, ChapterError, ParameterError
from zonb.press.execute import run
from zonb.press.records import publish_times, record
from zonb.press.sweep import sweep_csv, sweep_rows, sweep_svg


def perform(options: argparse.Namespace) -> int:
    """Do what the command line asks; the exit status: 0 done, 1 a chapter or a claim failed, 2 not understood."""
    try:
        return _COMMANDS[options.command](options)
    except (ParameterError, ChapterError, RunnerError, DataError) as error:
        print(f"zonb: {error}", file=sys.stderr)
        return 2


def _find(options: argparse.Namespace) -> Book:
    return Book.find(Path.cwd(), options.profile)


def _list(options: argparse.Namespace) -> int:
    book = _find(options)
    for item in book.runs:
        print(f"{item.chapter.slug}: {item.chapter.title} [{'up to date' if item.done else 'to be executed'}]")
        print(item.chapter.describe())
    return 0


def _run(options: argparse.Namespace) -> int:
    book = _find(options)
    found = [book.chapter(name) for name in options.chapter]
    return _finish(book, [book.plan(item, _given(item, options.parameter)) for item in found], options)


def _sweep(options: argparse.Namespace) -> int:
    book = _find(options)
    chapter = book.chapter(options.chapter)
    fixed = _given(chapter, options.parameter)
    with _explained(chapter):
        grid = {name: _values(chapter, name, text) for name, text in _pairs(chapter, options.grid).items()}
        if both := sorted(grid.keys() & fixed.keys()):
            raise ParameterError(f"{', '.join(both)} is given both as a grid and as a value")
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    runs = [(point, book.plan(chapter, fixed | point)) for point in points]
    status = _finish(book, [item for _, item in runs], options)
    rows = sweep_rows(runs)
    # Parameters only, so that a table of changed code replaces the old one.
    digest = hashlib.sha256(json.dumps([grid, fixed]).encode()).hexdigest()[:8]
    table = book.results / f"sweep-{chapter.slug}-{digest}.csv"
    write_atomic(table, sweep_csv(list(grid), rows))
    for point in (point for point, item in runs if not item.done):
        shown = ", ".join(f"{name}={value}" for name, value in point.items())
        print(f"zonb: the table lacks {shown}, which failed", file=sys.stderr)
    print(os.path.relpath(table))
    if options.plot:
        picture = table.with_name(f"{table.stem}-{options.plot}.svg")
        write_atomic(picture, sweep_svg(list(grid), rows, options.plot))
        print(os.path.relpath(picture))
    return status


def _record(options: argparse.Namespace) -> int:
    book = _find(options)
    chapter = book.chapter(options.chapter)
    given = _given(chapter, options.parameter)
    labels = [book.profile] if book.profile != QUICK else []
    # Words name a record; numbers do if there are no words, since many of them make no name.
    words = {name: value for name, value in given.items() if isinstance(value, str)}
    labels += [f"{name}-{value}" for name, value in (words or given).items()]
    if not labels:
        raise RunnerError("a record is of other than the default parameters: give --profile or -p NAME=VALUE")
    item = book.plan(chapter, given)
    if status := _finish(book, [item], options):
        return status
    name = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([chapter.slug, *labels])).strip("-")
    print(os.path.relpath(record(book, item, name)))
    return 0


def _times(options: argparse.Namespace) -> int:
    book = _find(options)
    measured = publish_times(book)
    print(f"{os.path.relpath(book.times)}: {measured} chapters measured under the profile {book.profile}")
    return 0


def _book(options: argparse.Namespace) -> int:
    book = _find(options)
    if status := _finish(book, book.runs, options):
        return status
    from zonb.press import site  # with all that a page needs, which nothing else does

    return site.build(book, ledger.rows(book))


def _verify(options: argparse.Namespace) -> int:
    book = _find(options)
    receipt = ledger.verify(book, Path(options.ledger) if options.ledger else book.ledger)
    for row in receipt["claims"]:
        if row["outcome"] != "same" or options.all:
            print(row["said"])
    counts = ", ".join(f"{count} {outcome}" for outcome, count in receipt["counts"].items())
    print(f"{len(receipt['claims'])} claims compared: {counts}")
    write_atomic(book.receipt, json.dumps(receipt, indent=1, ensure_ascii=False) + "\n")
    print(os.path.relpath(book.receipt))
    return 1 if any(receipt["counts"][outcome] for outcome in ("new", "missing", "differs")) else 0


def _ledger(options: argparse.Namespace) -> int:
    rows = ledger.rows(_find(options))
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    for row in rows:
        print(f"{row['id']} ({'; '.join(row['source'])}; {row['chapter']}): {ledger.verdict(row)}. {row['statement']}")
        print(f"    {ledger.numbers(row)}; {ledger.power(row)}")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from zonb import language

    if options.name not in language.WEIGHTS:
        raise RunnerError(f"no weights {options.name!r}; choose one of {', '.join(language.WEIGHTS)}")
    print(language.fetch(options.name, accept_licence=options.accept_licence))
    return 0


@contextlib.contextmanager
def _explained(chapter: Chapter) -> Iterator[None]:
    try:
        yield
    except ParameterError as error:
        raise chapter.explained(error) from None


def _pairs(chapter: Chapter, texts: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(f"{text!r} must read NAME=VALUE")
        if name not in chapter.parameters:
            raise ParameterError(f"no parameter {name!r}")
        if name in pairs:
            raise ParameterError(f"{name} is given twice")
        pairs[name] = value
    return pairs


def _given(chapter: Chapter, texts: Sequence[str]) -> dict[str, Any]:
    with _explained(chapter):
        return {name: chapter.parameters[name].parse(text) for name, text in _pairs(chapter, texts).items()}


def _values(chapter: Chapter, name: str, text: str) -> list[Any]:
    # Commas inside brackets belong to a list: '[1,5],[1,25]' is two values.
    values = [chapter.parameters[name].parse(part) for part in re.split(r",(?![^\[]*\])", text)]
    if any(value in values[:k] for k, value in enumerate(values)):
        raise ParameterError(f"{name}={text} has a value twice")
    return values


def _finish(book: Book, runs: Sequence[Run], options: argparse.Namespace) -> int:
    if options.workers is not None and options.workers < 1:
        raise RunnerError(f"--workers {options.workers} must be at least 1")
    start, waiting = time.perf_counter(), len({item.path for item in runs if not item.done})
    os.environ.setdefault("ZONB_CACHE", str(book.cache))
    failures = run(runs, scheduler=options.scheduler, workers=options.workers)
    for message in failures:
        print(f"zonb: {message}", file=sys.stderr)
    for item in runs if options.command != "book" else []:
        if item.done:
            print(os.path.relpath(item.path))
    took = f" in {time.perf_counter() - start:.1f} s" if waiting else ""
    print(f"{waiting - len(failures)} executed{took}, {len(runs) - waiting} up to date, {len(failures)} failed")
    return 1 if failures else 0


_COMMANDS = {
    "list": _list,
    "run": _run,
    "sweep": _sweep,
    "book": _book,
    "record": _record,
    "times": _times,
    "verify": _verify,
    "ledger": _ledger,
    "fetch": _fetch,
}
