"""The command ``zonb``: list, run, sweep, book, record, times, verify, ledger, fetch."""

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

from zonb import chapters
from zonb.chapters import Chapter, ChapterError, ParameterError
from zonb.data import DataError
from zonb.runner import (
    Run,
    RunnerError,
    find_root,
    ledger,
    plan,
    record,
    run,
    sweep_csv,
    sweep_rows,
    sweep_svg,
    times,
    verify,
    write_atomic,
)

LEDGER = Path("book/records/ledger.json")
TIMES = Path("book/records/times.json")
RECEIPT = Path("_build/verify-receipt.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status (0 done, 1 a chapter or claim failed, 2 not understood)."""
    options = _parser().parse_args(arguments)
    try:
        status = options.command(options, find_root(Path.cwd()))
        sys.stdout.flush()
        return status
    except (ParameterError, ChapterError, RunnerError, DataError) as error:
        print(f"zonb: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("zonb: interrupted; what had finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _list(options: argparse.Namespace, root: Path) -> int:
    for chapter in chapters.read_all(root):
        item = plan(root, chapter, {}, options.profile)
        print(f"{chapter.slug}: {chapter.title} [{'up to date' if item.done else 'to be executed'}]")
        print(chapter.describe())
    return 0


def _run(options: argparse.Namespace, root: Path) -> int:
    found = [_chapter(root, name) for name in options.chapter]
    return _finish([plan(root, item, _given(item, options.parameter), options.profile) for item in found], options)


def _sweep(options: argparse.Namespace, root: Path) -> int:
    chapter = _chapter(root, options.chapter)
    fixed = _given(chapter, options.parameter)
    with _explained(chapter):
        grid = {name: _values(chapter, name, text) for name, text in _pairs(chapter, options.grid).items()}
        if both := sorted(grid.keys() & fixed.keys()):
            raise ParameterError(f"{', '.join(both)} is given both as a grid and as a value")
    points = [dict(zip(grid, point, strict=True)) for point in itertools.product(*grid.values())]
    runs = [(point, plan(root, chapter, fixed | point, options.profile)) for point in points]
    status = _finish([item for _, item in runs], options)
    rows = sweep_rows(runs)
    # Parameters only, so that a table of changed code replaces the old one.
    digest = hashlib.sha256(json.dumps([grid, fixed]).encode()).hexdigest()[:8]
    table = root / "_build" / options.profile / f"sweep-{chapter.slug}-{digest}.csv"
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


def _record(options: argparse.Namespace, root: Path) -> int:
    chapter = _chapter(root, options.chapter)
    given = _given(chapter, options.parameter)
    labels = [options.profile] if options.profile != "quick" else []
    # Words name a record; numbers do if there are no words, since many of them make no name.
    words = {name: value for name, value in given.items() if isinstance(value, str)}
    labels += [f"{name}-{value}" for name, value in (words or given).items()]
    if not labels:
        raise RunnerError("a record is of other than the default parameters: give --profile or -p NAME=VALUE")
    item = plan(root, chapter, given, options.profile)
    if status := _finish([item], options):
        return status
    name = re.sub(r"[^A-Za-z0-9.]+", "-", "-".join([chapter.slug, *labels])).strip("-")
    print(os.path.relpath(record(root, item, name)))
    return 0


def _times(options: argparse.Namespace, root: Path) -> int:
    if options.profile == "quick":
        raise RunnerError("a page says itself what the quick profile took; give another --profile")
    path = root / TIMES
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = times(root, options.profile)
    known[options.profile] = dict(sorted({**known.get(options.profile, {}), **found}.items()))
    write_atomic(path, json.dumps(known, indent=1) + "\n")
    print(f"{os.path.relpath(path)}: {len(found)} chapters measured under the profile {options.profile}")
    return 0


def _book(options: argparse.Namespace, root: Path) -> int:
    runs = [plan(root, chapter, {}, options.profile) for chapter in chapters.read_all(root)]
    if status := _finish(runs, options):
        return status
    from zonb import pages

    return pages.build(root, runs, ledger(root, options.profile))


def _verify(options: argparse.Namespace, root: Path) -> int:
    receipt = verify(root, Path(options.ledger) if options.ledger else root / LEDGER, options.profile)
    for row in receipt["claims"]:
        if row["outcome"] != "same" or options.all:
            a, b = row["published"], row["rerun"]
            print(
                f"{row['outcome']}: "
                + (
                    row["reason"]
                    or f"{row['id']}: published {a['measured']:.6g} for {a['expected']:.6g}, "
                    f"rerun {b['measured']:.6g} for {b['expected']:.6g}, apart {row['apart']:.1g}"
                )
            )
    print(
        f"{len(receipt['claims'])} claims compared: "
        + ", ".join(f"{count} {outcome}" for outcome, count in receipt["counts"].items())
    )
    write_atomic(root / RECEIPT, json.dumps(receipt, indent=1, ensure_ascii=False) + "\n")
    print(os.path.relpath(root / RECEIPT))
    return 1 if any(receipt["counts"][outcome] for outcome in ("new", "missing", "differs")) else 0


def _ledger(options: argparse.Namespace, root: Path) -> int:
    rows = ledger(root, options.profile)
    if options.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        for row in rows:
            print(f"{row['id']} ({row['source']}; {row['chapter']}): {row['verdict']}. {row['statement']}")
    return 0


def _fetch(options: argparse.Namespace, root: Path) -> int:
    from zonb import language

    if options.name not in language.WEIGHTS:
        raise RunnerError(f"no weights {options.name!r}; choose one of {', '.join(language.WEIGHTS)}")
    print(language.fetch(options.name))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="zonb", description="Execute the chapters and build the book.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
        if name != "fetch":
            command.add_argument(
                "--profile", default="quick", help="quick (the notebooks' defaults) or the name of a file in profiles/"
            )
        if name in ("run", "sweep", "book", "record"):
            command.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, such as tcp://host:8786")
            command.add_argument("--workers", type=int, help="chapters executed at a time on this machine")
        if name in ("run", "sweep", "record"):
            many = "+" if name == "run" else None
            command.add_argument("chapter", nargs=many, help="number, name or file, such as 02 or 02-projected-kernel")
            command.add_argument("-p", "--parameter", action="append", default=[], metavar="NAME=VALUE")
        return command

    add("list", _list, "The chapters and their parameters.")
    add("run", _run, "Execute chapters, with other parameters if given.")
    sweep = add("sweep", _sweep, "Execute one chapter at every point of a grid, and collect its claims in a table.")
    sweep.add_argument("-g", "--grid", action="append", required=True, metavar="NAME=V1,V2,...")
    sweep.add_argument("--plot", metavar="CLAIM", help="draw this claim over the grid")
    add("book", _book, "Execute what has changed, then build the site in _build/html.")
    add("record", _record, "Publish a full-scale run of a chapter in book/records, as a page of the site.")
    add("times", _times, "Publish what the chapters took under a profile in book/records, for their pages.")
    check = add("verify", _verify, "Compare this machine's ledger with a published one, and write a receipt.")
    check.add_argument("ledger", nargs="?", help="what 'zonb ledger --json' wrote; by default the one in book/records")
    check.add_argument("--all", action="store_true", help="list claims with the same numbers, too")
    add("ledger", _ledger, "Print every claim with its verdict.").add_argument("--json", action="store_true")
    add("fetch", _fetch, "Put pretrained weights into the folder ZONB_DATA.").add_argument("name", help="smollm2-135m")
    return parser


def _chapter(root: Path, name: str) -> Chapter:
    paths, stem = chapters.paths(root), Path(name).stem
    for slug, path in paths.items():
        if stem == slug or stem.zfill(2) == slug.split("-")[0]:
            return chapters.read(path)
    raise RunnerError(f"no chapter {name!r}; choose one of {', '.join(paths)}")


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


def _finish(runs: Sequence[Run], options: argparse.Namespace) -> int:
    if options.workers is not None and options.workers < 1:
        raise RunnerError(f"--workers {options.workers} must be at least 1")
    start, waiting = time.perf_counter(), len({item.path for item in runs if not item.done})
    os.environ.setdefault("ZONB_CACHE", str(runs[0].path.parent.parent / "cache"))
    failures = run(runs, scheduler=options.scheduler, workers=options.workers)
    for message in failures:
        print(f"zonb: {message}", file=sys.stderr)
    for item in runs if options.command is not _book else []:
        if item.done:
            print(os.path.relpath(item.path))
    took = f" in {time.perf_counter() - start:.1f} s" if waiting else ""
    print(f"{waiting - len(failures)} executed{took}, {len(runs) - waiting} up to date, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
