"""The pages at the end of the book: errata, ledger, map, benchmarks, reproducibility, notation."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from zonb.press.book import Run, RunnerError

_WRONG = ("refuted", "holds with correction")
BENCHMARKS = ("entk", "projected_entk", "nzk", "function_space", "zo_lenet", "zo_step-4", "zo_step-8", "scaling")
_KINDS = {  # how a place in a paper begins: heading
    "Fig.": "Figures",
    "Thm.": "Theorems, lemmas, corollaries, propositions, properties",
    "Lemma": "Theorems, lemmas, corollaries, propositions, properties",
    "Cor.": "Theorems, lemmas, corollaries, propositions, properties",
    "Prop.": "Theorems, lemmas, corollaries, propositions, properties",
    "Property": "Theorems, lemmas, corollaries, propositions, properties",
    "Eq.": "Equations",
    "Sec.": "Sections",
}


def notation_page(notation: Mapping[str, Any]) -> str:
    """The notation page from ``book/notation.yml``."""
    rows = [["symbol", "meaning", "in paper A", "in paper B", "code name", "shape"]]
    for symbol in notation["symbols"]:
        code = f"`{symbol['code']}`" if symbol.get("code") else ""
        papers = [symbol.get(paper, "") for paper in ("A", "B")]
        rows.append([f"${symbol['tex']}$", symbol["meaning"], *papers, code, symbol.get("shape", "")])
    return f"# Notation\n\n{notation['introduction']}\n\n{table(rows, 'Symbols used throughout the book')}"


def ledger_page(rows: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> str:
    """Every claim with its source, verdict and numbers."""
    titles = {item.chapter.slug: item.chapter.title for item in runs}
    counts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(row["verdict"] for row in rows).items())
    text = (
        "# Ledger of claims\n\n"
        f"Every claim that the book checks: {len(rows)} so far ({counts}). A claim is recorded by the notebook that "
        "checks it, at the moment the check passes; if it failed, this page would not exist. *Rejected* lists wrong "
        "formulas that the same data was shown to tell apart from the right one. The rows are also a file, "
        '<a href="../ledger.json">ledger.json</a>; `zonb verify ledger.json` compares it with a run of your own.\n\n'
        '<div id="zonb-ledger-filter"></div>\n'
    )
    for slug, title in titles.items():
        of_chapter = [row for row in rows if row["chapter"] == slug]
        text += f"\n## {title}\n\nFrom {{doc}}`/notebooks/{slug}`.\n\n{claims_table(of_chapter, anchors=True)}"
    return text


def claims_table(rows: Iterable[Mapping[str, Any]], *, anchors: bool = False) -> str:
    """Claims, one a row; in the ledger each is the target of links."""
    cells = [["claim", "statement", "numbers"]]
    for row in rows:
        wrong = "; ".join(f"{name} ({value:.4g})" for name, value in row["rejects"].items())
        about = f"`{row['id']}`<br>{row['source']}<br>**{row['verdict']}**"
        if anchors:
            about = f'<span id="{row["id"]}"></span>{about}'
        cells.append([about, f"{row['statement']}<br>*Rejected:* {wrong}.", _numbers(row)])
    return table(cells, "Claims", "26 50 24")


def errata_page(errata: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What the papers say that does not hold as written, from ``book/errata.yml``, with the checks of the ledger.

    Raises:
        RunnerError: an entry names a check that the ledger does not have with such a verdict, or one is in no entry.
    """
    checks = {row["id"]: row for row in rows if row["verdict"] in _WRONG}
    named = [name for entries in errata.values() for entry in entries for name in entry["claims"]]
    if odd := sorted(set(named) ^ set(checks)):
        raise RunnerError(
            f"book/errata.yml and the ledger disagree about {', '.join(odd)}: each claim that is refuted or corrected "
            "belongs to an entry, and to such claims alone"
        )
    text = (
        "# Errata\n\n"
        "Statements of the two papers that are wrong, or right only after a correction: what is said (in our words), "
        "what is wrong with it, where that is proved, and the checks that run. Paper A is {cite:t}`li2026zo`, paper B "
        "{cite:t}`zhang2026nzk`. Everything else that was checked holds; see {doc}`/book/ledger`.\n"
    )
    for paper, entries in errata.items():
        cells = [["where", "what is said, and what is true", "proof and checks"]]
        for entry in entries:
            found = [checks[name] for name in entry["claims"]]
            verdict = "refuted" if any(row["verdict"] == "refuted" for row in found) else "holds with correction"
            places = dict.fromkeys(row["chapter"] for row in found)
            proof = [f"{{prf:ref}}`{entry['proof']}`"] if "proof" in entry else []
            proof += [f"{{doc}}`/notebooks/{slug}`" for slug in places]
            proof += [f'<a href="ledger.html#{name}">{name}</a>' for name in entry["claims"]]
            cells.append(
                [
                    f"{entry['where']}<br>**{verdict}**",
                    f"*Said:* {entry['says']}<br>*True:* {entry['wrong']}",
                    "<br>".join(proof),
                ]
            )
        text += f"\n## Paper {paper}\n\n{table(cells, f'Corrections to paper {paper}', '18 54 28')}"
    return text


