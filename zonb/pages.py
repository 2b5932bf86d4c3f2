"""The site: executed notebooks, prose and pages derived from both, rendered by Jupyter Book with execution off."""

from __future__ import annotations

import hashlib
import json
import os
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
from filelock import FileLock

from zonb import chapters, claims
from zonb.chapters import ParameterError
from zonb.runner import Run, RunnerError, plan

_KEY = ".zonb-key"
_STRICT = ("-W", "-n", "--keep-going", "-q")
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
    (built / "ledger.json").write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
    (built / _KEY).write_text(key)
    if target.exists():
        target.rename(folder / "replaced")
    built.rename(target)
    print(f"the site is built: {os.path.relpath(index)}")
    return 0


def chapter_page(run: Run, records: Sequence[Path] = ()) -> nbformat.NotebookNode:
    """The chapter's cells, prose and tags as they are now, with the outputs of the run, and its rerun box at the end.

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
    of_this = [path.stem for path in records if path.stem.startswith(f"{run.chapter.slug}-")]
    cells.append(nbformat.v4.new_markdown_cell(rerun_box(run, executed.metadata["zonb"], of_this), id="rerun"))
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
        f"# At full scale: {chapter.title}\n\n"
        f"Claims and figures of {{doc}}`/notebooks/{slug}`, executed once with the parameters below and published with "
        f"the book, so that nobody need repeat it. {state}\n\n"
        f"{_table(rows, 'Facts of the run')}\n"
        f"## Claims\n\n{_claims_table(claims.collect(recorded.cells, slug))}\n"
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


def rerun_box(run: Run, facts: Mapping[str, Any], records: Sequence[str] = ()) -> str:
    """How to run a chapter again: its parameters, the command, what it took, and where its full-scale records are."""
    rows = [["parameter", "this page", "default", "range", "what it is"]]
    for parameter in run.chapter.parameters.values():
        value = facts["parameters"][parameter.name]
        rows.append([f"`{parameter.name}`", f"`{value}`", f"`{parameter.default}`", parameter.range, parameter.text])
    name = list(run.chapter.parameters)[-1]
    memory = "" if facts["peak_mib"] is None else f" and {facts['peak_mib']} MiB of memory"
    return (
        "## Rerun this chapter\n\n"
        "With other parameters, in the folder of the book (after `make book`; see its README):\n\n"
        f"```bash\n.venv/bin/zonb run {run.chapter.slug} -p {name}={facts['parameters'][name]}\n```\n\n"
        f"{_table(rows, 'Parameters of this chapter')}\n"
        f"This page took {facts['seconds']} s{memory} ({facts['machine']}). "
        "A value outside its range is refused before anything runs.\n"
        + "".join(f"\nExecuted once at full scale: {{doc}}`/records/{name}`.\n" for name in records)
    )


def notation_page(notation: Mapping[str, Any]) -> str:
    """The notation page from ``book/notation.yml``."""
    rows = [["symbol", "meaning", "in paper A", "in paper B", "code name", "shape"]]
    for symbol in notation["symbols"]:
        code = f"`{symbol['code']}`" if symbol.get("code") else ""
        papers = [symbol.get(paper, "") for paper in ("A", "B")]
        rows.append([f"${symbol['tex']}$", symbol["meaning"], *papers, code, symbol.get("shape", "")])
    return f"# Notation\n\n{notation['introduction']}\n\n{_table(rows, 'Symbols used throughout the book')}"


def ledger_page(rows: Sequence[Mapping[str, Any]], runs: Sequence[Run]) -> str:
    """Every claim with its source, verdict and numbers."""
    titles = {item.chapter.slug: item.chapter.title for item in runs}
    counts = ", ".join(f"{count} {verdict}" for verdict, count in Counter(row["verdict"] for row in rows).items())
    text = (
        "# Ledger of claims\n\n"
        f"Every claim that the book checks: {len(rows)} so far ({counts}). A claim is recorded by the notebook that "
        "checks it, at the moment the check passes; if it failed, this page would not exist. *Rejected* lists wrong "
        "formulas that the same data was shown to tell apart from the right one. The rows are also a file, "
        '<a href="../ledger.json">ledger.json</a>; `zonb verify ledger.json` compares it with a run of your own.\n'
    )
    for slug, title in titles.items():
        of_chapter = [row for row in rows if row["chapter"] == slug]
        text += f"\n## {title}\n\nFrom {{doc}}`/notebooks/{slug}`.\n\n{_claims_table(of_chapter)}"
    return text


def _claims_table(rows: Iterable[Mapping[str, Any]]) -> str:
    table = [["claim", "statement", "numbers"]]
    for row in rows:
        sign = {"==": "", "<=": "at most ", ">=": "at least "}[row["relation"]]
        error = f"sem {row['sem']:.1e}" if row["sem"] is not None else f"tolerance {row['tolerance']:.1e}"
        wrong = "; ".join(f"{name} ({value:.4g})" for name, value in row["rejects"].items())
        about = f"`{row['id']}`<br>{row['source']}<br>**{row['verdict']}**"
        numbers = f"measured {row['measured']:.4g}<br>expected {sign}{row['expected']:.4g}<br>{error}"
        if row["comparisons"] > 1:
            numbers += f"<br>worst of {row['comparisons']}"
        table.append([about, f"{row['statement']}<br>*Rejected:* {wrong}.", numbers])
    return _table(table, "Claims", "26 50 24")


def errata_page(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the papers say that does not hold as written, from the ledger's verdicts."""
    text = (
        "# Errata\n\n"
        "Statements of the two papers that are wrong, or right only after a correction. Each has its proof and a "
        "check that runs in the chapter named; the statement is the corrected one. Paper A is {cite:t}`li2026zo`, "
        "paper B {cite:t}`zhang2026nzk`.\n"
    )
    found = [row for row in rows if row["verdict"] in ("refuted", "holds with correction")]
    for paper in ("A", "B"):
        table = [["where", "what is true"]]
        for row in (row for row in found if f"{paper} " in row["source"]):
            where = f"{row['source']}<br>**{row['verdict']}**<br>{{doc}}`/notebooks/{row['chapter']}`"
            table.append([where, row["statement"]])
        text += f"\n## Paper {paper}\n\n{_table(table, f'Corrections to paper {paper}', '30 70')}"
    return text


