"""The site: executed notebooks, prose and pages derived from both, rendered by Jupyter Book with execution off."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml
from bs4 import BeautifulSoup
from filelock import FileLock

from zonb import chapters, claims
from zonb.chapters import Chapter, ParameterError
from zonb.runner import Run, RunnerError, plan

_KEY = ".zonb-key"
_CARDS = "cards-data.js"
_WORDS_A_MINUTE = 150  # of text with formulas
# Shipped by the theme and by MathJax, asked for by no page. What MathJax's menu can load at run time stays.
UNUSED = {
    "**/*.map": "source maps, for who debugs the theme",
    "_static/locales": "translations, used while rendering",
    "_static/vendor/fontawesome/webfonts/*.ttf": "browsers take the woff2 beside it",
    "_static/mathjax/[!t]*.js": "parts of the bundle tex-chtml.js, and other bundles",
    "_static/mathjax/tex-[!c]*.js": "other bundles",
    "_static/mathjax/tex-chtml-*.js": "other bundles",
    "_static/mathjax/adaptors": "for use without a browser",
    "_static/mathjax/input/asciimath.js": "no page writes AsciiMath",
    "_static/mathjax/input/tex*.js": "part of the bundle",
    "_static/mathjax/output/chtml.js": "part of the bundle",
    "_static/mathjax/output/chtml/fonts/tex.js": "part of the bundle",
    "_static/mathjax/ui": "its menu is part of the bundle",
}
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
REPOSITORY = "ZONB_REPOSITORY"  # names the environment variable with the public address, if there is one
_ADDRESS = re.compile(r"https://(?:github|gitlab)\.com/[\w.-]+/[\w.-]+")
_STRICT = ("-W", "-n", "--keep-going", "-q")
# The first cell of a downloaded notebook.
_NEEDS = """\
import importlib.util