def map_page(rows: Sequence[Mapping[str, Any]]) -> str:
    """Where each figure, equation and theorem of the papers is checked, from the sources of the claims."""
    places: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        for source in row["source"].split(" ; "):
            paper, _, place = source.partition(" ")
            if paper in ("A", "B"):
                places.setdefault((paper, place), []).append(row)
    text = (
        "# From the papers to this book\n\n"
        "Where each figure, equation, theorem and section of the papers is derived, drawn again or checked, and with "
        "what outcome. Paper A is {cite:t}`li2026zo`, paper B {cite:t}`zhang2026nzk`. What is marked new in "
        "{doc}`/book/ledger` is in neither.\n"
    )
    for paper in ("A", "B"):
        text += f"\n## Paper {paper}\n"
        for kind in dict.fromkeys(_KINDS.values()):
            cells = [["place", "chapter", "outcome"]]
            found = [place for of, place in places if of == paper and _KINDS.get(place.split()[0]) == kind]
            for place in sorted(found, key=_order):
                here = places[paper, place]
                chapters = dict.fromkeys(row["chapter"] for row in here)
                outcome = Counter(row["verdict"] if row["verdict"] in _WRONG else "holds" for row in here)
                cells.append(
                    [
                        place,
                        "<br>".join(f"{{doc}}`/notebooks/{slug}`" for slug in chapters),
                        "<br>".join(f"{verdict}: {count}" for verdict, count in outcome.items()),
                    ]
                )
            if len(cells) > 1:
                text += f"\n### {kind} of paper {paper}\n\n{table(cells, f'{kind} of paper {paper}', '22 50 28')}"
    return text