def statistics_page(runs: Sequence[Run]) -> str:
    """Time, memory, parameters and versions of each executed notebook."""
    table = [["chapter", "time", "peak memory", "threads", "parameters", "key"]]
    machines: dict[str, None] = {}
    for item in runs:
        facts = nbformat.read(item.path, as_version=4).metadata["zonb"]
        values = ", ".join(f"{name}={value}" for name, value in facts["parameters"].items())
        memory = "" if facts["peak_mib"] is None else f"{facts['peak_mib']} MiB"
        title = f"{{doc}}`/notebooks/{item.chapter.slug}`"
        table.append([title, f"{facts['seconds']} s", memory, str(facts["threads"]), f"`{values}`", f"`{item.key}`"])
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        machines[f"{facts['machine']}; {versions}"] = None
    return (
        "# Statistics\n\n"
        "How each page of this site was made: the wall time and the peak memory of its kernel, the parameters it ran "
        "with, and the key under which its result is stored, a hash of everything it follows from.\n\n"
        + _table(table, "One row a notebook")
        + "\nMachine and versions: "
        + " and ".join(machines)
        + ".\n"
    )


def _assemble(root: Path, source: Path, runs: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> None:
    shutil.copytree(root / "book", source / "book", ignore=shutil.ignore_patterns("records", "_static", "__pycache__"))
    shutil.copytree(root / "book" / "_static", source / "_static")
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
    (source / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    pages = {
        "notation": notation_page(notation),
        "ledger": ledger_page(rows, runs),
        "errata": errata_page(rows),
        "statistics": statistics_page(runs),
    }
    for name, text in pages.items():
        (source / "book" / f"{name}.md").write_text(text)
    (source / "notebooks").mkdir()
    for item in runs:
        nbformat.write(chapter_page(item, records), source / "notebooks" / f"{item.chapter.slug}.ipynb")


def _folder_key(folder: Path, lock: Path) -> str:
    digest = hashlib.sha256(lock.read_bytes())
    for path in sorted(chapters.PACKAGE.glob("*.py")):  # this builder, and the docstrings that the reference shows
        digest.update(path.read_bytes())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _table(rows: Iterable[Sequence[str]], title: str, widths: str = "auto") -> str:
    rows = list(rows)
    if len(rows) == 1:
        return "None so far.\n"
    lines = [f"````{{list-table}} {title}", ":header-rows: 1", ":class: zonb-table", f":widths: {widths}", ""]
    for row in rows:
        lines += [f"{'*' if k == 0 else ' '} - {cell}" for k, cell in enumerate(row)]
    return "\n".join([*lines, "````", ""])
