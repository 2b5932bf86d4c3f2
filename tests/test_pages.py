"""The site builder on a book of one small chapter, rendered by the real Jupyter Book."""

import json
import shutil
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from conftest import ROOT

from zonb import pages

CHAPTER = (
    "from zonb.claims import claim\n"
    "claim('one', 1.1, 1, sem=0.1, source='A Eq. 1', statement=r'One is $1$.', rejects={'two': 3}, verdict='refuted')"
)


@pytest.fixture
def site(book):
    """A book with a chapter, an introduction and the derived pages."""
    shutil.copytree(ROOT / "book" / "_ext", book.root / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "book" / "_static", book.root / "book" / "_static")
    for name in ("references.bib", "notation.yml", "bibliography.md"):
        shutil.copy(ROOT / "book" / name, book.root / "book")
    shutil.copy(ROOT / "_config.yml", book.root)
    files = ["notebooks/01-a", "book/errata", "book/ledger", "book/statistics", "book/notation", "book/bibliography"]
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": file} for file in files]}
    (book.root / "_toc.yml").write_text(yaml.safe_dump(toc))
    (book.root / "book" / "intro.md").write_text(
        "# Introduction\n\nSee {cite:t}`li2026zo` and {cite:t}`zhang2026nzk`.\n"
    )
    book.write("01-a", CHAPTER, prose="The value is {glue:text}`one:.2f`.")
    return book


def test_a_book_is_built_once_and_a_warning_fails_it_every_time(site):
    first = site.zonb("book")
    assert first.returncode == 0, first.stderr
    html = site.root / "_build" / "html"
    chapter = (html / "notebooks" / "01-a.html").read_text()
    assert "1.10" in chapter and "Rerun this chapter" in chapter and "application/vnd.zonb" not in chapter
    for page in ("ledger", "errata", "statistics", "notation"):
        assert (html / "book" / f"{page}.html").is_file()
    assert "One is" in (html / "book" / "errata.html").read_text()
    assert json.loads((html / "ledger.json").read_text())[0]["id"] == "one"

    built = (html / "index.html").stat().st_mtime_ns
    again = site.zonb("book")
    assert again.returncode == 0 and "up to date" in again.stdout
    assert (html / "index.html").stat().st_mtime_ns == built

    site.write("01-a", CHAPTER, prose="The value is {glue:text}`one:.2f`. See {doc}`/book/nowhere`.")
    for _ in range(2):  # Sphinx alone reports a warning only the first time
        broken = site.zonb("book")
        assert broken.returncode == 1 and "nowhere" in broken.stderr
        assert (html / "index.html").stat().st_mtime_ns == built
    assert sorted(site.executed()) == ["01-a"]
    assert [path.name for path in (site.root / "_build").iterdir() if path.name.startswith(".site")] == []

    site.write("01-a", CHAPTER, prose="New prose, {glue:text}`one:.2f`.")
    assert site.zonb("book").returncode == 0
    assert "New prose" in (html / "notebooks" / "01-a.html").read_text() and site.executed() == []


def test_two_sites_built_at_once_leave_a_whole_one(site):
    both = [site.start("book") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, out + err
    assert (site.root / "_build" / "html" / "notebooks" / "01-a.html").is_file()
    assert "up to date" in site.zonb("book").stdout


FIGURE = "---\nmystnb:\n  figure:\n    name: fig-line\n    caption: A line that rises.\n---\n"
FIGURE += "import matplotlib.pyplot as plt\nfigure, ax = plt.subplots()\nlines = ax.plot([0, seed])"


def test_a_record_becomes_a_page_that_says_when_it_is_stale(site):
    site.write("01-a", CHAPTER, FIGURE, "from zonb import data", prose="Prose, {glue:text}`one:.2f`.")
    refused = site.zonb("record", "01")
    assert refused.returncode == 2 and "other than the default parameters" in refused.stderr
    done = site.zonb("record", "01", "-p", "seed=3")
    path = site.root / "book" / "records" / "01-a-seed-3.ipynb"
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "book/records/01-a-seed-3.ipynb", done.stderr
    recorded = nbformat.read(path, as_version=4)
    assert len(recorded.cells) == 2 and "parameters" in recorded.metadata["zonb"]

    built = site.zonb("book")
    assert built.returncode == 0, built.stderr
    html = site.root / "_build" / "html"
    page = (html / "records" / "01-a-seed-3.html").read_text()
    assert "still those of the chapter" in page and "A line that rises." in page and "One is" in page
    assert "mnist-train.npz" in page and recorded.metadata["zonb"]["key"] in page
    assert "records/01-a-seed-3.html" in (html / "notebooks" / "01-a.html").read_text()

    site.write("01-a", CHAPTER, FIGURE, "from zonb import data", "1 + 1", prose="Prose, {glue:text}`one:.2f`.")
    assert site.zonb("book").returncode == 0
    assert "Stale" in (html / "records" / "01-a-seed-3.html").read_text()

    path.rename(path.with_name("09-gone-seed-3.ipynb"))
    text = path.with_name("09-gone-seed-3.ipynb").read_text().replace('"01-a"', '"09-gone"')
    path.with_name("09-gone-seed-3.ipynb").write_text(text)
    broken = site.zonb("book")
    assert broken.returncode == 2 and "which is no chapter" in broken.stderr


def test_a_record_too_large_to_commit_is_refused(site):
    site.write("01-a", CHAPTER, "from zonb.claims import MIME\ndisplay({MIME: {'x': 'y' * 2**20}}, raw=True)")
    done = site.zonb("record", "01", "-p", "seed=3")
    assert done.returncode == 2 and "1 at most" in done.stderr
    assert not (site.root / "book" / "records").exists()


def test_outputs_of_other_code_are_refused(tmp_path):
    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 2")])
    executed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
    nbformat.write(executed, tmp_path / "run.ipynb")
    run = SimpleNamespace(path=tmp_path / "run.ipynb", chapter=SimpleNamespace(notebook=source))
    with pytest.raises(ValueError, match="not the code that was executed"):
        pages.chapter_page(run)


def test_notation_feeds_the_page_and_the_macros():
    notation = yaml.safe_load((ROOT / "book" / "notation.yml").read_text())
    page = pages.notation_page(notation)
    for symbol in notation["symbols"]:
        assert f"${symbol['tex']}$" in page and symbol["meaning"] in page
    text = " ".join(path.read_text() for path in (ROOT / "notebooks").glob("*.md"))
    for macro in notation["macros"]:
        assert f"\\{macro}" in text + page, macro


def test_a_correction_stands_under_every_paper_that_it_corrects():
    row = {"verdict": "refuted", "statement": "True.", "chapter": "01-a"}
    sources = ("A Eq. 1", "new ; B Eq. 2", "B Cor. 2 ; A Eq. 4")
    rows = [{**row, "source": source} for source in sources]
    rows.append({**row, "source": "B Eq. 9", "verdict": "holds"})
    first, second = pages.errata_page(rows).split("## Paper B")
    assert [source in first for source in sources] == [True, False, True]
    assert [source in second for source in sources] == [False, True, True]
    assert "B Eq. 9" not in first + second
