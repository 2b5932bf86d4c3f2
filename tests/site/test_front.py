"""The pages that lead into the book: ledger filter, errata, map, cards."""

import json

import pytest
from test_site import CONTRAST, SITE


def rows():
    return json.loads((SITE / "ledger.json").read_text())


def shown(page):
    return page.locator("table.zonb-table tbody tr:visible").count()


def test_the_ledger_is_filtered_by_paper_kind_and_words(visit):
    page = visit("book/ledger.html").page
    everything = len(rows())
    assert shown(page) == everything
    page.get_by_label("kind").select_option("refuted")
    refuted = [row for row in rows() if row["kind"] == "refuted"]
    assert (
        shown(page) == len(refuted) and f"{len(refuted)} of {everything}" in page.locator(".zonb-filter").inner_text()
    )
    page.get_by_label("paper").select_option("B")
    assert shown(page) == len([row for row in refuted if any(place.startswith("B ") for place in row["source"])])
    page.get_by_label("paper").select_option("none")
    page.get_by_label("kind").select_option("")
    assert shown(page) == len([row for row in rows() if row["source"] == ["new"]])
    page.get_by_label("paper").select_option("")
    page.get_by_label("words").fill("B.BRIDGE-STEP")
    assert shown(page) == 1
    page.get_by_label("words").fill("nothing has this word")
    assert shown(page) == 0 and page.locator("section section:visible").count() == 0


def test_checks_of_errata_lead_to_their_rows(visit):
    page = visit("book/errata.html").page
    links = page.locator("a[href^='ledger.html#']")
    targets = [link.get_attribute("href").split("#")[1] for link in links.all()]
    wrong = {r["id"] for r in rows() if r["kind"] in ("refuted", "holds with correction")}
    assert wrong <= set(targets) <= {r["id"] for r in rows()}
    links.first.click()
    page.wait_for_load_state()
    assert page.locator(f"[id='{targets[0]}']").evaluate("e => Math.abs(e.getBoundingClientRect().top) < innerHeight")


@pytest.mark.parametrize("name", ["ledger", "errata", "notation", "reproducibility", "benchmarks", "map"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_cells_of_a_row_stand_under_each_other(visit, name, scheme):
    page = visit(f"book/{name}.html", width=390, scheme=scheme).page
    assert page.locator("table.zonb-table").count() > 0
    for table in page.locator("table.zonb-table").all():
        assert table.evaluate("e => e.offsetWidth <= e.parentElement.clientWidth")
        cells = [cell.bounding_box() for cell in table.locator("tbody tr").first.locator("td").all()]
        tops = [box["y"] for box in cells]
        assert tops == sorted(set(tops)) and all(box["width"] > 280 for box in cells)
        for cell in table.locator("tbody tr").first.locator("td p").all():
            assert cell.evaluate(CONTRAST) >= 4.5


def test_cells_are_named_where_the_head_of_their_column_is_not_seen(visit):
    for width, named in ((390, True), (1280, False)):
        table = visit("book/notation.html", width=width).page.locator("table.zonb-table")
        names = table.locator("thead th").all_text_contents()
        labels = table.locator("tbody tr").first.locator(".zonb-label")
        assert labels.all_text_contents() == [name.strip() for name in names] and len(names) == 6
        assert labels.first.is_visible() == named


def test_on_a_phone_the_ledger_is_filtered_too(visit):
    page = visit("book/ledger.html", width=390).page
    page.locator("input[name=words]").fill("B.BRIDGE-STEP")
    assert shown(page) == 1


@pytest.mark.parametrize(
    ("link", "says"), [("a[href*='bibliography.html#']", "Malladi"), ("a[href*='glossary.html#']", "")]
)
def test_cards_show_what_a_link_leads_to(visit, link, says):
    opened = visit("book/intro.html")
    page, card = opened.page, opened.page.locator("#zonb-card")
    first = page.locator(f"article {link}").first
    assert card.is_hidden()
    first.focus()
    assert card.is_visible() and len(card.inner_text()) > 40 and says in card.inner_text()
    assert first.get_attribute("aria-describedby") == "zonb-card"
    page.keyboard.press("Escape")
    assert card.is_hidden()
    first.hover()
    card.wait_for(state="visible")
    page.mouse.move(0, 0)
    card.wait_for(state="hidden")
    assert opened.complaints == []


def formula(page, tex):
    """The first formula in sight with this TeX."""
    found = page.evaluate_handle(
        """tex => [...MathJax.startup.document.math]
           .find(item => item.math === tex && item.typesetRoot.checkVisibility()).typesetRoot""",
        tex,
    ).as_element()
    found.scroll_into_view_if_needed()
    return found


def test_a_formula_says_what_its_symbols_mean(visit):
    opened = visit("notebooks/06-how-many.html")
    page, card = opened.page, opened.page.locator("#zonb-card")
    found = formula(page, r"\Delta K=K(o,u;U)-K(o,u)")
    found.hover()
    card.wait_for(state="visible")
    for meaning in ("projected (zeroth-order) eNTK", "first-order eNTK block", "error of the projected kernel"):
        assert meaning in card.inner_text()
    assert card.locator("p").count() == 4  # not u, which is an input here, and not U
    assert found.get_attribute("aria-describedby") == "zonb-card"
    page.keyboard.press("Escape")
    assert card.is_hidden() and found.get_attribute("aria-describedby") is None
    found.focus()
    card.wait_for(state="visible")
    page.mouse.move(0, 0)
    card.wait_for(state="hidden")
    assert opened.complaints == [] and opened.outside == []


@pytest.mark.parametrize(("name", "says"), [("06-how-many", "block"), ("07-moments", "eigenvalues")])
def test_a_letter_with_two_meanings_has_the_one_of_the_chapter(visit, name, says):
    page = visit(f"notebooks/{name}.html").page
    formula(page, "K").hover()
    page.locator("#zonb-card").wait_for(state="visible")
    assert says in page.locator("#zonb-card").inner_text()


def test_inputs_in_brackets_are_no_symbols(visit):
    page = visit("notebooks/16-parts-of-a-model.html").page
    found = page.evaluate_handle(
        """[...MathJax.startup.document.math].find(item => item.math.startsWith('K_S(o,u;U)=')).typesetRoot"""
    ).as_element()
    found.scroll_into_view_if_needed()
    found.hover()
    page.locator("#zonb-card").wait_for(state="visible")
    assert page.locator("#zonb-card p").count() == 3 and "perturbation" not in page.locator("#zonb-card").inner_text()


@pytest.mark.parametrize(("tex", "stays"), [(r"\eta", 100), ("N", 1000), (r"\mathcal K", 1000)])
def test_a_passing_pointer_and_unknown_symbols_open_no_card(visit, tex, stays):
    page = visit("notebooks/08-evolution.html").page
    formula(page, tex).hover()
    page.wait_for_timeout(stays)
    assert page.locator("#zonb-card").is_hidden()


def test_a_tap_on_a_formula_opens_its_card_within_the_screen(chromium):
    context = chromium.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto((SITE / "notebooks/06-how-many.html").as_uri())
    page.wait_for_function("window.MathJax?.startup?.promise")
    page.evaluate("MathJax.startup.promise")
    formula(page, r"\Xi").tap()
    card = page.locator("#zonb-card")
    card.wait_for(state="visible")
    page.wait_for_timeout(300)
    box = card.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    page.locator("article h1").tap()
    card.wait_for(state="hidden")
    context.close()
