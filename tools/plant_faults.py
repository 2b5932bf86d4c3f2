"""Run the chapters with faults planted in the package, and tell which claim or assertion stops each.

Usage: python tools/plant_faults.py [--fault NAME ...] [--chapter NN ...] [--workers N] [--minutes M] [--publish]

A fault (``tools/faults.yml``) is an edit of a line or two in a copy of the package; it runs through the chapters that
use what it breaks. A claim or a cell that fails is noted and the chapter goes on, so that all that stops a fault is
known. Outcomes are kept in ``_build/faults`` under a key of chapter and fault: nothing runs twice, and an interrupted
run goes on; what has not run yet is named. ``--publish`` writes ``book/records/faults.json``, from which the book's
page of planted faults is made, and from which another machine goes on.
"""

from __future__ import annotations

import argparse
import concurrent.futures as futures
import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FAULTS = Path("tools/faults.yml")
SECONDS = 1800  # a chapter that takes longer is stopped by its fault


@dataclass(frozen=True)
class Fault:
    """An edit of the package.

    Attributes:
        name: what is wrong, in a few words.
        module: the module of zonb that is edited.
        old: what stands there, once.
        new: what stands there instead.
        used: a pattern that the code of the chapters that use it contains.
    """

    name: str
    module: str
    old: str
    new: str
    used: str

    @property
    def folder(self) -> str:
        """A name for its copy of the package."""
        return re.sub(r"\W+", "-", self.name.lower()).strip("-")

    def plant(self, package: Path, target: Path) -> None:
        """Copy the package to ``target/zonb`` with the fault in it.

        Raises:
            SystemExit: what it edits does not stand there exactly once.
        """
        copy = target / "zonb"
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "press"), dirs_exist_ok=True)
        path = copy / f"{self.module}.py"
        text = path.read_text()
        if text.count(self.old) != 1:
            sys.exit(f"{FAULTS}, {self.name}: {self.old!r} stands {text.count(self.old)} times in zonb/{path.name}")
        path.write_text(text.replace(self.old, self.new))


