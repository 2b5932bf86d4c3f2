import json
import shutil

import nbformat
from conftest import CLAIM, FIGURE

from zonb.press import ledger
from zonb.press import site as sites
from zonb.press.book import Book


def test_a_record_becomes_a_page_that_says_when_it_is_stale(site):
    site.write("01-a", CLAIM.format(1.1), FIGURE, "from zonb import data", prose="Prose, {glue:text}`one:.2f`.")
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

    site.write(
        "01-a", CLAIM.format(1.1), FIGURE, "from zonb import data", "1 + 1", prose="Prose, {glue:text}`one:.2f`."
    )
    assert site.zonb("book").returncode == 0
    assert "Stale" in (html / "records" / "01-a-seed-3.html").read_text()

    path.rename(path.with_name("09-gone-seed-3.ipynb"))
    text = path.with_name("09-gone-seed-3.ipynb").read_text().replace('"01-a"', '"09-gone"')
    path.with_name("09-gone-seed-3.ipynb").write_text(text)
    broken = site.zonb("book")
    assert broken.returncode == 2 and "which is no chapter" in broken.stderr


def test_a_page_says_what_it_took_under_each_profile_and_whether_that_is_old(site, tmp_path_factory):
    (site.root / "profiles").mkdir()
    (site.root / "profiles" / "paper.yml").write_text("01-a: {seed: 3}\n")
    times = site.root / "book" / "records" / "times.json"

    def told():
        assert site.zonb("run", "01").returncode == 0
        book, folder = Book(site.root), tmp_path_factory.mktemp("source")
        sites._assemble(book, folder, ledger.rows(book))
        page = nbformat.read(folder / "notebooks" / "01-a.ipynb", as_version=4)
        return next(cell.source for cell in page.cells if "Rerun this chapter" in cell.source).replace("`", "")

    assert "--profile paper: not measured" in told()
    assert site.zonb("run", "01", "-p", "seed=5", "--profile", "paper").returncode == 0
    assert site.zonb("times", "--profile", "paper").returncode == 0 and json.loads(times.read_text()) == {"paper": {}}
    assert site.zonb("run", "01", "--profile", "paper").returncode == 0
    assert site.zonb("times", "--profile", "paper").returncode == 0
    facts = json.loads(times.read_text())["paper"]["01-a"]
    assert f"{facts['seconds']} s, {facts['peak_mib']} MiB of memory" in told()
    assert facts["date"] in told() and "before its sources" not in told()

    site.write("01-a", CLAIM.format(1.1), "1 + 1", prose="The value is {glue:text}`one:.2f`.")
    shutil.rmtree(site.root / "_build" / "paper")
    assert f"{facts['date']}, before its sources last changed" in told()
    before = times.read_text()
    assert site.zonb("times", "--profile", "paper").returncode == 0 and times.read_text() == before
    assert site.zonb("times").returncode == 2


def test_a_record_too_large_to_commit_is_refused(site):
    site.write("01-a", CLAIM.format(1.1), "from zonb.claims import MIME\ndisplay({MIME: {'x': 'y' * 2**20}}, raw=True)")
    done = site.zonb("record", "01", "-p", "seed=3")
    assert done.returncode == 2 and "1 at most" in done.stderr
    assert not (site.root / "book" / "records").exists()
