"""The ledger: every claim of an executed book, its wording beside its numbers, and its comparison with a published one.

How a claim's numbers are put into words stands here, too, so that a page, the ledger and the command line say the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from zonb.claims import MIME
from zonb.press.book import Book, RunnerError, finished

KINDS = ("holds", "sharpened", "holds with correction", "refuted", "known", "new")
WRONG = ("refuted", "holds with correction")
OUTCOMES = ("same", "within tolerance", "new", "missing", "differs")
_SOURCE = re.compile(r"new|[AB] (Eq\.|Fig\.|Lemma|Thm\.|Cor\.|Prop\.|Property|Sec\.) [A-Z0-9][A-Za-z0-9.]*")
_FIELDS = {"name", "kind", "source", "statement", "says", "paper", "reference"}
_SIGN = {"==": "", "<=": "at most ", ">=": "at least "}


def collect(cells: Iterable[Mapping[str, Any]], chapter: str) -> list[dict[str, Any]]:
    """The records that a notebook's cells display, in order, each with its chapter."""
    return [
        {**output["data"][MIME], "chapter": chapter}
        for cell in cells
        for output in cell.get("outputs", [])
        if MIME in output.get("data", {})
    ]


def wording(book: Book) -> dict[str, dict[str, Any]]:
    """The entries of ``book/claims.yml`` by their ids.

    Raises:
        RunnerError: an entry is incomplete, or of another form than the head of that file says.
    """
    name = book.wording.relative_to(book.root)
    try:
        entries = yaml.safe_load(book.wording.read_text(encoding="utf-8")) if book.wording.is_file() else {}
    except yaml.YAMLError as error:
        raise RunnerError(f"{name} is not YAML: {error}") from None
    for id, entry in entries.items():
        for complaint in _complaints(entry):
            raise RunnerError(f"{name}, {id}: {complaint}")
    return entries


def worded(records: Iterable[Mapping[str, Any]], entries: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Records joined with their entries: rows of a ledger.

    Raises:
        RunnerError: a record has no entry.
    """
    rows = []
    for record in records:
        if record["id"] not in entries:
            raise RunnerError(
                f"the claim {record['id']} of {record['chapter']} has no entry in book/claims.yml: add "
                f"'{record['id']}:' with name, kind, source and statement"
            )
        entry = entries[record["id"]]
        if "paper" in entry and entry["paper"] not in record["rejects"]:
            raise RunnerError(
                f"the claim {record['id']} rejects no formula {entry['paper']!r}, as book/claims.yml says"
            )
        rows.append({**entry, **record})
    return rows


def rows(book: Book) -> list[dict[str, Any]]:
    """Every claim of the executed book, in the order of the chapters: its record, its chapter, and its wording.

    Raises:
        RunnerError: a chapter has no result for its present sources, a claim has no entry, or two share an id.
    """
    records = [row for item in finished(book.runs) for row in collect(item.result().cells, item.chapter.slug)]
    if twice := sorted(id for id, count in Counter(row["id"] for row in records).items() if count > 1):
        raise RunnerError(f"claims share an id: {', '.join(twice)}; ids must be unique in the book")
    return worded(records, wording(book))


def verdict(row: Mapping[str, Any]) -> str:
    """What the check means for the papers: the kind, and of a refuted statement what it says and what was measured."""
    if row["kind"] != "refuted":
        return row["kind"]
    measured = row["against"][row["paper"]] if "paper" in row else row["measured"]
    return f"the paper says {row['says']}; measured {measured:.4g}: refuted"


def numbers(row: Mapping[str, Any]) -> str:
    """What was measured, for what: of several comparisons mean and spread; of a bound, and of one, the worst."""
    if row["comparisons"] > 1 and row["relation"] == "==":
        measured, expected = row["mean"]
        return f"{measured:.4g} ± {row['spread']:.2g} for {expected:.4g} (mean and spread of {row['comparisons']})"
    return worst(row)


def worst(row: Mapping[str, Any]) -> str:
    """The comparison that is furthest off, with its error."""
    of = f", the worst of {row['comparisons']}" if row["comparisons"] > 1 else ""
    return f"{row['measured']:.4g} ± {_error(row)} for {_SIGN[row['relation']]}{row['expected']:.4g}{of}"


def power(row: Mapping[str, Any]) -> str:
    """How far off a formula must be to be rejected.

    >>> power({"power": {"relative": 0.031}})
    'a formula off by more than 3.1 % would have been rejected'
    """
    ((kind, size),) = row["power"].items()
    shown = f"{100 * size:.2g} %" if kind == "relative" else f"{size:.2g}"
    return f"a formula off by more than {shown} would have been rejected"


def rejected(row: Mapping[str, Any]) -> str:
    """The wrong formulas that were put in the place of the right one, and what each would have expected."""
    return "; ".join(f"{name} ({value:.4g})" for name, value in row["rejects"].items())


def compare(published: Sequence[Mapping[str, Any]], rerun: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each claim of two ledgers with both numbers and the outcome, in the order of `OUTCOMES`.

    What must be the same on another machine is not the number itself, since a network trained there may differ in its
    last digits, but how far it lies from what its formula expects. Two measurements of one claim agree if these
    deviations are ``apart`` by no more than is ``allowed``, both tolerances together (root of the sum of squares); of a
    bound, only what breaks it counts. Kinds must be equal, and neither ledger may lack a claim of the other.

    ``same``: the numbers are identical; ``within tolerance``: they are not, but they agree; ``differs``: they do not;
    ``missing``: not in the rerun; ``new``: only there. ``said`` puts it in a sentence.

    >>> row = {"id": "c", "chapter": "01", "kind": "holds", "relation": "==", "expected": 1.0, "tolerance": 0.3}
    >>> for measured in (1.4, 2.0):
    ...     (found,) = compare([{**row, "measured": 1.0}], [{**row, "measured": measured}])
    ...     print(found["said"])
    within tolerance: c: published 1 for 1, rerun 1.4 for 1: 0.4 apart, 0.42 allowed
    differs: c: published 1 for 1, rerun 2 for 1: 1 apart, 0.42 allowed
    """
    old, new = ({row["id"]: row for row in rows} for rows in (published, rerun))
    compared = [_compared(id, old.get(id), new.get(id)) for id in old | new]
    return sorted(compared, key=lambda row: OUTCOMES.index(row["outcome"]))


def verify(book: Book, path: Path) -> dict[str, Any]:
    """Compare the executed book's ledger with the published one in ``path``; the receipt.

    The receipt says when and by which ledger (SHA-256) it was judged, on what machines and with which versions the
    chapters ran, under which keys their results are stored, and the outcome for each claim.

    Raises:
        RunnerError: ``path`` is not a ledger, or this book has none yet.
    """
    if not path.is_file():
        raise RunnerError(f"there is no ledger {path.name}; give the file that 'zonb ledger --json' wrote")
    text, rerun = path.read_bytes(), rows(book)
    try:
        published = json.loads(text)
        if not isinstance(published, list):
            raise ValueError("it holds no list of claims")
        compared = compare(published, rerun)
    except (ValueError, TypeError, KeyError) as error:
        raise RunnerError(f"{path.name} is not a ledger: {error!r}") from None
    runs = [item.result().metadata["zonb"] for item in book.runs]
    machines = [{"machine": facts["machine"], "versions": facts["versions"]} for facts in runs]
    counts = Counter(row["outcome"] for row in compared)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "profile": book.profile,
        "ledger": {"file": path.name, "sha256": hashlib.sha256(text).hexdigest()},
        "machines": [facts for k, facts in enumerate(machines) if facts not in machines[:k]],
        "keys": {facts["chapter"]: facts["key"] for facts in runs},
        "counts": {outcome: counts[outcome] for outcome in OUTCOMES},
        "claims": compared,
    }