if importlib.util.find_spec("zonb") is None:
    raise ModuleNotFoundError(
        "This notebook needs the package zonb. Install it, in the folder of the book, and restart the kernel: "
        "pip install -r requirements.txt && pip install --no-deps {folder}"
    )"""
# Jupyter Book's command line, in a process that leaves when its parent is killed.
_JUPYTER_BOOK = """
import os, threading, time
from jupyter_book.cli.main import main
parent = os.getppid()
def leave_with_parent():
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
threading.Thread(target=leave_with_parent, daemon=True).start()
main()
"""


def build(root: Path, runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> int:
    """Build ``_build/html`` from executed runs and the ledger's rows; return the exit status.

    Strict: a Sphinx warning fails the build. Every build starts from an empty folder (Sphinx reports a warning
    only the first time), and the site is replaced only when complete. Nothing happens if nothing changed.
    """
    target = root / "_build" / "html"
    target.parent.mkdir(exist_ok=True)
    with FileLock(target.parent / ".html.lock"):  # the site that began last is the one that stays
        for left in target.parent.glob(".site-*"):  # by a build that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".site-") as folder:
            return _render(root, target, Path(folder), runs, rows)


def _render(root: Path, target: Path, folder: Path, runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> int:
    source = folder / "source"
    _assemble(root, source, runs, rows)
    key = _folder_key(source, root / "requirements.txt")
    index = target / "index.html"
    if index.is_file() and (target / _KEY).is_file() and (target / _KEY).read_text() == key:
        print(f"the site is up to date: {os.path.relpath(index)}")
        return 0
    done = subprocess.run(
        [sys.executable, "-c", _JUPYTER_BOOK, "build", str(source), "--path-output", str(folder), *_STRICT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    built = folder / "_build" / "html"
    if done.returncode != 0 or not (built / "index.html").is_file():
        print(done.stdout + done.stderr, file=sys.stderr)
        print("zonb: the site was not built; the one in _build/html, if any, is left as it was", file=sys.stderr)
        return 1
    shutil.rmtree(built / ".doctrees", ignore_errors=True)
    notation = yaml.safe_load((root / "book" / "notation.yml").read_text())
    (built / "_static" / _CARDS).write_text(cards(built / "book") + symbol_cards(notation), encoding="utf-8")
    _slim(built, {item.chapter.slug: item.chapter for item in runs})
    (built / "ledger.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    (built / _KEY).write_text(key)
    if target.exists():
        target.rename(folder / "replaced")
    built.rename(target)
    print(f"the site is built: {os.path.relpath(index)}")
    return 0


def chapter_page(
    run: Run, runs: Sequence[Run], records: Sequence[Path] = (), took: Mapping[str, str] | None = None
) -> nbformat.NotebookNode:
    """The chapter's cells, prose and tags as they are now, with the outputs of the run.

    Under the title stand time and neighbours among all ``runs``, at the end how to run it again and how to cite it.

    Raises:
        ValueError: the run is of other code.
    """
    executed = nbformat.read(run.path, as_version=4)
    injected = [cell for cell in executed.cells if cell["id"] == "injected-parameters"]
    outputs = iter([cell for cell in executed.cells if cell.cell_type == "code" and cell not in injected])
    cells = []
    for k, source in enumerate(run.chapter.notebook.cells):
        cell = nbformat.from_dict({**source, "id": f"cell-{k}"})
        cells.append(cell)
        if cell.cell_type == "code":
            ran = next(outputs, None)
            if ran is None or ran.source != cell.source:
                raise ValueError(f"{run.path.name}: cell {k} is not the code that was executed")
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
            for output in cell.outputs:
                output.get("data", {}).pop(claims.MIME, None)  # for the ledger, not for the page
            if "parameters" in cell.metadata.get("tags", []):
                cells += injected
    facts = executed.metadata["zonb"]
    about = about_box(run.chapter, [other.chapter for other in runs], facts)
    cells[0].source = re.sub(r"^(# .+\n)", lambda title: f"{title[1]}\n{about}", cells[0].source, count=1)
    of_this = [path.stem for path in records if path.stem.startswith(f"{run.chapter.slug}-")]
    cells.append(nbformat.v4.new_markdown_cell(rerun_box(run, facts, of_this, took or {}), id="rerun"))
    return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": executed.metadata, "cells": cells})


def record_page(root: Path, path: Path) -> nbformat.NotebookNode:
    """A published full-scale run: its facts, its claims, its figures, and whether its sources are still the same."""
    recorded = nbformat.read(path, as_version=4)
    facts = recorded.metadata["zonb"]
    slug, given = facts["chapter"], facts["parameters"]
    source = chapters.paths(root).get(slug)
    if source is None:
        raise RunnerError(f"{path.name} is a record of {slug}, which is no chapter: delete it or record it anew")
    chapter = chapters.read(source)
    try:
        fresh = plan(root, chapter, given).key == facts["key"]
    except ParameterError:  # a parameter was renamed, or its range was narrowed
        fresh = False
    rows = [["what", "value"], ["parameters", ", ".join(f"`{name}={value}`" for name, value in given.items())]]
    rows += [["time, peak memory", f"{facts['seconds']} s, {facts['peak_mib']} MiB, {facts['threads']} thread(s)"]]
    rows += [["machine", facts["machine"]]]
    rows += [["versions", ", ".join(f"{name} {number}" for name, number in facts["versions"].items())]]
    rows += [["data (SHA-256)", "<br>".join(f"{name} `{digest[:16]}…`" for name, digest in facts["data"].items())]]
    rows += [["key", f"`{facts['key']}`"]]
    state = "Its sources are still those of the chapter."
    if not fresh:
        state = "**Stale:** code, package, lock file or data have changed since; `zonb record` makes it anew."
    text = (
        f"# At full scale: {chapter.title} ({path.stem.removeprefix(f'{slug}-').replace('-', ' ')})\n\n"
        f"Claims and figures of {{doc}}`/notebooks/{slug}`, executed once with the parameters below and published with "
        f"the book, so that nobody need repeat it. {state}\n\n"
        f"{table(rows, 'Facts of the run')}\n"
        f"## Claims\n\n{claims_table(claims.collect(recorded.cells, slug))}\n"
        "## Figures\n"
    )
    cells = [nbformat.v4.new_markdown_cell(text, id="facts")]
    for cell in recorded.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure")
        if figure:
            figure["name"] = f"{path.stem.replace('.', '-')}-{figure['name']}"
            cell.metadata["tags"] = ["remove-input"]
            cells.append(cell)
    return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": recorded.metadata, "cells": cells})


def about_box(chapter: Chapter, everything: Sequence[Chapter], facts: Mapping[str, Any]) -> str:
    """How long a chapter takes to read and took to run, what it builds on, and what refers back to it."""
    prose = " ".join(cell.source for cell in chapter.notebook.cells if cell.cell_type == "markdown")
    minutes = max(1, round(len(prose.split()) / _WORDS_A_MINUTE))
    slugs = [other.slug for other in everything]
    before = [slug for slug in _references(chapter) if slug < chapter.slug and slug in slugs]
    after = [other.slug for other in everything if other.slug > chapter.slug and chapter.slug in _references(other)]
    lines = [f"About {minutes} minutes to read with all proofs; {facts['seconds']} s to run for this page."]
    for text, found in (("Builds on", before), ("Comes back in", after)):
        if found:
            lines.append(f"{text} {', '.join(f'{{doc}}`/notebooks/{slug}`' for slug in sorted(set(found)))}.")
    return "\n".join(["```{div} zonb-about", *lines, "```", ""])


def download(chapter: Chapter, parameters: Mapping[str, Any], repository: str = "") -> nbformat.NotebookNode:
    """The notebook that a page offers: the chapter without outputs, to be executed with the page's parameters.

    Its first cell says how to install ``zonb`` where it is missing.
    """
    cells = [nbformat.v4.new_code_cell(_NEEDS.format(folder=f"git+{repository}" if repository else "."), id="needs")]
    for k, source in enumerate(chapter.notebook.cells):
        cells.append(nbformat.from_dict({**source, "id": f"cell-{k}"}))
        if "parameters" in source.metadata.get("tags", []):
            lines = [f"{name} = {value!r}" for name, value in parameters.items()]
            cells.append(
                nbformat.v4.new_code_cell("\n".join(["# Parameters of the page", *lines]), id="page-parameters")
            )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


def buttons(repository: str) -> dict[str, dict[str, Any]]:
    """Settings of Jupyter Book for buttons to the repository, Binder and (from GitHub) Colab; none without an address.

    Raises:
        RunnerError: it is not the address of a repository on GitHub or GitLab.
    """
    if not repository:
        return {}
    if not _ADDRESS.fullmatch(repository):
        raise RunnerError(f"{REPOSITORY}={repository} must read https://github.com/OWNER/NAME, or gitlab.com")
    launch = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
    if repository.startswith("https://github.com/"):
        launch["colab_url"] = "https://colab.research.google.com"
    return {
        "repository": {"url": repository, "branch": "HEAD", "path_to_book": ""},
        "html": {"use_repository_button": True, "use_issues_button": True},
        "launch_buttons": launch,
    }


def rerun_box(
    run: Run, facts: Mapping[str, Any], records: Sequence[str] = (), took: Mapping[str, str] | None = None
) -> str:
    """How to run a chapter again: its parameters, the command, what it took, and where its full-scale records are.

    Args:
        run: the chapter and its parameters.
        facts: of the run that the page shows.
        records: names of its full-scale records.
        took: profiles other than the page's, and what the chapter took under each.
    """
    rows = [["parameter", "this page", "default", "range", "what it is"]]
    for parameter in run.chapter.parameters.values():
        value = facts["parameters"][parameter.name]
        rows.append([f"`{parameter.name}`", f"`{value}`", f"`{parameter.default}`", parameter.range, parameter.text])
    name = list(run.chapter.parameters)[-1]
    measured = "".join(f"\n- `--profile {profile}`: {text}" for profile, text in (took or {}).items())
    return (
        "## Rerun this chapter\n\n"
        "With other parameters, in the folder of the book (after `make book`; see its README):\n\n"
        f"```bash\n.venv/bin/zonb run {run.chapter.slug} -p {name}={facts['parameters'][name]}\n```\n\n"
        f"{table(rows, 'Parameters of this chapter')}\n"
        "A value outside its range is refused before anything runs. What it takes:\n\n"
        f"- this page: {_cost(facts)}{measured}\n"
        + "".join(f"\nExecuted once at full scale: {{doc}}`/records/{name}`.\n" for name in records)
        + "\n````{dropdown} Cite this page\n```bibtex\n"
        + f"@misc{{zonb2026-{run.chapter.slug},\n"
        + "  author = {{The zonb authors}},\n"
        + f"  title = {{{run.chapter.title}}},\n"
        + "  howpublished = {In: Zeroth-order optimisation by its kernels, a book of reproducible notebooks},\n"
        + f"  year = {{2026}},\n  note = {{Result {run.key}}}\n}}\n```\n````\n"
    )


def times_under_profiles(root: Path, chapter: Chapter) -> dict[str, str]:
    """What a chapter took under each profile in ``profiles/``, from ``book/records/times.json``."""
    path = root / "book" / "records" / "times.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {}
    for profile in sorted(path.stem for path in (root / "profiles").glob("*.yml")):
        facts = known.get(profile, {}).get(chapter.slug)
        found[profile] = "not measured"
        if facts:
            stale = facts["key"] != plan(root, chapter, {}, profile).key
            found[profile] = f"{_cost(facts)}, on {facts['date']}"
            found[profile] += ", before its sources last changed" if stale else ""
    return found


def cards(folder: Path) -> str:
    """A script with what links to the glossary and the bibliography lead to, for ``cards.js``: a page reads no file."""
    found = {}
    for name, selector, body in (("glossary", "dl.glossary dt", "dd"), ("bibliography", "div.citation", "p")):
        path = folder / f"{name}.html"
        page = BeautifulSoup(path.read_text(encoding="utf-8") if path.is_file() else "", "html.parser")
        for entry in page.select(selector):
            text = entry.find_next_sibling(body) if body == "dd" else entry.find(body)
            if text is None:
                raise RunnerError(f"book/{name}: the entry {entry['id']} has no text to show on a card")
            for link in text.select("a[href]"):
                link.unwrap()
            found[f"{name}#{entry['id']}"] = text.decode_contents().strip()
    return f"window.zonbCards = {json.dumps(found, ensure_ascii=False)};\n"


def symbol_cards(notation: Mapping[str, Any]) -> str:
    """A script with the meaning of each symbol, and the chapters where it has it, for ``cards.js``."""
    found = []
    for symbol in notation["symbols"]:
        text = html.escape(symbol["meaning"], quote=False)
        meaning = re.sub(r"\$(.+?)\$", r'<span class="math">\\(\1\\)</span>', text)
        kept = {name: symbol[name] for name in ("tex", "chapters") if name in symbol}
        found.append({**kept, "meaning": meaning})
    return f"window.zonbNotation = {json.dumps(found, ensure_ascii=False)};\n"


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


def glued(text: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Prose with the ledger's numbers: ``{ledger}`name:format``` is what a claim measured, or a count of claims.

    Raises:
        RunnerError: there is no such claim.
    """
    verdicts = Counter(row["verdict"] for row in rows)
    numbers = {"claims": len(rows), "refuted": verdicts["refuted"], "corrected": verdicts["holds with correction"]}
    numbers |= {row["id"]: row["measured"] for row in rows}

    def number(role: re.Match[str]) -> str:
        if role[1] not in numbers:
            raise RunnerError(f"the prose asks for the claim {role[1]}, which is not in the ledger")
        return format(numbers[role[1]], role[2] or "")

    return re.sub(r"\{ledger\}`([\w.-]+)(?::([^`]*))?`", number, text)