def reproducibility_page(runs: Sequence[Run]) -> str:
    """How to get the same numbers, and time, memory, parameters and versions of each executed notebook."""
    cells = [["chapter", "time", "peak memory", "threads", "parameters", "key"]]
    machines: dict[str, None] = {}
    for item in runs:
        facts = nbformat.read(item.path, as_version=4).metadata["zonb"]
        values = ", ".join(f"{name}={value}" for name, value in facts["parameters"].items())
        memory = "" if facts["peak_mib"] is None else f"{facts['peak_mib']} MiB"
        title = f"{{doc}}`/notebooks/{item.chapter.slug}`"
        cells.append([title, f"{facts['seconds']} s", memory, str(facts["threads"]), f"`{values}`", f"`{item.key}`"])
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        machines[f"{facts['machine']}; {versions}"] = None
    return (
        "# Reproducibility\n\n"
        "Every page with numbers follows from its **key**, a hash of its code cells, the `zonb` modules they import, "
        "the locked versions of all packages, the checksums of the data, and its parameters. The same key on the same "
        "machine gives the same ledger. Between machines, sums are rounded in another order; each claim says by a "
        "standard error or a tolerance how far its number may move, and `zonb verify` compares yours with the "
        "published ones claim by claim.\n\n"
        "- **Seeds.** Each use of random numbers has a generator of its own, made from the seed and the number of the "
        "use. `-p seed=1` draws everything anew, and the claims must still pass.\n"
        "- **Threads.** Chapters share the cores. Another number of threads adds up sums in another order, and moves "
        "numbers within their tolerance.\n"
        "- **Data.** Samples of the real data ship with the package; their SHA-256 is in the key. The whole data sets "
        "are read from a folder of yours and checked (`-p source=full`).\n"
        "- **Full scale.** Runs that take long are executed once and published under *At full scale*, each with its "
        "machine, time and versions; such a page says when its sources have changed since.\n\n"
        "## How each page was made\n\n"
        "Wall time and peak memory of its kernel, and the parameters it ran with.\n\n"
        + table(cells, "One row a notebook")
        + "\nMachine and versions: "
        + " and ".join(machines)
        + ".\n"
    )


def benchmarks_page(folder: Path) -> str:
    """What ``make bench`` measured, from the files published in ``book/records/benchmarks``."""
    text = (
        "# Benchmarks\n\n"
        "The same work done by zonb and by what a reader would use instead: torch.func's tutorials, neural-tangents on "
        "JAX, a loop over autograd, and the plain published algorithms, written from their descriptions. The ways of a "
        "table are first seen to agree, then timed in turn, round after round, on one machine with nothing else to do; "
        "a time is the median with the smallest and the largest, a ratio the median of the ratios within a round. "
        "Memory is what a second call needs at its peak beyond what stood ready, in a process of its own. These are "
        "measurements on one machine, not claims. `make bench` repeats them; {doc}`/book/extend` says how to publish "
        "yours.\n"
    )
    for name in BENCHMARKS:
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        rows = [list(found["rows"][0]), *([str(cell or "") for cell in row.values()] for row in found["rows"])]
        versions = ", ".join(f"{package} {number}" for package, number in found["versions"].items())
        text += f"\n## {found['title']}\n\n{table(rows, found['title'])}\n{' '.join(found['notes'])}\n\n"
        if figure := found.get("figure"):
            text += (
                f"```{{figure}} figures/benchmark-{name}.svg\n:name: fig-benchmark-{name}\n:alt: {figure['alt']}\n\n"
                f"{figure['caption']}\n```\n\n"
            )
        text += f"{found['machine']}, Python {found['python']}, {versions}; {found['date']}.\n"
    return text


def table(rows: Iterable[Sequence[str]], title: str, widths: str = "auto") -> str:
    """A MyST table; the first row is its head. On a phone the cells of a row are under each other."""
    rows = list(rows)
    if len(rows) == 1:
        return "None so far.\n"
    lines = [
        f"````{{list-table}} {title}",
        ":header-rows: 1",
        ":class: zonb-table",
        f":widths: {widths}",
        "",
    ]
    for row in rows:
        lines += [f"{'*' if k == 0 else ' '} - {cell}" for k, cell in enumerate(row)]
    return "\n".join([*lines, "````", ""])


def _numbers(row: Mapping[str, Any]) -> str:
    sign = {"==": "", "<=": "at most ", ">=": "at least "}[row["relation"]]
    error = f"sem {row['sem']:.1e}" if row["sem"] is not None else f"tolerance {row['tolerance']:.1e}"
    numbers = f"measured {row['measured']:.4g}<br>expected {sign}{row['expected']:.4g}<br>{error}"
    return numbers + (f"<br>worst of {row['comparisons']}" if row["comparisons"] > 1 else "")


def _order(place: str) -> list[Any]:
    """Numbers by size, letters before them: "Eq. 9" comes before "Eq. 10"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", place)]