def _complaints(entry: Mapping[str, Any]) -> list[str]:
    """What is wrong with an entry of ``book/claims.yml``."""
    if not isinstance(entry, dict) or not {"name", "kind", "source", "statement"} <= entry.keys() <= _FIELDS:
        return [f"an entry has name, kind, source and statement, and of {', '.join(sorted(_FIELDS))} what it needs"]
    found = [f"the kind {entry['kind']!r} must be one of {', '.join(KINDS)}"] * (entry["kind"] not in KINDS)
    for place in entry["source"]:
        if not _SOURCE.fullmatch(place):
            found.append(f"the source {place!r} must read like 'A Eq. 5', 'B Thm. 1' or 'new'")
    for field, kind in (("says", "refuted"), ("reference", "known")):
        if (field in entry) != (entry["kind"] == kind):
            found.append(f"{field!r} belongs to what is {kind}, and to that alone")
    return found


def _error(row: Mapping[str, Any]) -> str:
    return f"{row['tolerance']:.2g} (tolerance)" if row["sem"] is None else f"{row['sem']:.2g}"


def _compared(id: str, a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> dict[str, Any]:
    either = a or b or {}
    row: dict[str, Any] = {"id": id, "chapter": either["chapter"], "apart": None, "allowed": None}
    if a is None or b is None:
        row["outcome"], where = ("new", "the rerun") if a is None else ("missing", "the published ledger")
        reason = f"only in {where}"
    else:
        row["apart"] = abs(_deviation(a) - _deviation(b))
        row["allowed"] = math.hypot(a["tolerance"], b["tolerance"])
        equal = all(a[name] == b[name] for name in ("measured", "expected"))
        agree = row["apart"] <= row["allowed"] and a["kind"] == b["kind"]
        row["outcome"] = "differs" if not agree else "same" if equal else "within tolerance"
        both = [f"{one['measured']:.6g} for {one['expected']:.6g}" for one in (a, b)]
        reason = f"published {both[0]}, rerun {both[1]}: {row['apart']:.2g} apart, {row['allowed']:.2g} allowed"
        if a["kind"] != b["kind"]:
            reason += f"; published as {a['kind']!r}, here {b['kind']!r}"
    for name, one in (("published", a), ("rerun", b)):
        row[name] = one and {key: one[key] for key in ("measured", "expected", "tolerance")}
    return {**row, "said": f"{row['outcome']}: {id}: {reason}"}


def _deviation(row: Mapping[str, Any]) -> float:
    """How far a measurement lies from what is expected; of a bound, by how much it is broken."""
    gap = row["measured"] - row["expected"]
    return gap if row["relation"] == "==" else max(0.0, gap if row["relation"] == "<=" else -gap)
