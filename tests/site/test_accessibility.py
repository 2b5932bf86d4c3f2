"""What axe-core, a checker of the Web Content Accessibility Guidelines, finds on pages of every kind."""

from importlib.resources import files

import pytest

# The drawn parts of formulas and figures, which are described as a whole, are thousands of elements.
RUN = "axe.run({exclude: ['mjx-math', '.zonb-figure svg']}, {resultTypes: ['violations']})"
LEVELS = ("serious", "critical")
PAGES = [
    "book/intro.html",
    "notebooks/02-projected-kernel.html",
    "notebooks/06-how-many.html",
    "notebooks/15-trajectories.html",
    "book/ledger.html",
    "book/errata.html",
    "book/notation.html",
    "records/10-images-source-full.html",
]


@pytest.fixture(scope="module")
def axe():
    return files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_barrier(visit, axe, name, scheme):
    page = visit(name, scheme=scheme).page
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    page.evaluate(axe)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(600)  # the theme makes what now scrolls reachable by keyboard
        serious = [item for item in page.evaluate(RUN)["violations"] if item["impact"] in LEVELS]
        assert {item["id"]: [node["html"][:200] for node in item["nodes"]] for item in serious} == {}, width
