"""A chapter's page, from its source and its run; the notebook that it offers; and the page of a full-scale record."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from zonb import claims
from zonb.press import chapters
from zonb.press.book import Run, RunnerError, plan
from zonb.press.chapters import Chapter, ParameterError
from zonb.press.end_matter import claims_table, table

_WORDS_A_MINUTE = 150  # of text with formulas
# The first cell of a downloaded notebook.
_NEEDS = """\
import importlib.util

if importlib.util.find_spec("zonb") is None:
    raise ModuleNotFoundError(
        "This notebook needs the package zonb. Install it, in the folder of the book, and restart the kernel: "
        "pip install -r requirements.txt && pip install --no-deps {folder}"
    )"""


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


def _references(chapter: Chapter) -> list[str]:
    prose = " ".join(cell.source for cell in chapter.notebook.cells if cell.cell_type == "markdown")
    return re.findall(r"\{doc\}`/notebooks/([\w-]+)`", prose)


def _cost(facts: Mapping[str, Any]) -> str:
    memory = "" if facts["peak_mib"] is None else f", {facts['peak_mib']} MiB of memory"
    threads = "" if facts["threads"] is None else f", {facts['threads']} thread{'s' * (facts['threads'] != '1')}"
    return f"{facts['seconds']} s{memory}{threads} ({facts['machine']})"
