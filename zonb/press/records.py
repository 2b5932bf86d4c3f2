"""What is published of a run: a record of its claims and figures, and what it took."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from zonb import claims
from zonb.press import chapters
from zonb.press.book import Run, RunnerError, plan, write_atomic

_RECORD_BYTES = 2**20


def record(root: Path, item: Run, name: str) -> Path:
    """Publish a finished run as ``book/records/NAME.ipynb``: its facts, its claims and its figures.

    Raises:
        RunnerError: the record would exceed 1 MiB.
    """
    executed = nbformat.read(item.path, as_version=4)
    kept = []
    for cell in executed.cells:
        figure = "figure" in cell.metadata.get("mystnb", {})
        outputs = [o for o in cell.get("outputs", []) if figure or claims.MIME in o.get("data", {})]
        if outputs:
            metadata = {"mystnb": cell.metadata["mystnb"]} if figure else {}
            kept.append(nbformat.v4.new_code_cell(cell.source, outputs=outputs, metadata=metadata, id=cell["id"]))
    executed.cells = kept
    text = nbformat.writes(executed)
    if len(text.encode()) > _RECORD_BYTES:
        size = len(text.encode()) / 2**20
        raise RunnerError(f"the record of {item.chapter.slug} has {size:.1f} MiB, 1 at most: draw smaller figures")
    path = root / "book" / "records" / f"{name}.ipynb"
    write_atomic(path, text + "\n")
    return path


def times(root: Path, profile: str) -> dict[str, dict[str, Any]]:
    """What each chapter took when it was last executed on this machine with the profile's parameters.

    Results of code that has changed since count, too: the key tells. Chapters that never ran are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for chapter in chapters.read_all(root):
        item = plan(root, chapter, {}, profile)
        results = item.path.parent.glob(f"{chapter.slug}-{'[0-9a-f]' * len(item.key)}.ipynb")
        for path in sorted(results, key=lambda path: path.stat().st_mtime):
            facts = nbformat.read(path, as_version=4).metadata["zonb"]
            if facts["parameters"] == item.parts["parameters"]:
                date = datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()
                kept = {name: facts[name] for name in ("key", "seconds", "peak_mib", "threads", "machine")}
                found[chapter.slug] = {"date": date, **kept}
    return found
