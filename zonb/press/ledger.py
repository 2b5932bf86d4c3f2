"""The ledger: every claim of an executed book, and its comparison with a published one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat

from zonb import claims
from zonb.press import chapters
from zonb.press.book import Run, RunnerError, plan

OUTCOMES = ("same", "within tolerance", "new", "missing", "differs")


def ledger(root: Path, profile: str) -> list[dict[str, Any]]:
    """Every claim of the executed book, in the order of the chapters.

    Raises:
        RunnerError: a chapter has no result for its present sources, or two claims share an id.
    """
    rows: list[dict[str, Any]] = []
    for item in _results(root, profile):
        rows += claims.collect(nbformat.read(item.path, as_version=4).cells, item.chapter.slug)
    ids = [row["id"] for row in rows]
    if twice := sorted({id for id in ids if ids.count(id) > 1}):
        raise RunnerError(f"claims share an id: {', '.join(twice)}; ids must be unique in the book")
    return rows


def compare(published: Sequence[Mapping[str, Any]], rerun: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each claim of two ledgers with both numbers and the outcome, in the order of `OUTCOMES`.

    ``same``: the numbers are identical; ``within tolerance``: they are not, but `zonb.claims.disagreements` accepts
    them; ``differs``: it does not; ``missing``: not in the rerun; ``new``: only there. ``apart`` is what that rule
    holds against the tolerances, the difference of the deviations from the formula.
    """
    old, new = ({row["id"]: row for row in rows} for rows in (published, rerun))
    compared = []
    for id in old | new:
        a, b = old.get(id), new.get(id)
        said = claims.disagreements([a] if a else [], [b] if b else [])
        numbers = [row and {name: row[name] for name in ("measured", "expected", "tolerance")} for row in (a, b)]
        apart = None
        if a is None or b is None:
            outcome = "new" if a is None else "missing"
        else:
            equal = all(a[name] == b[name] for name in ("measured", "expected"))
            outcome = "differs" if said else "same" if equal else "within tolerance"
            apart = abs(_deviation(a) - _deviation(b))
        row = {"id": id, "chapter": (new.get(id) or old[id])["chapter"], "outcome": outcome, "apart": apart}
        compared.append({**row, "published": numbers[0], "rerun": numbers[1], "reason": "".join(said) or None})
    return sorted(compared, key=lambda row: OUTCOMES.index(row["outcome"]))


def verify(root: Path, path: Path, profile: str) -> dict[str, Any]:
    """Compare the executed book's ledger with the published one in ``path``; the receipt.

    The receipt says when and by which ledger (SHA-256) it was judged, on what machines and with which versions the
    chapters ran, under which keys their results are stored, and the outcome for each claim.

    Raises:
        RunnerError: ``path`` is not a ledger, or this book has none yet.
    """
    if not path.is_file():
        raise RunnerError(f"there is no ledger {path.name}; give the file that 'zonb ledger --json' wrote")
    text, rerun = path.read_bytes(), ledger(root, profile)
    try:
        published = json.loads(text)
        if not isinstance(published, list):
            raise ValueError("it holds no list of claims")
        compared = compare(published, rerun)
    except (ValueError, TypeError, KeyError) as error:
        raise RunnerError(f"{path.name} is not a ledger: {error!r}") from None
    runs = [nbformat.read(item.path, as_version=4).metadata["zonb"] for item in _results(root, profile)]
    machines = [{"machine": facts["machine"], "versions": facts["versions"]} for facts in runs]
    counts = Counter(row["outcome"] for row in compared)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": profile,
        "ledger": {"file": path.name, "sha256": hashlib.sha256(text).hexdigest()},
        "machines": [facts for k, facts in enumerate(machines) if facts not in machines[:k]],
        "keys": {facts["chapter"]: facts["key"] for facts in runs},
        "counts": {outcome: counts[outcome] for outcome in OUTCOMES},
        "claims": compared,
    }


def _deviation(row: Mapping[str, Any]) -> float:
    gap = row["measured"] - row["expected"]
    return gap if row["relation"] == "==" else max(0.0, gap if row["relation"] == "<=" else -gap)


def _results(root: Path, profile: str) -> list[Run]:
    runs = [plan(root, chapter, {}, profile) for chapter in chapters.read_all(root)]
    for item in runs:
        if not item.done:
            raise RunnerError(f"{item.chapter.slug} has no result for its present sources; run 'zonb book' first")
    return runs
