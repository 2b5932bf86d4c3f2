"""The site builder on a book of one small chapter, rendered by the real Jupyter Book."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import ROOT

from zonb import pages
from zonb.runner import RunnerError

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
    made = [
        f"book/{name}"
        for name in ("errata", "map", "ledger", "reproducibility", "benchmarks", "notation", "bibliography", "extend")
    ]
    files = ["notebooks/01-a", *made]
    toc = {"format": "jb-book", "root": "book/intro", "chapters": [{"file": file} for file in files]}
    (book.root / "_toc.yml").write_text(yaml.safe_dump(toc))
    (book.root / "book" / "extend.md").write_text("# Extend\n")
    (book.root / "book" / "intro.md").write_text(
        "# Introduction\n\nSee {cite:t}`li2026zo` and {cite:t}`zhang2026nzk`.\n"
    )
    entry = {"where": "Eq. 1", "says": "It is two.", "wrong": "It is one.", "chapter": "01-a", "claims": ["one"]}
    (book.root / "book" / "errata.yml").write_text(yaml.safe_dump({"A": [entry]}))
    book.write("01-a", CHAPTER, prose="The value is {glue:text}`one:.2f`.")
    return book


def test_a_book_is_built_once_and_a_warning_fails_it_every_time(site):
    first = site.zonb("book")
    assert first.returncode == 0, first.stderr
    html = site.root / "_build" / "html"
    chapter = (html / "notebooks" / "01-a.html").read_text()
    assert "1.10" in chapter and "Rerun this chapter" in chapter and "application/vnd.zonb" not in chapter
    for page in ("ledger", "errata", "map", "reproducibility", "benchmarks", "notation"):
        assert (html / "book" / f"{page}.html").is_file()
    assert "It is two" in (html / "book" / "errata.html").read_text()
    assert 'id="one"' in (html / "book" / "ledger.html").read_text()
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
        out, err = process.communicate(timeout=600)
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


def test_a_page_says_what_it_took_under_each_profile_and_whether_that_is_old(site):
    (site.root / "profiles").mkdir()
    (site.root / "profiles" / "paper.yml").write_text("01-a: {seed: 3}\n")
    page = site.root / "_build" / "html" / "notebooks" / "01-a.html"
    times = site.root / "book" / "records" / "times.json"

    def told():
        assert site.zonb("book").returncode == 0
        return BeautifulSoup(page.read_text(), "html.parser").select_one("#rerun-this-chapter").get_text()

    assert "--profile paper: not measured" in told()
    assert site.zonb("run", "01", "-p", "seed=5", "--profile", "paper").returncode == 0
    assert site.zonb("times", "--profile", "paper").returncode == 0 and json.loads(times.read_text()) == {"paper": {}}
    assert site.zonb("run", "01", "--profile", "paper").returncode == 0
    assert site.zonb("times", "--profile", "paper").returncode == 0
    facts = json.loads(times.read_text())["paper"]["01-a"]
    assert f"{facts['seconds']} s, {facts['peak_mib']} MiB of memory" in told()
    assert facts["date"] in told() and "before its sources" not in told()

    site.write("01-a", CHAPTER, "1 + 1", prose="The value is {glue:text}`one:.2f`.")
    shutil.rmtree(site.root / "_build" / "paper")
    assert f"{facts['date']}, before its sources last changed" in told()
    before = times.read_text()
    assert site.zonb("times", "--profile", "paper").returncode == 0 and times.read_text() == before
    assert site.zonb("times").returncode == 2


def test_buttons_lead_to_what_the_repository_and_binder_have(site):
    shutil.copytree(ROOT / "binder", site.root / "binder")
    assert site.zonb("record", "01", "-p", "seed=3").returncode == 0
    html = site.root / "_build" / "html"

    def links(name):
        page = BeautifulSoup((html / name).read_text(), "html.parser")
        return [link["href"] for link in page.select(".article-header-buttons a[href^=http]")]

    chapter, record = "notebooks/01-a.html", "records/01-a-seed-3.html"
    assert site.zonb("book").returncode == 0 and links(chapter) == links(record) == []

    built = site.zonb("book", ZONB_REPOSITORY="https://github.com/someone/book")
    assert built.returncode == 0, built.stderr
    own = ["https://github.com/someone/book", "https://github.com/someone/book/issues/new"]
    assert [link.partition("?")[0] for link in links(record)] == own
    launch, colab, *rest = links(chapter)
    assert [link.partition("?")[0] for link in rest] == own
    start, _, path = colab.partition("/blob/")
    assert start == "https://colab.research.google.com/github/someone/book"
    branch, _, path = path.partition("/")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())["jobs"]
    pushed = workflow["notebooks"]["steps"][-1]["run"].splitlines()
    folder = workflow["build"]["steps"][-1]["with"]["path"].removesuffix("/notebooks")
    assert pushed[1] == "git add notebooks" and pushed[-1].split()[-1] == branch
    assert (site.root / folder / path).is_file()
    address, _, path = launch.partition("?urlpath=lab/tree/")
    assert address == "https://mybinder.org/v2/gh/someone/book/HEAD" and not (site.root / path).exists()
    convert = (site.root / "binder" / "postBuild").read_text().splitlines()[-1]
    subprocess.run(
        [sys.executable, "-m", *shlex.split(convert)[:3], *(site.root / "notebooks").glob("*.md")], check=True
    )
    assert (site.root / path).is_file()

    lab = site.zonb("book", ZONB_REPOSITORY="https://gitlab.com/someone/book")
    assert lab.returncode == 0 and not any("colab" in link for link in links(chapter))

    odd = site.zonb("book", ZONB_REPOSITORY="someone/book")
    assert odd.returncode == 2 and "ZONB_REPOSITORY=someone/book must read" in odd.stderr


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
        pages.chapter_page(run, [])


def test_notation_feeds_the_page_and_the_macros():
    notation = yaml.safe_load((ROOT / "book" / "notation.yml").read_text())
    page = pages.notation_page(notation)
    for symbol in notation["symbols"]:
        assert f"${symbol['tex']}$" in page and symbol["meaning"] in page
    own = {"tex": "t", "meaning": "m", "A": "in A", "B": "in B", "code": "c", "shape": "s"}
    cells = pages.notation_page({"introduction": "", "symbols": [own]})
    assert re.findall(r"- (\S.*)", cells)[-6:] == ["$t$", "m", "in A", "in B", "`c`", "s"]
    text = " ".join(path.read_text() for path in (ROOT / "notebooks").glob("*.md"))
    for macro in notation["macros"]:
        assert f"\\{macro}" in text + page, macro


def test_cards_know_each_symbol_and_where_it_is_meant():
    symbols = [{"tex": "d,\\ V", "meaning": "sizes, $a<b$"}, {"tex": "A", "meaning": "a matrix", "chapters": [1]}]
    found = json.loads(pages.symbol_cards({"symbols": symbols}).partition(" = ")[2].rstrip(";\n"))
    assert found[0] == {"tex": "d,\\ V", "meaning": r'sizes, <span class="math">\(a&lt;b\)</span>'}
    assert found[1] == {"tex": "A", "meaning": "a matrix", "chapters": [1]}


ROW = {"relation": "==", "sem": 0.1, "measured": 1.25, "expected": 1, "rejects": {"two": 3}, "comparisons": 1}
ROW |= {"id": "one", "source": "A Eq. 10", "verdict": "refuted", "statement": "True.", "chapter": "01-a"}


def test_an_erratum_says_what_is_wrong_and_links_its_checks():
    entry = {"where": "Eq. 10", "says": "Two.", "wrong": "One.", "proof": "thm-one", "claims": ["one"]}
    page = pages.errata_page({"A": [entry], "B": []}, [ROW, {**ROW, "id": "right", "verdict": "holds"}])
    first, second = page.split("## Paper B")
    for text in ("Two.", "One.", "**refuted**", "{prf:ref}`thm-one`", "/notebooks/01-a", "ledger.html#one"):
        assert text in first and text not in second, text
    assert "right" not in page.split("## Paper A")[1]


@pytest.mark.parametrize("named", [[], ["one", "right"], ["one", "absent"]])
def test_errata_and_ledger_must_agree(named):
    entry = {"where": "Eq. 10", "says": "Two.", "wrong": "One.", "claims": named}
    rows = [ROW, {**ROW, "id": "right", "verdict": "holds"}]
    odd = {"": "one"}.get("".join(named), named[-1] if named else "")
    with pytest.raises(RunnerError, match=f"disagree about {odd}"):
        pages.errata_page({"A": [entry]}, rows)


def test_the_ledger_tells_what_was_measured_from_what_was_expected():
    table = pages.claims_table([ROW, {**ROW, "relation": "<=", "sem": None, "tolerance": 0.5, "comparisons": 7}])
    assert "measured 1.25<br>expected 1<br>sem 1.0e-01" in table
    assert "measured 1.25<br>expected at most 1<br>tolerance 5.0e-01<br>worst of 7" in table


def test_the_map_counts_outcomes():
    rows = [{**ROW, "verdict": verdict} for verdict in ("refuted", "new", "holds", "holds with correction")]
    assert "refuted: 1<br>holds: 2<br>holds with correction: 1" in pages.map_page(rows)


def test_the_map_lists_places_by_paper_kind_and_number():
    sources = ("A Eq. 10 ; A Fig. 2", "new", "B Prop. 3 ; new", "A Eq. 9", "A Sec. D.1.2 ; B Eq. 1")
    page = pages.map_page([{**ROW, "source": source, "chapter": f"0{k}-a"} for k, source in enumerate(sources)])
    first, second = page.split("## Paper B")
    order = [
        "### Figures",
        "- Fig. 2\n  - {doc}`/notebooks/00-a`",
        "### Equations",
        "- Eq. 9",
        "- Eq. 10",
        "- Sec. D.1.2",
    ]
    assert [first.index(text) for text in order] == sorted(first.index(text) for text in order)
    assert "- Prop. 3" in second and "- Eq. 1\n" in second and "Figures" not in second and "01-a" not in page


def test_prose_takes_its_numbers_from_the_ledger():
    rows = [ROW, {**ROW, "id": "A.other-one", "measured": 2.345, "verdict": "holds"}]
    text = pages.glued("{ledger}`claims`, {ledger}`refuted` wrong, {ledger}`A.other-one:.1f`", rows)
    assert text == "2, 1 wrong, 2.3"
    with pytest.raises(RunnerError, match="asks for the claim three"):
        pages.glued("{ledger}`three:.2f`", rows)


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


def test_a_figure_may_be_shown_again(site):
    site.write("01-a", CHAPTER, "from zonb import plots\nplots.style()", FIGURE, prose="Prose.")
    intro = "# Introduction\n\n```{figure} figures/fig-line.svg\n:alt: A line from zero to the seed.\n\nAgain.\n```\n"
    (site.root / "book" / "intro.md").write_text(intro)
    assert site.zonb("book").returncode == 0
    assert "<svg" in (site.root / "_build" / "html" / "book" / "intro.html").read_text()
    (site.root / "book" / "intro.md").write_text(intro.replace("fig-line", "fig-none"))
    broken = site.zonb("book")
    assert broken.returncode == 2 and "no chapter has the figure fig-none" in broken.stderr
