import json
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from bs4 import BeautifulSoup
from conftest import CLAIM, FIGURE, PATIENCE, REFUTED, ROOT, ROW

from zonb.press import site as sites
from zonb.press.book import RunnerError


def test_a_book_is_built_once_and_a_warning_fails_it_every_time(site):
    shutil.rmtree(site.root / "_build")
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

    site.write("01-a", CLAIM.format(1.1), prose="The value is {glue:text}`one:.2f`. See {doc}`/book/nowhere`.")
    for _ in range(2):  # Sphinx alone reports a warning only the first time
        broken = site.zonb("book")
        assert broken.returncode == 1 and "nowhere" in broken.stderr
        assert (html / "index.html").stat().st_mtime_ns == built
    assert sorted(site.executed()) == ["01-a"]
    assert [path.name for path in (site.root / "_build").iterdir() if path.name.startswith(".site")] == []

    site.write("01-a", CLAIM.format(1.1), prose="New prose, {glue:text}`one:.2f`.")
    site.word(one={**REFUTED, "name": "Another name", "says": "three"})
    assert site.zonb("book").returncode == 0 and site.executed() == []
    assert "New prose" in (html / "notebooks" / "01-a.html").read_text()
    for page in ("notebooks/01-a", "book/ledger"):
        text = (html / f"{page}.html").read_text()
        assert "Another name" in text and "the paper says three; measured 1.1: refuted" in text
    assert not list(html.rglob("pages"))


def test_two_sites_built_at_once_leave_a_whole_one(site):
    both = [site.start("book") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, out + err
    assert (site.root / "_build" / "html" / "notebooks" / "01-a.html").is_file()
    assert "up to date" in site.zonb("book").stdout
    assert links(site.root / "_build" / "html" / "notebooks" / "01-a.html") == []


RECORD = "records/01-a-seed-3.html"


def links(page):
    """Where the buttons at the head of a page lead."""
    found = BeautifulSoup(page.read_text(), "html.parser").select(".article-header-buttons a")
    assert found
    return [link["href"] for link in found if link.get("href", "").startswith("http")]


def test_buttons_lead_to_what_the_repository_and_binder_have(site):
    shutil.copytree(ROOT / "binder", site.root / "binder")
    assert site.zonb("record", "01", "-p", "seed=3").returncode == 0
    chapter, record = (site.root / "_build" / "html" / name for name in ("notebooks/01-a.html", RECORD))
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

    lab = sites.buttons("https://gitlab.com/someone/book")
    assert list(lab["launch_buttons"]) == ["binderhub_url", "notebook_interface"]
    assert list(sites.buttons("https://github.com/someone/book")["launch_buttons"])[:2] == list(lab["launch_buttons"])

    odd = site.zonb("book", ZONB_REPOSITORY="someone/book")
    assert odd.returncode == 2 and "ZONB_REPOSITORY=someone/book must read" in odd.stderr


def test_cards_know_each_symbol_and_where_it_is_meant():
    symbols = [{"tex": "d,\\ V", "meaning": "sizes, $a<b$"}, {"tex": "A", "meaning": "a matrix", "chapters": [1]}]
    found = json.loads(sites.symbol_cards({"symbols": symbols}).partition(" = ")[2].rstrip(";\n"))
    assert found[0] == {"tex": "d,\\ V", "meaning": r'sizes, <span class="math">\(a&lt;b\)</span>'}
    assert found[1] == {"tex": "A", "meaning": "a matrix", "chapters": [1]}


def test_prose_takes_its_numbers_from_the_ledger():
    rows = [{**ROW, "kind": "refuted"}, {**ROW, "id": "A.other-one", "measured": 2.345}]
    text = sites.glued("{ledger}`claims`, {ledger}`refuted` wrong, {ledger}`A.other-one:.1f`", rows)
    assert text == "2, 1 wrong, 2.3"
    with pytest.raises(RunnerError, match="asks for the claim three"):
        sites.glued("{ledger}`three:.2f`", rows)


def test_a_figure_may_be_shown_again(site):
    site.write("01-a", CLAIM.format(1.1), "from zonb import plots\nplots.style()", FIGURE, prose="Prose.")
    intro = "# Introduction\n\n```{figure} figures/fig-line.svg\n:alt: A line from zero to the seed.\n\nAgain.\n```\n"
    (site.root / "book" / "intro.md").write_text(intro)
    assert site.zonb("book").returncode == 0
    assert "<svg" in (site.root / "_build" / "html" / "book" / "intro.html").read_text()
    (site.root / "book" / "intro.md").write_text(intro.replace("fig-line", "fig-none"))
    broken = site.zonb("book")
    assert broken.returncode == 2 and "no chapter has the figure fig-none" in broken.stderr
