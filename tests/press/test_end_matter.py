import re

import pytest
import yaml
from conftest import ENTRY, ERRATUM, REFUTED, ROOT, ROW

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
    cells = end_matter.render(BOOK, "notation", introduction="", symbols=[{**own, "chapters": [1, 13]}])
    assert "  - m<br>chapters 1, 13\n" in cells
    text = " ".join(path.read_text() for path in (ROOT / "notebooks").glob("*.md"))
    for macro in notation["macros"]:
        assert f"\\{macro}" in text + page, macro


def errata_page(entries, rows):
    return end_matter.render(BOOK, "errata", papers=end_matter.errata(entries, rows))


RIGHT = {**ROW, "id": "right"}
CORRECTED = {**ROW, "id": "corrected", "kind": "holds with correction"}
CITATION = {**ERRATUM, "kind": "slip", "claims": [], "evidence": "The volume is of 1992."}


def test_an_erratum_quotes_reads_and_mends_and_links_its_checks():
    page = errata_page({"A": [{**ERRATUM, "proof": "thm-one"}], "B": []}, [WRONG, RIGHT])
    first, second = page.split("## Paper B")
    parts = ("“It is two.”", "About two.", "It is one.", "**false**", "{prf:ref}`thm-one`", "/notebooks/01-a")
    for text in (*parts, "ledger.html#one"):
        assert text in first and text not in second, text
    assert "right" not in page.split("## Paper A")[1] and "None so far." in second


def test_the_page_groups_errata_by_kind():
    mended = {**ERRATUM, "kind": "imprecise", "claims": ["corrected", "right"], "quote": "Nearly."}
    more = {**ERRATUM, "kind": "sharpened", "claims": ["right"], "quote": "Bluntly."}
    page = errata_page({"A": [more, CITATION, mended], "B": [ERRATUM]}, [WRONG, RIGHT, CORRECTED])
    order = ["A: slips", "1992", "A: imprecise", "Nearly", "A: sharpened", "Bluntly", "Paper B: false"]
    assert [page.index(text) for text in order] == sorted(page.index(text) for text in order)
    assert "A: false" not in page and "B: slips" not in page


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        *(({name: ""}, f"A, Eq. 1: it has no '{name}'") for name in ("quote", "reading", "wrong", "kind")),
        ({"where": ""}, "it has no 'where'"),
        ({"says": "Two."}, "an entry has no 'says'"),
        ({"kind": "odd"}, "the kind 'odd' must be one of false, slip, imprecise, sharpened"),
        ({"claims": []}, "it names no check"),
        ({"claims": None}, "it names no check"),
        ({**CITATION, "evidence": ""}, "is for a slip that has 'evidence'"),
        ({**CITATION, "kind": "imprecise"}, "is for a slip that has 'evidence'"),
        ({"claims": ["one", "absent"]}, "the ledger has no claim absent"),
        ({"claims": ["right"]}, "what is false has a refuted claim"),
        ({"kind": "slip"}, "what is false has a refuted claim"),
        ({"kind": "sharpened", "claims": ["corrected"]}, "what is sharpened holds"),
        ({}, "no entry for corrected, which the ledger refutes or corrects"),
    ],
)
def test_an_erratum_without_quote_reading_kind_or_fitting_checks_is_refused(change, complaint):
    with pytest.raises(RunnerError, match=complaint):
        errata_page({"A": [{**ERRATUM, **change}]}, [WRONG, RIGHT, CORRECTED])


def test_the_book_quotes_only_what_has_a_place_and_a_reading():
    entries = yaml.safe_load(BOOK.errata.read_text())
    claims = yaml.safe_load(BOOK.wording.read_text())
    rows = [{**entry, "id": id, "chapter": "01-a"} for id, entry in claims.items()]
    assert set(end_matter.errata(entries, rows)) == {"A", "review", "B"}
    quotes = [entry["quote"] for found in entries.values() for entry in found]
    assert len(quotes) == len(set(quotes))


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
