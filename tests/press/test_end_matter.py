import re

import pytest
import yaml
from conftest import ROOT, ROW

from zonb.press import end_matter
from zonb.press.book import RunnerError


def test_notation_feeds_the_page_and_the_macros():
    notation = yaml.safe_load((ROOT / "book" / "notation.yml").read_text())
    page = end_matter.notation_page(notation)
    for symbol in notation["symbols"]:
        assert f"${symbol['tex']}$" in page and symbol["meaning"] in page
    own = {"tex": "t", "meaning": "m", "A": "in A", "B": "in B", "code": "c", "shape": "s"}
    cells = end_matter.notation_page({"introduction": "", "symbols": [own]})
    assert re.findall(r"- (\S.*)", cells)[-6:] == ["$t$", "m", "in A", "in B", "`c`", "s"]
    text = " ".join(path.read_text() for path in (ROOT / "notebooks").glob("*.md"))
    for macro in notation["macros"]:
        assert f"\\{macro}" in text + page, macro


def test_an_erratum_says_what_is_wrong_and_links_its_checks():
    entry = {"where": "Eq. 10", "says": "Two.", "wrong": "One.", "proof": "thm-one", "claims": ["one"]}
    page = end_matter.errata_page({"A": [entry], "B": []}, [ROW, {**ROW, "id": "right", "verdict": "holds"}])
    first, second = page.split("## Paper B")
    for text in ("Two.", "One.", "**refuted**", "{prf:ref}`thm-one`", "/notebooks/01-a", "ledger.html#one"):
        assert text in first and text not in second, text
    assert "right" not in page.split("## Paper A")[1]


@pytest.mark.parametrize("named", [[], ["one", "right"], ["one", "absent"]])
def test_errata_and_ledger_must_agree(named):
    entry = {"where": "Eq. 10", "says": "Two.", "wrong": "One.", "claims": named}
    rows = [ROW, {**ROW, "id": "right", "verdict": "holds"}]
    odd = {"": "one"}.get("".join(named), named[-1] if named else "")
    with pytest.raises(RunnerError, match=f"disagree about {odd}"):
        end_matter.errata_page({"A": [entry]}, rows)


def test_the_ledger_tells_what_was_measured_from_what_was_expected():
    table = end_matter.claims_table([ROW, {**ROW, "relation": "<=", "sem": None, "tolerance": 0.5, "comparisons": 7}])
    assert "measured 1.25<br>expected 1<br>sem 1.0e-01" in table
    assert "measured 1.25<br>expected at most 1<br>tolerance 5.0e-01<br>worst of 7" in table


def test_the_map_counts_outcomes():
    rows = [{**ROW, "verdict": verdict} for verdict in ("refuted", "new", "holds", "holds with correction")]
    assert "refuted: 1<br>holds: 2<br>holds with correction: 1" in end_matter.map_page(rows)


def test_the_map_lists_places_by_paper_kind_and_number():
    sources = ("A Eq. 10 ; A Fig. 2", "new", "B Prop. 3 ; new", "A Eq. 9", "A Sec. D.1.2 ; B Eq. 1")
    page = end_matter.map_page([{**ROW, "source": source, "chapter": f"0{k}-a"} for k, source in enumerate(sources)])
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
