import re

import pytest
import yaml
from conftest import ENTRY, REFUTED, ROOT, ROW

from zonb.press import end_matter
from zonb.press.book import Book, RunnerError

BOOK = Book(ROOT)
WRONG = {**ROW, **REFUTED, "source": ["A Eq. 10"]}


def test_notation_feeds_the_page_and_the_macros():
    notation = yaml.safe_load(BOOK.notation.read_text())
    page = end_matter.render(BOOK, "notation", **notation)
    for symbol in notation["symbols"]:
        assert f"${symbol['tex']}$" in page and symbol["meaning"] in page
    own = {"tex": "t", "meaning": "m", "A": "in A", "B": "in B", "code": "c", "shape": "s"}
    cells = end_matter.render(BOOK, "notation", introduction="", symbols=[own])
    assert re.findall(r"- (\S.*)", cells)[-6:] == ["$t$", "m", "in A", "in B", "`c`", "s"]
    text = " ".join(path.read_text() for path in (ROOT / "notebooks").glob("*.md"))
    for macro in notation["macros"]:
        assert f"\\{macro}" in text + page, macro


def errata_page(entries, rows):
    return end_matter.render(BOOK, "errata", papers=end_matter.errata(entries, rows))


def test_an_erratum_says_what_is_wrong_and_links_its_checks():
    entry = {"where": "Eq. 10", "says": "Two.", "wrong": "One.", "proof": "thm-one", "claims": ["one"]}
    page = errata_page({"A": [entry], "B": []}, [WRONG, {**ROW, "id": "right"}])
    first, second = page.split("## Paper B")
    for text in ("Two.", "One.", "**refuted**", "{prf:ref}`thm-one`", "/notebooks/01-a", "ledger.html#one"):
        assert text in first and text not in second, text
    assert "right" not in page.split("## Paper A")[1]


@pytest.mark.parametrize("named", [[], ["one", "right"], ["one", "absent"]])
def test_errata_and_ledger_must_agree(named):
    entry = {"where": "Eq. 10", "says": "Two.", "wrong": "One.", "claims": named}
    odd = {"": "one"}.get("".join(named), named[-1] if named else "")
    with pytest.raises(RunnerError, match=f"disagree about {odd}"):
        errata_page({"A": [entry]}, [WRONG, {**ROW, "id": "right"}])


def test_a_row_of_the_ledger_has_wording_kind_source_numbers_and_power(book):
    book.write("01-a")
    rows = [
        {**ROW, "comparisons": 7, "mean": [1.02, 1.01], "spread": 0.03},
        {**WRONG, "id": "wrong", "says": "at most 1"},
        {**ROW, "id": "old", "kind": "known", "reference": "li2026zo"},
    ]
    page = end_matter.render(BOOK, "ledger", **end_matter.ledger_of(Book(book.root), rows))
    assert "3 so far (1 holds, 1 refuted, 1 known)" in page
    cells = re.findall(r"^[ *] - (.*)$", page, re.MULTILINE)
    first, second, third = (cells[k : k + 3] for k in (3, 6, 9))
    assert first == [
        '<span id="one"></span>One<br>`one`<br>A Eq. 1<br>**holds**',
        "One is $1$.<br>*Rejected:* two (2).",
        "1.02 ± 0.03 for 1.01 (mean and spread of 7)<br>1.25 ± 0.1 for 1, the worst of 7<br>"
        "a formula off by more than 75 % would have been rejected",
    ]
    assert second[1].startswith("One is $1$.<br>the paper says at most 1; measured 1.25: refuted.<br>")
    assert third[0].endswith("**known** ({cite:t}`li2026zo`)")


def map_page(rows):
    return end_matter.render(BOOK, "map", papers=end_matter.places(rows))


def test_the_map_counts_outcomes():
    rows = [{**ROW, "kind": kind} for kind in ("refuted", "new", "sharpened", "holds with correction")]
    assert "refuted: 1<br>holds: 2<br>holds with correction: 1" in map_page(rows)


def test_the_map_lists_places_by_paper_kind_and_number():
    sources = (["A Eq. 10", "A Fig. 2"], ["new"], ["B Prop. 3", "new"], ["A Eq. 9"], ["A Sec. D.1.2", "B Eq. 1"])
    page = map_page([{**ROW, "source": source, "chapter": f"0{k}-a"} for k, source in enumerate(sources)])
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


def test_a_template_that_asks_for_what_it_is_not_given_fails():
    with pytest.raises(Exception, match="'symbols' is undefined"):
        end_matter.render(BOOK, "notation", introduction=ENTRY["statement"])
