import json
import math
from pathlib import Path

import numpy as np
import pytest

from zonb.claims import RELATIONS, ClaimError, claim, disagreements

SOURCES = ("A Eq. 5", "A Fig. 1 ; A Fig. 6", "A Lemma 1", "B Thm. 1", "B Cor. 2", "B Prop. 3", "B Property 4", "new")


def check(measured, expected, **given):
    settings = {"source": "new", "statement": "A statement.", "rejects": {"wrong": 100.0}, "verdict": "new"}
    claim("a.claim", measured, expected, **{**settings, **given})


def test_a_true_claim_says_what_was_measured(capsys):
    check(1.04, 1.0, sem=0.01)
    assert capsys.readouterr().out.startswith("a.claim: new. Measured 1.04, expected 1, standard error 0.01.")


@pytest.mark.parametrize("measured", [1.06, 0.94, np.nan, np.inf])
def test_a_false_claim_fails(measured):
    with pytest.raises(ClaimError, match=r"a\.claim failed: measured"):
        check(measured, 1.0, sem=0.01)


def test_z_is_the_number_of_standard_errors():
    check(1.06, 1.0, sem=0.01, z=7)
    with pytest.raises(ClaimError):
        check(1.06, 1.0, sem=0.01, z=5)


def test_a_claim_that_a_wrong_formula_passes_fails():
    with pytest.raises(ClaimError, match="cannot fail: the wrong formula 'near' passes it too"):
        check(1.0, 1.0, sem=0.01, rejects={"far": 2.0, "near": 1.02})


def test_one_bad_element_of_an_array_fails_and_the_worst_is_reported(capsys):
    check([1.0, 1.04, 1.0], 1.0, sem=[0.01, 0.01, 0.1])
    assert "Measured 1.04" in capsys.readouterr().out
    with pytest.raises(ClaimError, match=r"measured 1\.06.*worst of 3"):
        check([1.0, 1.06, 1.0], 1.0, sem=0.01)


def test_a_wrong_formula_is_rejected_if_any_element_shows_it():
    check([1.0, 2.0], [1.0, 2.0], tol=0.1, rejects={"constant": 1.0})
    with pytest.raises(ClaimError, match="cannot fail"):
        check([1.0, 1.0], [1.0, 1.0], tol=0.1, rejects={"constant": 1.0})


@pytest.mark.parametrize("relation", RELATIONS)
def test_what_a_claim_rejects_fails_in_the_place_of_what_it_expects(relation):
    draw, accepted = np.random.default_rng(0), 0
    for _ in range(300):
        expected, tolerance = draw.normal(size=4), draw.uniform(0.1, 1, 4)
        measured, wrong = expected + tolerance * draw.uniform(-1.2, 1.2, 4), expected + draw.normal(size=4)
        try:
            check(measured, expected, tol=tolerance, relation=relation, rejects={"wrong": wrong})
        except ClaimError:
            continue
        accepted += 1
        with pytest.raises(ClaimError, match=r"a\.claim failed"):
            check(measured, wrong, tol=tolerance, relation=relation, rejects={"right": expected})
    assert 50 < accepted < 250


PUBLISHED = json.loads((Path(__file__).parent.parent / "book" / "records" / "ledger.json").read_text())


def test_every_published_claim_names_wrong_formulas_with_finite_values():
    for row in PUBLISHED:
        assert row["rejects"] and all(name and math.isfinite(value) for name, value in row["rejects"].items()), row[
            "id"
        ]


@pytest.mark.parametrize("row", [row for row in PUBLISHED if row["comparisons"] == 1], ids=lambda row: row["id"])
def test_a_published_wrong_formula_fails_the_rule_of_its_claim(row):
    """Of one comparison. Of several the ledger has the worst one, which need not be where a wrong formula fails."""
    rule = {"tol": row["tolerance"], "relation": row["relation"]}
    check(row["measured"], row["expected"], rejects=row["rejects"], **rule)
    for wrong in row["rejects"].values():
        with pytest.raises(ClaimError, match=r"a\.claim failed"):
            check(row["measured"], wrong, rejects={"right": row["expected"]}, **rule)


def test_bounds_count_only_the_wrong_side():
    check(-50.0, 1.0, tol=0.1, relation="<=", rejects={"a bound that is broken": -60.0})
    check(50.0, 1.0, tol=0.1, relation=">=", rejects={"a bound that is broken": 60.0})
    with pytest.raises(ClaimError, match="failed"):
        check(1.2, 1.0, tol=0.1, relation="<=", rejects={"broken": 0.0})
    with pytest.raises(ClaimError, match="cannot fail"):
        check(0.5, 1.0, tol=0.1, relation="<=", rejects={"weaker": 2.0})


@pytest.mark.parametrize(
    "given, complaint",
    [
        ({}, "needs either sem"),
        ({"sem": 0.1, "tol": 0.1}, "needs either sem"),
        ({"sem": 0.0}, "must be positive"),
        ({"tol": np.nan}, "must be positive"),
        ({"sem": 0.1, "rejects": {}}, "rejects no wrong formula"),
        ({"sem": 0.1, "verdict": "true"}, "verdict 'true' must be in"),
        ({"sem": 0.1, "relation": "<"}, "relation '<' in"),
        ({"sem": 0.1, "source": "paper A"}, "must read like 'A Eq. 5'"),
        ({"sem": 0.1, "source": "A Eq. 5, B Thm. 1"}, "must read like 'A Eq. 5'"),
        ({"sem": 0.1, "statement": " "}, "needs a statement"),
        ({"sem": 0.1, "rejects": {"broken": np.nan}}, "is not a finite number"),
    ],
)
def test_incomplete_claims_are_refused(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        check(1.0, 1.0, **given)


@pytest.mark.parametrize(
    "source",
    ["A Eq. 5", "A Fig. 1 ; A Fig. 6", "A Lemma 1", "B Thm. 1", "B Cor. 2", "B Prop. 3", "B Property 4", "new"],
)
def test_sources_of_the_documented_form_are_taken(source):
    check(1.0, 1.0, sem=0.1, source=source)


ROW = {"id": "c", "verdict": "holds", "relation": "==", "measured": 1.0, "expected": 1.0, "tolerance": 0.3}


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"measured": 1.2}, None),
        ({"measured": 1.5}, "further apart"),
        ({"measured": 5.2, "expected": 5.0}, None),  # another network, the same law
        ({"measured": 1.2, "expected": 0.5}, "further apart"),
        ({"measured": float("nan")}, "further apart"),
        ({"verdict": "refuted"}, "published verdict 'holds', rerun 'refuted'"),
    ],
)
def test_ledgers_disagree_beyond_both_tolerances_or_in_the_verdict(changed, said):
    lines = disagreements([ROW], [{**ROW, **changed}])
    assert (lines == []) if said is None else (said in lines[0])


@pytest.mark.parametrize("relation, measured, agree", [(">=", 9.0, True), (">=", 0.1, False), ("<=", 0.1, True)])
def test_ledgers_compare_bounds_by_their_violation(relation, measured, agree):
    row = {**ROW, "relation": relation}
    assert (disagreements([row], [{**row, "measured": measured}]) == []) is agree


def test_ledgers_disagree_if_a_claim_is_missing():
    assert disagreements([ROW], []) == ["c: only in the published ledger"]
    assert disagreements([], [ROW]) == ["c: only in the rerun"]
