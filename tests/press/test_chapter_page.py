import shutil

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import CLAIM, REFUTED, ROOT, ROW

from zonb.claims import MIME
from zonb.press import chapter_page
from zonb.press.book import Book, Run
from zonb.press.chapters import Chapter


def test_outputs_of_other_code_are_refused(tmp_path):
    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 2")])
    executed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
    nbformat.write(executed, tmp_path / "run.ipynb")
    chapter = Chapter(tmp_path / "01-a.md", source, {})
    run = Run(chapter, {}, "key", tmp_path / "run.ipynb")
    with pytest.raises(ValueError, match="not the code that was executed"):
        chapter_page.chapter_page(Book(tmp_path), run, {}, {})


def test_a_page_shows_present_comments_and_the_outputs_of_the_run(book):
    book.write("01-a", CLAIM.format(1.1), "x = 1  # an old comment\nprint('x is', x)")
    assert book.zonb("run", "01").returncode == 0
    book.write("01-a", CLAIM.format(1.1), "# a new comment\nx = 1\nprint('x is', x)")
    shutil.copytree(ROOT / "book" / "pages", book.root / "book" / "pages")
    found = Book(book.root)
    (item,) = found.runs
    assert item.done
    page = chapter_page.chapter_page(found, item, {"one": {**ROW, "name": "Now named so"}}, {})
    cell = next(cell for cell in page.cells if "x = 1" in cell.source)
    assert "a new comment" in cell.source and "old" not in cell.source and cell.outputs[0].text == "x is 1\n"
    outputs = [output for cell in page.cells for output in cell.get("outputs", []) if "data" in output]
    assert not any(MIME in output.data for output in outputs)
    (line,) = [output.data["text/html"] for output in outputs if "text/html" in output.data]
    assert "Now named so" in line and "1.25 ± 0.1 for 1" in line


def test_a_claim_is_one_line_with_a_mark_its_numbers_a_link_and_a_fold():
    data = chapter_page.claim_line(
        {**ROW, "name": "Size of $A<B$", "comparisons": 20, "mean": [1.02, 1.01], "spread": 0.03}
    )
    line = BeautifulSoup(data["text/html"], "html.parser").div
    fold = line.details.extract()
    said = " ".join(line.get_text().split())
    assert said == r"✓ Size of \(A<B\): 1.02 ± 0.03 for 1.01 (mean and spread of 20) ledger"
    assert line.a["href"] == "../book/ledger.html#one" and line.select_one(".zonb-mark")["aria-label"] == "holds"
    assert [text.get_text() for text in fold.select("p")] == [
        "Furthest off: 1.25 ± 0.1 for 1, the worst of 20.",
        "Rejected: two (2).",
        "A formula off by more than 75 % would have been rejected.",
    ]
    assert data["text/plain"] == "✓ Size of $A<B$: 1.02 ± 0.03 for 1.01 (mean and spread of 20) [one]"
    refuted = chapter_page.claim_line({**ROW, **REFUTED, "says": "at most 1"})
    assert refuted["text/plain"] == "✗ One: the paper says at most 1; measured 1.25: refuted [one]"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("claim('one', 1, 1, tol=1, rejects={'two': 2})", "Check"),
        ("x = 3\nfor k in range(3):\n    claim(f'{k}', 1, 1, tol=1, rejects={'two': 2})", "Check"),
        ("assert x == 1\nassert y == 2", "Check"),
        ("figure, ax = plots.panels(3)", "Plot"),
        ("import torch\n\nfrom zonb import plots\n\nplots.style()", "Imports"),
        ("images = data.load('mnist').images", "Data"),
        ("x = model(images)\nassert x.shape == (3,)", "Computation"),
    ],
)
def test_a_folded_cell_is_named_after_what_it_does(source, name):
    assert chapter_page.fold_name({"source": source, "metadata": {}}) == name
    figure = {"mystnb": {"figure": {"name": "fig-a"}}}
    plain = name if name == "Check" else "Plot"
    assert chapter_page.fold_name({"source": source, "metadata": figure}) == plain
    assert chapter_page.fold_name({"source": source, "metadata": {**figure, "tags": ["hide-cell"]}}) == "Figure"


def test_a_chapter_names_its_neighbours_and_its_time(site):
    site.write("02-b", "x = 1", prose="See {doc}`/notebooks/01-a`.\n\n" + "word " * 600)
    toc = yaml.safe_load((site.root / "_toc.yml").read_text())
    toc["chapters"].insert(1, {"file": "notebooks/02-b"})
    (site.root / "_toc.yml").write_text(yaml.safe_dump(toc))
    (site.root / "book" / "intro.md").write_text("# Introduction\n\n{ledger}`one:.2f`\n")
    done = site.zonb("book")
    assert done.returncode == 0, done.stderr
    html = site.root / "_build" / "html"
    first, second = ((html / "notebooks" / f"{name}.html").read_text() for name in ("01-a", "02-b"))
    assert "Comes back in" in first and "Builds on" not in first
    assert "Builds on" in second and "About 4 minutes" in second and "Comes back" not in second
    assert "zonb2026-02-b" in second and "1.10" in (html / "book" / "intro.html").read_text()
