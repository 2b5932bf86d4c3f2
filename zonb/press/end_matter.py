"""The pages at the end of the book: errata, ledger, map, planted faults, benchmarks, reproducibility, notation.

Their prose stands in the templates ``book/pages/*.md.j2``; here are the data that each is given.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from zonb.press import ledger
from zonb.press.book import Book, RunnerError
from zonb.press.records import cost

Rows = Sequence[Mapping[str, Any]]
BENCHMARKS = ("entk", "projected_entk", "nzk", "function_space", "zo_lenet", "zo_step-4", "zo_step-8", "scaling")
ERRATA = ("false", "slip", "imprecise", "sharpened")
_ERRATUM = {
    "where": "the place in the paper",
    "quote": "the paper's words",
    "reading": "the most favourable one, and what fails under it",
    "wrong": "what is true instead",
    "kind": f"one of {', '.join(ERRATA)}",
}
_THEOREMS = "Theorems, lemmas, corollaries, propositions, properties"
_HEADINGS = {"Fig.": "Figures"}  # by what a place in a paper begins with
_HEADINGS |= dict.fromkeys(("Thm.", "Lemma", "Cor.", "Prop.", "Property"), _THEOREMS)
_HEADINGS |= {"Eq.": "Equations", "Sec.": "Sections"}


def pages(book: Book, rows: Rows) -> dict[str, str]:
    """All pages in MyST by their names, from the rows of the ledger and the files of the book."""
    data = {
        "errata": {"papers": errata(yaml.safe_load(book.errata.read_text(encoding="utf-8")), rows)},
        "ledger": ledger_of(book, rows),
        "map": {"papers": places(rows)},
        "benchmarks": {"benchmarks": benchmarks(book.benchmarks)},
        "faults": faults(book, rows),
        "reproducibility": reproducibility(book),
        "notation": yaml.safe_load(book.notation.read_text(encoding="utf-8")),
    }
    return {name: render(book, name, **given) for name, given in data.items()}


def render(book: Book, name: str, **given: Any) -> str:
    """A page in MyST from the template ``book/pages/NAME.md.j2``. It must be given all that it asks for."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(book.templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= _FILTERS
    return environment.get_template(f"{name}.md.j2").render(given)


def errata(entries: Mapping[str, Any], rows: Rows) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The entries of ``book/errata.yml`` by paper and kind, each with links to its proof, chapters and checks.

    Raises:
        RunnerError: an entry is incomplete, its kind and those of its checks do not fit, or a claim of the ledger that
            is refuted or corrected is in no entry.
    """
    checks = {row["id"]: row for row in rows}
    for paper, found in entries.items():
        for entry in found:
            for complaint in _complaints(entry, checks):
                raise RunnerError(f"book/errata.yml, {paper}, {entry.get('where', 'an entry')}: {complaint}")
    named = {id for found in entries.values() for entry in found for id in entry["claims"]}
    if left := sorted(id for id, row in checks.items() if row["kind"] in ledger.WRONG and id not in named):
        raise RunnerError(f"book/errata.yml has no entry for {', '.join(left)}, which the ledger refutes or corrects")
    return {
        paper: {kind: [_linked(entry, checks) for entry in found if entry["kind"] == kind] for kind in ERRATA}
        for paper, found in entries.items()
    }


def _complaints(entry: Mapping[str, Any], checks: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an entry of ``book/errata.yml``."""
    for field, meaning in _ERRATUM.items():
        if not entry.get(field):
            yield f"it has no {field!r}, {meaning}"
    if odd := sorted(entry.keys() - _ERRATUM.keys() - {"proof", "evidence", "claims"}):
        yield f"an entry has no {odd[0]!r}"
    kind, claims = entry["kind"], entry.get("claims") or []
    if kind not in ERRATA:
        yield f"the kind {kind!r} must be one of {', '.join(ERRATA)}"
    if not claims and not (kind == "slip" and entry.get("evidence") and entry.get("claims") == []):
        yield "it names no check in 'claims'; [] is for a slip that has 'evidence'"
    if absent := [id for id in claims if id not in checks]:
        yield f"the ledger has no claim {absent[0]}"
    kinds = {checks[id]["kind"] for id in claims}
    if (kind == "false") != ("refuted" in kinds):
        yield f"it is {kind!r}; what is false has a refuted claim, and nothing else has"
    if kind == "sharpened" and kinds & set(ledger.WRONG):
        yield "what is sharpened holds; its claims are neither refuted nor corrected"