def _references(chapter: Chapter) -> list[str]:
    prose = " ".join(cell.source for cell in chapter.notebook.cells if cell.cell_type == "markdown")
    return re.findall(r"\{doc\}`/notebooks/([\w-]+)`", prose)


def _figure(name: str, runs: Sequence[Run]) -> str:
    """A chapter's figure as SVG, for a page that shows it again."""
    for item in runs:
        for cell in nbformat.read(item.path, as_version=4).cells:
            if cell.metadata.get("mystnb", {}).get("figure", {}).get("name") == name:
                return next(out.data["image/svg+xml"] for out in cell.outputs if "image/svg+xml" in out.get("data", {}))
    raise RunnerError(f"no chapter has the figure {name}")


def _assemble(root: Path, source: Path, runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> None:
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("records", "_static", "__pycache__"))
    shutil.copytree(root / "book" / "_static", source / "_static")
    (source / "_static" / _CARDS).write_text("")  # so that pages load it; filled from the finished ones
    records = sorted((root / "book" / "records").glob("*.ipynb"))
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    files = [{"file": f"records/{path.stem}"} for path in records]
    if records and "parts" in toc:
        toc["parts"].insert(-1, {"caption": "At full scale", "chapters": files})
    elif records:
        toc["chapters"] += files
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    (source / "records").mkdir()
    for path in records:
        nbformat.write(record_page(root, path), source / "records" / path.name)
    notation = yaml.safe_load((root / "book" / "notation.yml").read_text())
    config = yaml.safe_load((root / "_config.yml").read_text())
    config["sphinx"]["config"]["mathjax3_config"] = {"tex": {"macros": notation["macros"]}}
    for name, settings in buttons(os.environ.get(REPOSITORY, "")).items():
        config[name] = {**config.get(name, {}), **settings}
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    pages = {
        "notation": notation_page(notation),
        "ledger": ledger_page(rows, runs),
        "errata": errata_page(yaml.safe_load((root / "book" / "errata.yml").read_text()), rows),
        "map": map_page(rows),
        "benchmarks": benchmarks_page(root / "book" / "records" / "benchmarks"),
        "reproducibility": reproducibility_page(runs),
    }
    for name, text in pages.items():
        (source / "book" / f"{name}.md").write_text(text)
    for path in (root / "book" / "records" / "benchmarks").glob("*.svg"):
        target = source / "book" / "figures" / f"benchmark-{path.name}"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    for path in sorted((root / "book").glob("*.md")):
        text = glued(path.read_text(), rows)
        (source / "book" / path.name).write_text(text)
        for name in re.findall(r"figures/(fig-[\w-]+)\.svg", text):
            target = source / "book" / "figures" / f"{name}.svg"
            target.parent.mkdir(exist_ok=True)
            target.write_text(_figure(name, runs))
    (source / "notebooks").mkdir()
    for item in runs:
        page = chapter_page(item, runs, records, times_under_profiles(root, item.chapter))
        nbformat.write(page, source / "notebooks" / f"{item.chapter.slug}.ipynb")


