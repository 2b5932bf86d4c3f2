"""What is published of runs: records of their claims and figures at full scale, and what they took."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from zonb.claims import MIME
from zonb.press.book import QUICK, Book, Run, RunnerError, write_atomic

_RECORD_BYTES = 2**20


def record(book: Book, item: Run, name: str) -> Path:
    """Publish a finished run as ``book/records/NAME.ipynb``: its facts, its claims and its figures.

    Raises:
        RunnerError: the record would exceed 1 MiB.
    """
    executed = item.result()
    kept = []
    for cell in executed.cells:
        figure = "figure" in cell.metadata.get("mystnb", {})
        outputs = [o for o in cell.get("outputs", []) if figure or MIME in o.get("data", {})]
        if outputs:
            metadata = {"mystnb": cell.metadata["mystnb"]} if figure else {}
            kept.append(nbformat.v4.new_code_cell(cell.source, outputs=outputs, metadata=metadata, id=cell["id"]))
    executed.cells = kept
    text = nbformat.writes(executed)
    if len(text.encode()) > _RECORD_BYTES:
        size = len(text.encode()) / 2**20
        raise RunnerError(f"the record of {item.chapter.slug} has {size:.1f} MiB, 1 at most: draw smaller figures")
    path = book.records / f"{name}.ipynb"
    write_atomic(path, text + "\n")
    return path


def publish_times(book: Book) -> int:
    """Add to ``book/records/times.json`` what the chapters took under the book's profile; how many were measured.

    Raises:
        RunnerError: the profile is the quick one.
    """
    if book.profile == QUICK:
        raise RunnerError("a page says itself what the quick profile took; give another --profile")
    known, found = _published_times(book), times(book)
    known[book.profile] = dict(sorted({**known.get(book.profile, {}), **found}.items()))
    write_atomic(book.times, json.dumps(known, indent=1) + "\n")
    return len(found)


def times(book: Book) -> dict[str, dict[str, Any]]:
    """What each chapter took when it was last executed on this machine with the profile's parameters.

    A result counts even if the code has changed since; its key shows that. Chapters that never ran are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in book.runs:
        results = book.results.glob(f"{item.chapter.slug}-{'[0-9a-f]' * len(item.key)}.ipynb")
        for path in sorted(results, key=lambda path: path.stat().st_mtime):
            facts = nbformat.read(path, as_version=4).metadata["zonb"]
            if facts["parameters"] == item.parts["parameters"]:
                date = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
                kept = {name: facts[name] for name in ("key", "seconds", "peak_mib", "threads", "machine")}
                found[item.chapter.slug] = {"date": date, **kept}
    return found


def times_under_profiles(book: Book) -> dict[str, dict[str, str]]:
    """What each chapter took under each profile in ``profiles/``, as published: by slug, then by profile."""
    known = _published_times(book)
    found: dict[str, dict[str, str]] = {slug: {} for slug in book.sources}
    for profile in book.profile_names:
        for item in book.under(profile).runs:
            facts, said = known.get(profile, {}).get(item.chapter.slug), "not measured"
            if facts:
                stale = ", before its sources last changed" if facts["key"] != item.key else ""
                said = f"{cost(facts)}, on {facts['date']}{stale}"
            found[item.chapter.slug][profile] = said
    return found


def cost(facts: Mapping[str, Any]) -> str:
    """Time, memory, threads and machine of a run, in words."""
    memory = "" if facts["peak_mib"] is None else f", {facts['peak_mib']} MiB of memory"
    threads = "" if facts["threads"] is None else f", {facts['threads']} thread{'s' * (facts['threads'] != '1')}"
    return f"{facts['seconds']} s{memory}{threads} ({facts['machine']})"


def _published_times(book: Book) -> dict[str, Any]:
    return json.loads(book.times.read_text(encoding="utf-8")) if book.times.is_file() else {}
