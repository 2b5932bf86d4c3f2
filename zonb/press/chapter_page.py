"""A chapter's page, from its source and its run; the notebook that it offers; and the page of a full-scale record."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from zonb.claims import MIME
from zonb.press import ledger
from zonb.press.book import Book, Run, RunnerError
from zonb.press.chapters import Chapter, ParameterError, cell_digest
from zonb.press.end_matter import render

_WORDS_A_MINUTE = 150  # of text with formulas
_MARKS = {"holds with correction": "✎", "refuted": "✗"}  # ✓ of all other kinds
# The first cell of a downloaded notebook.
_NEEDS = """\
import importlib.util

if importlib.util.find_spec("zonb") is None:
    raise ModuleNotFoundError(
        "This notebook needs the package zonb. Install it, in the folder of the book, and restart the kernel: "
        "pip install -r requirements.txt && pip install --no-deps {folder}"
    )"""


def chapter_page(
    book: Book, item: Run, rows: Mapping[str, Mapping[str, Any]], took: Mapping[str, str]
) -> nbformat.NotebookNode:
    """The chapter's cells, prose, comments and tags as they are now, with the outputs of the run.

    Under the title stand time and neighbours, at the end how to run it again and how to cite it. A claim's output is
    one line, and a folded cell is named after what it does.

    Args:
        book: the book.
        item: the chapter's run, which is done.
        rows: of the ledger, by id.
        took: what the chapter took under other profiles.

    Raises:
        ValueError: the run is of other code.
    """
    executed = item.result()
    injected = [cell for cell in executed.cells if cell["id"] == "injected-parameters"]
    outputs = iter([cell for cell in executed.cells if cell.cell_type == "code" and cell not in injected])
    cells = []
    for k, source in enumerate(item.chapter.notebook.cells):
        cell = nbformat.from_dict({**source, "id": f"cell-{k}"})
        cells.append(cell)
        if cell.cell_type == "code":
            ran = next(outputs, None)
            if ran is None or cell_digest(ran.source) != cell_digest(cell.source):
                raise ValueError(f"{item.path.name}: cell {k} is not the code that was executed")
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
            for output in cell.outputs:
                if record := output.get("data", {}).get(MIME):
                    output.data = claim_line(rows[record["id"]])
            tags = cell.metadata.get("tags", [])
            if "hide-input" in tags or "hide-cell" in tags:
                name = fold_name(cell)
                prompts = {"code_prompt_show": name, "code_prompt_hide": name}
                cell.metadata["mystnb"] = {**cell.metadata.get("mystnb", {}), **prompts}
            if "parameters" in tags:
                cells += injected
    facts = executed.metadata["zonb"]
    about = about_box(item.chapter, book.chapters, facts)
    cells[0].source = re.sub(r"^(# .+\n)", lambda title: f"{title[1]}\n{about}", cells[0].source, count=1)
    records = [path.stem for path in book.record_paths if path.stem.startswith(f"{item.chapter.slug}-")]
    cells.append(nbformat.v4.new_markdown_cell(rerun_box(book, item, facts, records, took), id="rerun"))
    return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": executed.metadata, "cells": cells})


def claim_line(row: Mapping[str, Any]) -> dict[str, str]:
    """A claim as a cell's output: a mark, its name, its numbers and the way to its row; folded, what else was seen."""
    mark = _MARKS.get(row["kind"], "✓")
    said = ledger.verdict(row) if row["kind"] == "refuted" else ledger.numbers(row)
    details = [f"Furthest off: {ledger.worst(row)}"] * (ledger.worst(row) != said)
    details += [f"Rejected: {ledger.rejected(row)}", ledger.power(row)]
    more = "".join(f"<p>{inline(text[0].upper() + text[1:])}.</p>" for text in details)
    line = (
        f'<span class="zonb-mark" role="img" aria-label="{row["kind"]}" title="{row["kind"]}">{mark}</span> '
        f"<strong>{inline(row['name'])}</strong>: {inline(said)} "
        f'<a href="../book/ledger.html#{row["id"]}">ledger</a><details><summary>more</summary>{more}</details>'
    )
    return {
        "text/html": f'<div class="zonb-claim">{line}</div>',
        "text/plain": f"{mark} {row['name']}: {said} [{row['id']}]",
    }


def fold_name(cell: Mapping[str, Any]) -> str:
    """What a folded cell does, in a word: Check, Plot, Imports, Data or Computation; Figure if its output is folded."""
    if "hide-cell" in cell["metadata"].get("tags", []):
        return "Figure"
    tree = ast.parse(cell["source"])
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = {function.id for function in calls if isinstance(function, ast.Name)}
    of = {ast.unparse(function).split(".")[0] for function in calls if isinstance(function, ast.Attribute)}
    if "claim" in named or all(isinstance(node, ast.Assert) for node in tree.body):
        return "Check"
    if "figure" in cell["metadata"].get("mystnb", {}):
        return "Plot"
    if any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
        return "Imports"
    return "Plot" if "plots" in of else "Data" if "data" in of else "Computation"


def inline(text: str) -> str:
    """A line of Markdown with formulas and code, as HTML.

    >>> inline("norm of $A$ & `x`")
    'norm of <span class="math">\\\\(A\\\\)</span> &amp; <code>x</code>'
    """
    text = html.escape(text, quote=False)
    text = re.sub(r"\$(.+?)\$", r'<span class="math">\\(\1\\)</span>', text)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)


def record_page(book: Book, path: Path, entries: Mapping[str, Mapping[str, Any]]) -> nbformat.NotebookNode:
    """A published full-scale run: its facts, its claims, its figures, and whether its sources are still the same."""
    recorded = nbformat.read(path, as_version=4)
    facts = recorded.metadata["zonb"]
    slug, given = facts["chapter"], facts["parameters"]
    if slug not in book.sources:
        raise RunnerError(f"{path.name} is a record of {slug}, which is no chapter: delete it or record it anew")
    chapter = book.chapter(slug)
    try:
        fresh = book.plan(chapter, given).key == facts["key"]
    except ParameterError:  # a parameter was renamed, or its range was narrowed
        fresh = False
    text = render(
        book,
        "record",
        title=chapter.title,
        settings=path.stem.removeprefix(f"{slug}-").replace("-", " "),
        chapter=slug,
        fresh=fresh,
        facts=facts,
        rows=ledger.worded(ledger.collect(recorded.cells, slug), entries),
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


def rerun_box(book: Book, item: Run, facts: Mapping[str, Any], records: Sequence[str], took: Mapping[str, str]) -> str:
    """How to run a chapter again: its parameters, the command, what it took, and where its full-scale records are.

    Args:
        book: the book.
        item: the chapter's run.
        facts: what the run says of itself.
        records: names of its full-scale records.
        took: profiles other than the page's, and what the chapter took under each.
    """
    example = list(item.chapter.parameters)[-1]
    return render(
        book, "rerun", chapter=item.chapter, key=item.key, example=example, facts=facts, records=records, took=took
    )


def _references(chapter: Chapter) -> list[str]:
    prose = " ".join(cell.source for cell in chapter.notebook.cells if cell.cell_type == "markdown")
    return re.findall(r"\{doc\}`/notebooks/([\w-]+)`", prose)
