"""The pages that lead into the book: ledger filter, errata, map, cards."""

import json

import pytest
from test_site import SITE


def rows():
    return json.loads((SITE / "ledger.json").read_text())


def shown(page):
    return page.locator("table.zonb-table tbody tr:visible").count()


def test_the_ledger_is_filtered_by_paper_verdict_and_words(visit):
    page = visit("book/ledger.html").page
    everything = len(rows())
    assert shown(page) == everything
    page.get_by_label("verdict").select_option("refuted")
    refuted = [row for row in rows() if row["verdict"] == "refuted"]
    assert (
        shown(page) == len(refuted) and f"{len(refuted)} of {everything}" in page.locator(".zonb-filter").inner_text()
    )
    page.get_by_label("paper").select_option("B")
    assert shown(page) == len([row for row in refuted if "B " in row["source"]])
    page.get_by_label("paper").select_option("none")
    page.get_by_label("verdict").select_option("")
    assert shown(page) == len([row for row in rows() if row["source"] == "new"])
    page.get_by_label("paper").select_option("")
    page.get_by_label("words").fill("B.BRIDGE-STEP")
    assert shown(page) == 1
    page.get_by_label("words").fill("nothing has this word")
    assert shown(page) == 0 and page.locator("section section:visible").count() == 0


def test_checks_of_errata_lead_to_their_rows(visit):
    page = visit("book/errata.html").page
    links = page.locator("a[href^='ledger.html#']")
    targets = [link.get_attribute("href").split("#")[1] for link in links.all()]
    assert sorted(targets) == sorted(r["id"] for r in rows() if r["verdict"] in ("refuted", "holds with correction"))
    links.first.click()
    page.wait_for_load_state()
    assert page.locator(f"[id='{targets[0]}']").evaluate("e => Math.abs(e.getBoundingClientRect().top) < innerHeight")


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
