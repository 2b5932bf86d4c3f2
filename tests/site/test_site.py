import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from zonb import theory

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "_build" / "html"
PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.glob("[!_]*/**/*.html"))
ABSOLUTE = re.compile(r"[\s\"'>](/tmp|/usr|/root|/home)/")
PLAIN = tuple(
    f"book/{name}.html"
    for name in (
        "api/index",
        "benchmarks",
        "bibliography",
        "extend",
        "explore",
        "faults",
        "map",
        "reproducibility",
        "rerun",
        "style",
    )
)
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]

CONTRAST = """
element => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * x + .7152 * y + .0722 * z;
  };
  let behind = element;
  while (behind && numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const ink = light(numbers(getComputedStyle(element).color));
  const paper = behind ? light(numbers(getComputedStyle(behind).backgroundColor)) : 1;
  return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
}
"""


def zonb(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "zonb.press.cli", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_all_chapters_and_derived_pages_are_there():
    assert {f"notebooks/{path.stem}.html" for path in (ROOT / "notebooks").glob("*.md")} == set(CHAPTERS)
    for name in ("intro", "errata", "ledger", "reproducibility", "notation", "bibliography"):
        assert f"book/{name}.html" in PAGES


@pytest.mark.parametrize("name", ["index.html", *PAGES])
def test_pages_load_quietly_with_their_formulas_and_ask_for_nothing_outside(visit, name):
    opened = visit(name)
    page = opened.page
    page.wait_for_timeout(300)
    assert opened.complaints == [] and opened.outside == []
    assert page.locator("article h1").count() == 1
    formulas = page.locator(".math").count()
    assert page.locator(".math mjx-container").count() >= formulas
    assert page.locator("mjx-merror").count() == 0
    assert formulas > 0 or name in (*PLAIN, "index.html")


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_does_not_scroll_sideways_and_follows_its_scheme(visit, name):
    page = visit(name, width=390, scheme="dark").page
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, scheme


@pytest.mark.parametrize("name", CHAPTERS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_described_and_readable(visit, name, scheme):
    page = visit(name, scheme=scheme).page
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    figures = page.locator(".zonb-figure")
    assert figures.count() >= 3
    assert page.locator("figure").count() == figures.count() == page.locator("figure figcaption").count()
    for k in range(figures.count()):
        figure = figures.nth(k)
        assert len(figure.get_attribute("aria-label")) >= 40 and figure.get_attribute("role") == "img"
        assert figure.evaluate(CONTRAST) >= 4.5
        svg = figure.locator("svg").first
        assert svg.evaluate("e => getComputedStyle(e).backgroundColor") == "rgba(0, 0, 0, 0)"
        assert svg.evaluate("e => e.outerHTML").count("currentColor") > 3
        box = svg.bounding_box()
        assert box["width"] > 200 and box["height"] > 80
    ids = page.evaluate("[...document.querySelectorAll('.zonb-figure [id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_captions_and_text_keep_their_contrast(visit):
    for scheme in ("light", "dark"):
        page = visit(CHAPTERS[0], scheme=scheme).page
        for selector in ("figcaption p", "p", ".cell_output pre", "h1", "#pst-back-to-top"):
            assert page.locator(selector).first.evaluate(CONTRAST) >= 4.5, (scheme, selector)


def test_search_finds_a_word(visit):
    opened = visit("search.html")
    opened.page.goto((SITE / "search.html").as_uri() + "?q=alignment")
    results = opened.page.locator("#search-results li a")
    results.filter(has_text=re.compile("projected", re.IGNORECASE)).first.wait_for()
    opened.page.goto((SITE / "search.html").as_uri() + "?q=xylophone")
    opened.page.wait_for_timeout(500)
    assert opened.page.locator("#search-results li").count() == 0
    assert opened.complaints == [] and opened.outside == []


def test_dropdowns_open_with_the_keyboard(visit):
    page = visit(CHAPTERS[0]).page
    proof = page.locator("details.sd-dropdown").first
    assert proof.get_attribute("open") is None
    proof.locator("summary").focus()
    page.keyboard.press("Enter")
    assert proof.get_attribute("open") is not None


CALCULATOR = "notebooks/06-how-many.html"
ASKED = [  # rho, tolerance in %, V, failures in %, d
    (0.16, 10, 10, 10, 29624),
    (1, 50, 2, 100 / 3, 1_000_000),
    (0.274, 33.8, 10, 5, 100),
    (0.001, 1, 50272, 0.001, 125_000_000),
]


@pytest.mark.parametrize("asked", ASKED)
def test_the_calculator_computes_what_zonb_computes(visit, asked):
    opened = visit(CALCULATOR)
    page = opened.page
    for name, value in zip(("rho", "tol", "V", "delta", "d"), asked, strict=True):
        page.locator(f"#calc-{name}").fill(repr(value))
    rho, tol, V, delta, d = asked
    expected = {
        "rule": theory.perturbations_needed(rho, tol / 100),
        "jl": theory.jl_dimension(2 * V, rho * tol / 100, delta / 100),
        "eq15": theory.eq15_perturbations(V, rho, tol / 100),
    }
    for name, value in expected.items():
        assert page.locator(f"#calc-{name}").inner_text() == f"{int(float(f'{value:.15g}')):,}"
    told = page.get_by_role("status").filter(has_text=f"{expected['rule']:,}")
    told.wait_for()
    advice = told.inner_text()
    assert ("orthonormal" in advice) == (expected["rule"] >= d)
    assert ("forward passes" in advice) == (expected["rule"] < d)
    assert opened.complaints == [] and opened.outside == []


def test_the_calculator_works_with_the_keyboard_alone(visit):
    page = visit(CALCULATOR).page
    before = page.locator("#calc-rule").inner_text()
    page.locator("#calc-rho").focus()
    page.keyboard.press("ArrowUp")
    assert page.locator("#calc-rho").input_value() == "0.161" == page.locator("#calc-rho-slider").input_value()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "calc-rho-slider"
    page.keyboard.press("ArrowRight")
    assert page.locator("#calc-rho").input_value() == "0.162"
    assert page.locator("#calc-rule").inner_text() == f"{theory.perturbations_needed(0.162, 0.1):,}" != before


def test_the_calculator_speaks_to_a_screen_reader(visit):
    page = visit(CALCULATOR).page
    form = page.get_by_role("form", name="Calculator: how many directions do I need?")
    for control in form.locator("input").all():
        assert control.evaluate("e => e.labels.length > 0 || e.ariaLabel?.length > 0")
    assert form.get_by_role("spinbutton", name="relative error τ in %").is_visible()
    assert form.get_by_role("rowheader").count() == 3
    told = form.get_by_role("status")
    assert told.count() == 2 and form.locator("[aria-live]").count() == 0
    page.locator("#calc-rho").fill("0.5")
    told.filter(has_text=f"{theory.perturbations_needed(0.5, 0.1):,} Gaussian directions").wait_for()


@pytest.mark.parametrize("name, value", [("rho", "0"), ("rho", "1.5"), ("tol", ""), ("V", "2.5"), ("d", "0")])
def test_the_calculator_says_what_is_wrong_with_an_input(visit, name, value):
    page = visit(CALCULATOR).page
    field = page.locator(f"#calc-{name}")
    good = field.input_value()
    field.fill(value)
    label = page.locator(f"label[for=calc-{name}]").inner_text()
    page.get_by_role("status").filter(has_text=label).wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    assert page.locator("#calc-rule").inner_text() == "–"
    assert field.get_attribute("aria-describedby") == "calc-problem"
    field.fill(good)
    page.wait_for_function("!document.querySelector('#calc-problem').textContent")
    assert page.locator("#calc-rule").inner_text() != "–"


def test_the_calculator_fits_a_narrow_screen_with_its_largest_numbers(visit):
    page = visit(CALCULATOR, width=320).page
    for name, value in (("rho", "0.001"), ("tol", "1"), ("V", "1000000"), ("d", "1000000000000")):
        page.locator(f"#calc-{name}").fill(value)
    form = page.locator("#directions-calculator")
    assert form.bounding_box()["width"] <= 320 and form.evaluate("e => e.scrollWidth <= e.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_calculator_is_legible(visit, scheme):
    page = visit(CALCULATOR, scheme=scheme, width=390).page
    for selector in ("label", "input[type=number]", "th", "td", "caption", "#calc-advice"):
        assert page.locator(f"#directions-calculator {selector}").first.evaluate(CONTRAST) >= 4.5, selector


def test_pages_show_no_path_of_this_machine():
    for name in PAGES:
        text = (SITE / name).read_text()
        assert str(ROOT) not in text and str(Path.home()) + "/" not in text, name
        assert not ABSOLUTE.search(text), name


def test_executed_notebooks_are_clean():
    results = [path for path in (ROOT / "_build").glob("*/*.ipynb") if "failed" not in path.name]
    assert results
    for path in results:
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                assert output.get("name") != "stderr" and output["output_type"] != "error"
                texts = [text for mime, text in output.get("data", {}).items() if mime.startswith("text/")]
                for text in [*texts, output.get("text", "")]:
                    assert "\r" not in text and str(ROOT) not in text and not ABSOLUTE.search(text)


def test_the_ledger_is_complete_and_of_the_documented_form():
    rows = json.loads((SITE / "ledger.json").read_text())
    asked = zonb("ledger", "--json")
    assert json.loads(asked.stdout) == rows
    for row in rows:
        assert {"id", "source", "statement", "expected", "measured", "sem", "kind", "chapter"} <= row.keys()
        assert row["rejects"]
    for page in CHAPTERS:
        source = (ROOT / page.replace(".html", ".md")).read_text()
        ids = re.findall(r"claim\(\s*\"([^\"]+)\"", source)
        assert [row["id"] for row in rows if row["chapter"] == Path(page).stem] == ids
    ledger = (SITE / "book" / "ledger.html").read_text()
    assert all(row["id"] in ledger for row in rows)


def test_a_second_build_executes_and_renders_nothing():
    before = (SITE / "index.html").stat().st_mtime_ns
    done = zonb("book")
    assert done.returncode == 0 and "0 executed" in done.stdout and "up to date" in done.stdout
    assert (SITE / "index.html").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", [CHAPTERS[0], CHAPTERS[1]])
def test_on_a_phone_a_figure_fits_the_screen_or_says_that_it_scrolls(visit, name):
    page = visit(name, width=390).page
    hint = "e => getComputedStyle(e, '::before').content"
    for figure in page.locator(".zonb-figure").all():
        wide = "wide" in figure.get_attribute("class").split()
        assert figure.evaluate("e => e.scrollWidth > e.clientWidth") == wide
        assert ("scroll" in figure.evaluate(hint)) == wide
        natural, shown = figure.locator("svg").first.evaluate("e => [parseFloat(e.style.width), e.clientWidth]")
        assert shown / natural > 0.5  # tick labels of 13 pixels keep 6.5