def _linked(entry: Mapping[str, Any], checks: Mapping[str, Any]) -> dict[str, Any]:
    links = [f"{{prf:ref}}`{entry['proof']}`"] if "proof" in entry else []
    links += dict.fromkeys(_doc(checks[id]["chapter"]) for id in entry["claims"])
    links += [f'<a href="ledger.html#{id}">{id}</a>' for id in entry["claims"]]
    return {**entry, "links": [*links, *filter(None, [entry.get("evidence")])]}


def ledger_of(book: Book, rows: Rows) -> dict[str, Any]:
    """The claims of each chapter, and how many there are of each kind."""
    kinds = Counter(row["kind"] for row in rows)
    return {
        "count": len(rows),
        "kinds": ", ".join(f"{kinds[kind]} {kind}" for kind in ledger.KINDS if kinds[kind]),
        "chapters": [
            {
                "slug": chapter.slug,
                "title": chapter.title,
                "rows": [row for row in rows if row["chapter"] == chapter.slug],
            }
            for chapter in book.chapters
        ],
    }


def places(rows: Rows) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Where each place of the papers is checked and with what outcome, by paper, then by kind of place."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        for source in row["source"]:
            paper, _, place = source.partition(" ")
            if place:  # what is new is in no paper
                found.setdefault((paper, place), []).append(row)
    papers: dict[str, dict[str, list[dict[str, Any]]]] = {"A": {}, "B": {}}
    for heading in dict.fromkeys(_HEADINGS.values()):
        for paper, place in sorted(found, key=lambda pair: (pair[0], _order(pair[1]))):
            if _HEADINGS[place.split()[0]] == heading:
                here = found[paper, place]
                outcome = Counter(row["kind"] if row["kind"] in ledger.WRONG else "holds" for row in here)
                papers[paper].setdefault(heading, []).append(
                    {
                        "name": place,
                        "chapters": list(dict.fromkeys(row["chapter"] for row in here)),
                        "outcome": [f"{kind}: {count}" for kind, count in outcome.items()],
                    }
                )
    return papers


def reproducibility(book: Book) -> dict[str, Any]:
    """What each executed notebook says of its run, and the machines with their versions."""
    runs = [item.result().metadata["zonb"] for item in book.runs]
    machines = [f"{facts['machine']}; {_listed(facts['versions'])}" for facts in runs]
    return {"runs": runs, "machines": list(dict.fromkeys(machines))}


def benchmarks(folder: Path) -> list[dict[str, Any]]:
    """What ``make bench`` measured, from files in ``book/records/benchmarks``, with the cells of a table."""
    published = []
    for name in BENCHMARKS:
        path = folder / f"{name}.json"
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            cells = [list(found["rows"][0]), *([cell or "" for cell in row.values()] for row in found["rows"])]
            published.append({**found, "name": name, "cells": cells})
    return published


def faults(book: Book, rows: Rows) -> dict[str, Any]:
    """The planted faults with what stops each, as ``make faults`` published them, and the claims that stop none."""
    found = json.loads(book.faults.read_text(encoding="utf-8")) if book.faults.is_file() else {"faults": [], "idle": []}
    names = {row["id"]: f'<a href="ledger.html#{row["id"]}">{row["name"]}</a>' for row in rows}
    table = [
        {
            **fault,
            "stopped": {slug: [names.get(what, what) for what in by] for slug, by in fault["stopped"].items() if by},
            "passed": [slug for slug, by in fault["stopped"].items() if not by],
        }
        for fault in found["faults"]
    ]
    return {"faults": table, "idle": [names[id] for id in found["idle"] if id in names]}


def _assigned(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _code(value: Any) -> str:
    return f"`{value}`" if value != "" else ""


def _digests(data: Mapping[str, str]) -> list[str]:
    return [f"{name} `{digest[:16]}…`" for name, digest in data.items()]


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _doc(slug: str) -> str:
    return f"{{doc}}`/notebooks/{slug}`"


def _order(place: str) -> list[Any]:
    """Numbers by size, letters before them: "Eq. 9" comes before "Eq. 10"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", place)]


_FILTERS: dict[str, Any] = {
    "assigned": _assigned,
    "code": _code,
    "cost": cost,
    "digests": _digests,
    "doc": _doc,
    "listed": _listed,
}
_FILTERS |= {name: getattr(ledger, name) for name in ("numbers", "power", "rejected", "verdict", "worst")}