def _slim(built: Path, found: Mapping[str, Chapter]) -> None:
    for path in [path for pattern in UNUSED for path in built.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in built.glob("_sources/*/*.ipynb"):
        facts = nbformat.read(path, as_version=4).metadata["zonb"]
        repository = os.environ.get(REPOSITORY, "")
        nbformat.write(download(found[facts["chapter"]], facts["parameters"], repository), path)


def _folder_key(folder: Path, lock: Path) -> str:
    digest = hashlib.sha256(lock.read_bytes())
    for path in sorted(chapters.PACKAGE.glob("*.py")):  # this builder, and the docstrings that the reference shows
        digest.update(path.read_bytes())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


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


def _cost(facts: Mapping[str, Any]) -> str:
    memory = "" if facts["peak_mib"] is None else f", {facts['peak_mib']} MiB of memory"
    threads = "" if facts["threads"] is None else f", {facts['threads']} thread{'s' * (facts['threads'] != '1')}"
    return f"{facts['seconds']} s{memory}{threads} ({facts['machine']})"


def _numbers(row: Mapping[str, Any]) -> str:
    sign = {"==": "", "<=": "at most ", ">=": "at least "}[row["relation"]]
    error = f"sem {row['sem']:.1e}" if row["sem"] is not None else f"tolerance {row['tolerance']:.1e}"
    numbers = f"measured {row['measured']:.4g}<br>expected {sign}{row['expected']:.4g}<br>{error}"
    return numbers + (f"<br>worst of {row['comparisons']}" if row["comparisons"] > 1 else "")


def _order(place: str) -> list[Any]:
    """Numbers by size, letters before them: "Eq. 9" comes before "Eq. 10"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", place)]
