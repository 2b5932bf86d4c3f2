"""The site as a thing that people hand on: small, whole without a network, printable."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from zonb.claims import MIME
from zonb.press import chapters
from zonb.press.site import UNUSED

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "_build" / "html"
MIB = 2**20
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.md"))
SHORT = "13-many-steps"  # the quickest to execute
LONG = f"notebooks/{CHAPTERS[1]}.html"


def test_the_site_and_each_page_are_small():
    sizes = {path.relative_to(SITE).as_posix(): path.stat().st_size for path in SITE.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 40 * MIB
    assert {name: size for name, size in sizes.items() if name.endswith(".html") and size > 1.5 * MIB} == {}
    assert sum(size for name, size in sizes.items() if name.startswith("_sources/")) < 3 * MIB


@pytest.mark.parametrize("pattern", UNUSED)
def test_what_no_page_asks_for_is_not_there(pattern):
    assert list(SITE.glob(pattern)) == []


def test_the_menu_of_formulas_opens_and_draws_them_another_way(visit):
    opened = visit("notebooks/05-laws-of-directions.html")
    formulas = opened.page.locator("mjx-container").count()
    opened.page.locator("mjx-container").first.click(button="right")
    for name in ("Math Settings", "Math Renderer"):
        opened.page.locator(".CtxtMenu_MenuItem:visible", has_text=name).last.hover()
    opened.page.locator(".CtxtMenu_MenuItem:visible", has_text="SVG").last.click()
    drawn = "document.querySelectorAll('mjx-container[jax=SVG]').length === {}"
    opened.page.wait_for_function(drawn.format(formulas), timeout=60_000)
    assert opened.complaints == [] and opened.outside == []


@pytest.mark.parametrize("slug", CHAPTERS)
def test_a_page_offers_its_notebook_without_outputs(slug):
    assert f'href="../_sources/notebooks/{slug}.ipynb"' in (SITE / "notebooks" / f"{slug}.html").read_text()
    notebook = nbformat.read(SITE / "_sources" / "notebooks" / f"{slug}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    chapter = chapters.read(ROOT / "notebooks" / f"{slug}.md")
    sources = [cell.source for cell in chapter.notebook.cells if cell.cell_type == "code"]
    assert [cell["id"] for cell in code if cell.source not in sources] == ["needs", "page-parameters"]
    assert [cell.source for cell in code if cell["id"] not in ("needs", "page-parameters")] == sources


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """Executes a downloaded notebook in an empty folder, with the locked packages and these folders only."""

    def execute(slug, *folders):
        # Without site.py nothing points to the folder of the book, where zonb is installed from.
        argv = [sys.executable, "-S", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        path = os.pathsep.join(map(str, [*folders, sysconfig.get_path("purelib")]))
        spec = {
            "argv": argv,
            "display_name": "clean",
            "language": "python",
            "env": {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        }
        (tmp_path / "kernels" / "clean").mkdir(parents=True, exist_ok=True)
        (tmp_path / "kernels" / "clean" / "kernel.json").write_text(json.dumps(spec))
        (tmp_path / "empty").mkdir()
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
        notebook = nbformat.read(SITE / "_sources" / "notebooks" / f"{slug}.ipynb", as_version=4)
        NotebookClient(notebook, kernel_name="clean", resources={"metadata": {"path": tmp_path / "empty"}}).execute()
        return notebook

    return execute


def test_a_downloaded_notebook_says_what_it_needs(clean):
    with pytest.raises(CellExecutionError, match="needs the package zonb"):
        clean(SHORT)


def test_a_downloaded_notebook_runs_where_its_packages_are(clean, tmp_path, monkeypatch):
    monkeypatch.setenv("ZONB_CACHE", str(ROOT / "_build" / "cache"))  # trained networks, which take minutes
    copy = shutil.copytree(ROOT, tmp_path / "book", ignore=lambda *_: ["_build", ".git", ".venv", "build", "tests"])
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--target", tmp_path / "installed"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, copy], check=True)
    shutil.rmtree(copy)
    executed = clean(SHORT, tmp_path / "installed")
    claims = [cell for cell in executed.cells for out in cell.get("outputs", []) if MIME in out.get("data", {})]
    assert len(claims) >= 5


def test_a_record_offers_its_chapter_with_its_parameters():
    for path in (ROOT / "book" / "records").glob("*.ipynb"):
        facts = nbformat.read(path, as_version=4).metadata["zonb"]
        cells = nbformat.read(SITE / "_sources" / "records" / path.name, as_version=4).cells
        values = {}
        exec(next(cell.source for cell in cells if cell["id"] == "page-parameters"), values)
        assert {name: values[name] for name in facts["parameters"]} == facts["parameters"]


def test_the_zip_is_the_same_for_the_same_site_and_opens_from_the_disk(visit, tmp_path):
    copy = shutil.copytree(SITE, tmp_path / "copy", copy_function=shutil.copyfile)  # other dates
    for folder, name in ((SITE, "a"), (copy, "b")):
        (tmp_path / name).mkdir()
        command = [sys.executable, ROOT / "tools" / "zip_site.py", folder, tmp_path / name / "zonb-book.zip"]
        subprocess.run(command, check=True)
    packed = tmp_path / "a" / "zonb-book.zip"
    assert packed.read_bytes() == (tmp_path / "b" / "zonb-book.zip").read_bytes()
    assert packed.stat().st_size < 15 * MIB
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path)
    unpacked = tmp_path / "zonb-book"
    opened = visit(unpacked / "index.html")
    opened.page.wait_for_url("**/book/intro.html")
    opened.page.locator("nav a.reference.internal", has_text="The projected kernel").first.click()
    opened.page.wait_for_function("document.querySelectorAll('mjx-container').length > 50")
    assert opened.page.url.startswith(unpacked.as_uri())
    assert opened.complaints == [] and opened.outside == []


def test_on_paper_a_page_is_light_and_its_proofs_are_open(visit):
    page = visit(LONG, scheme="dark").page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    assert page.locator("details.sd-dropdown:not([open])").count() == 0 < page.locator("details.sd-dropdown").count()
    assert page.locator("details.hide:not([open])").count() > 0  # code
    assert page.locator("details.hide[open]").count() == page.locator(".tag_hide-cell > details").count()  # figures
    for selector in ("body", ".bd-main", ".bd-article"):
        colour = page.locator(selector).first.evaluate("e => getComputedStyle(e).backgroundColor")
        assert colour in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"), selector
    for selector in (".bd-sidebar-primary", ".bd-header-article", ".copybtn", ".prev-next-footer", "a.headerlink"):
        assert page.locator(selector).count() and not page.locator(selector).first.is_visible(), selector
    assert page.locator("figure").first.evaluate("e => getComputedStyle(e).breakInside") == "avoid"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator("details.sd-dropdown[open]").count() == 0
