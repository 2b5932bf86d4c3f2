from types import SimpleNamespace

import nbformat
import pytest
import yaml

from zonb.press import chapter_page


def test_outputs_of_other_code_are_refused(tmp_path):
    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 2")])
    executed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
    nbformat.write(executed, tmp_path / "run.ipynb")
    run = SimpleNamespace(path=tmp_path / "run.ipynb", chapter=SimpleNamespace(notebook=source))
    with pytest.raises(ValueError, match="not the code that was executed"):
        chapter_page.chapter_page(run, [])


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