def main(options: argparse.Namespace) -> int:
    """Plant, run, tabulate."""
    from tqdm import tqdm

    from zonb.press.book import Book, write_atomic
    from zonb.press.chapters import PACKAGE
    from zonb.press.records import times

    if options.publish and (options.fault or options.chapter):
        sys.exit("--publish is of all faults and chapters: leave out --fault and --chapter")
    book = Book.find(Path.cwd())
    kept = book.build / "faults"
    faults = [Fault(**entry) for entry in yaml.safe_load((book.root / FAULTS).read_text())]
    if unknown := set(options.fault or ()) - {fault.name for fault in faults}:
        sys.exit(f"no fault {', '.join(map(repr, unknown))}; choose one of {', '.join(fault.name for fault in faults)}")
    faults = [fault for fault in faults if not options.fault or fault.name in options.fault]
    jobs = [
        (fault, run, kept / fault.folder / f"{run.chapter.slug}-{digest(fault, run)}.json")
        for fault in faults
        for run in book.runs
        if re.search(fault.used, "\n".join(run.chapter.code))
        and (not options.chapter or run.chapter.slug[:2] in options.chapter)
    ]
    published = json.loads(book.faults.read_text()) if book.faults.is_file() else {"faults": []}
    known = {key: row["stopped"][slug] for row in published["faults"] for slug, key in row["keys"].items()}
    for fault, run, path in jobs:
        if not path.exists() and digest(fault, run) in known:
            write_atomic(path, json.dumps(known[digest(fault, run)]))
    waiting = [job for job in in_order(jobs, times(book)) if not job[2].exists()]
    deadline = time.monotonic() + 60 * options.minutes
    for fault in {fault.name: fault for fault, _, _ in waiting}.values():
        fault.plant(PACKAGE, kept / fault.folder)
    if book.cache.is_dir():
        shutil.copytree(book.cache, kept / "cache", dirs_exist_ok=True)  # networks that no fault has touched
    with (
        futures.ThreadPoolExecutor(options.workers) as pool,
        tqdm(total=len(waiting), unit="run", desc="planting", disable=None) as bar,
    ):
        running = {
            pool.submit(stopped_by, kept / fault.folder, run.chapter.path, kept / "cache", deadline): path
            for fault, run, path in waiting
        }
        for done in futures.as_completed(running):
            if done.result() is not None:
                write_atomic(running[done], json.dumps(done.result()))
            bar.update()
    table = tabulate(
        [(fault, run, json.loads(path.read_text()) if path.exists() else None) for fault, run, path in jobs]
    )
    show(table)
    if options.publish:
        write_atomic(book.faults, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    return any(not any(row["stopped"].values()) and not row["waiting"] for row in table["faults"])


def in_order(jobs: Sequence[tuple[Fault, Any, Path]], took: dict[str, dict[str, Any]]) -> list[Any]:
    """Each fault's quickest chapter, then each fault's second: soon something is known of every fault."""
    of_fault: dict[str, list[Any]] = {}
    for job in sorted(jobs, key=lambda job: took.get(job[1].chapter.slug, {}).get("seconds", 0)):
        of_fault.setdefault(job[0].name, []).append(job)
    return [job for turn in itertools.zip_longest(*of_fault.values()) for job in turn if job]


def digest(fault: Fault, run: Any) -> str:
    """A key of the chapter's run and of the fault."""
    return hashlib.sha256(json.dumps([run.key, fault.old, fault.new]).encode()).hexdigest()[:16]


def stopped_by(folder: Path, chapter: Path, cache: Path, deadline: float) -> list[str] | None:
    """What stops a chapter on the package in ``folder``: ids of claims, and the first cell that fails; None if late."""
    if time.monotonic() > deadline:
        return None
    environment = os.environ | {"ZONB_CACHE": str(cache), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, __file__, "--run", str(folder), str(chapter)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return [f"it takes more than {SECONDS} s"]
    if done.returncode:
        raise RuntimeError(f"{chapter.stem} on {folder.name}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_here(folder: str, chapter: str) -> None:
    """Execute a chapter's cells in this process on the package in ``folder``; print what stopped it."""
    sys.path.insert(0, folder)
    import jupytext

    from zonb import claims

    found: list[str] = []
    checked = claims.claim

    def noted(id: str, *arguments: Any, **settings: Any) -> None:
        try:
            checked(id, *arguments, **settings)
        except claims.ClaimError:
            found.append(id)

    claims.claim = noted
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for number, error in errors(jupytext.read(chapter).cells, namespace):
            # Cells after one that failed lack its names; the first says what stopped the chapter.
            if not any(line.startswith("cell ") for line in found):
                found.append(f"cell {number}: {type(error).__name__}: {' '.join(str(error).split())[:120]}")
    print(json.dumps(found))


def errors(cells: Sequence[Any], namespace: dict[str, Any]) -> Iterator[tuple[int, Exception]]:
    """The code cells that fail, with what they raise; the others are executed, too."""
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    for number, source in enumerate(code, start=1):
        try:
            exec(compile(source, f"cell {number}", "exec"), namespace)
        except Exception as error:
            yield number, error


def tabulate(found: Sequence[tuple[Fault, Any, list[str] | None]]) -> dict[str, Any]:
    """Each fault with what stops it in each chapter, the chapters it waits for, and the claims that stop none."""
    rows: dict[str, dict[str, Any]] = {}
    for fault, run, stopped in found:
        row = rows.setdefault(
            fault.name, {"name": fault.name, "module": fault.module, "stopped": {}, "waiting": [], "keys": {}}
        )
        if stopped is None:
            row["waiting"].append(run.chapter.slug)
        else:
            row["stopped"][run.chapter.slug], row["keys"][run.chapter.slug] = stopped, digest(fault, run)
    runs = {run.chapter.slug: run for _, run, _ in found}
    claims = [
        id for run in runs.values() for id in re.findall(r"\bclaim\(\s*\"([^\"]+)\"", "\n".join(run.chapter.code))
    ]
    stopping = {name for _, _, stopped in found for name in stopped or []}
    return {"faults": list(rows.values()), "idle": [id for id in claims if id not in stopping]}


def show(table: dict[str, Any]) -> None:
    """Print the table."""
    for row in table["faults"]:
        stops = [f"{slug[:2]}: {', '.join(stopped)}" for slug, stopped in row["stopped"].items() if stopped]
        nothing = "not run yet" if row["waiting"] else "NOTHING STOPS IT"
        print(f"{row['name']} (zonb.{row['module']}): {'; '.join(stops) or nothing}")
    print("claims that stop no fault:", ", ".join(table["idle"]) or "none")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run_here(*sys.argv[2:])
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", action="append", help="the name of a fault; all if none")
    parser.add_argument("--chapter", action="append", help="a number, such as 01; all that use the fault if none")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="chapters at a time")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no further chapter begins")
    parser.add_argument("--publish", action="store_true", help="write book/records/faults.json")
    sys.exit(main(parser.parse_args()))
