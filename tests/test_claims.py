import json
import math

import numpy as np
import pytest
from conftest import ROOT
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from zonb.claims import MIME, RELATIONS, ClaimError, claim


def check(measured, expected, **given):
    claim("a.claim", measured, expected, **{"rejects": {"wrong": 100.0}, **given})


def test_a_true_claim_says_what_was_measured(capsys):
    check(1.04, 1.0, sem=0.01)
    assert capsys.readouterr().out.startswith("a.claim: measured 1.04, expected 1, standard error 0.01.")


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
    assert "measured 1.04" in capsys.readouterr().out
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


PUBLISHED = json.loads((ROOT / "book" / "records" / "ledger.json").read_text())


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
        ({"sem": 0.1, "relation": "<"}, "relation '<' must be one of"),
        ({"sem": 0.1, "rejects": {"broken": np.nan}}, "is not a finite number"),
    ],
)
def test_incomplete_claims_are_refused(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        check(1.0, 1.0, **given)


def displayed(measured, expected, **given):
    """The record that a notebook would keep."""
    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            check(measured, expected, **given)
    finally:
        InteractiveShell.clear_instance()
    (record,) = [output.data[MIME] for output in captured.outputs if MIME in output.data]
    return record


def test_a_record_has_the_worst_comparison_and_the_means_with_their_spread():
    record = displayed([1.0, 2.5, 3.1], [1.1, 2.0, 3.0], tol=[0.2, 0.6, 0.5])
    assert (record["measured"], record["expected"], record["tolerance"], record["comparisons"]) == (2.5, 2.0, 0.6, 3)
    assert record["mean"] == pytest.approx([2.2, 2.0333333333])
    assert record["spread"] == pytest.approx(np.std([-0.1, 0.5, 0.1]))
    assert displayed(1.0, 1.0, sem=0.01)["spread"] is None


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_formula_off_by_more_than_the_power_is_rejected_and_one_off_by_less_may_pass(relation):
    draw = np.random.default_rng(1)
    signs = {"==": (1, -1), "<=": (-1,), ">=": (1,)}[relation]  # which way a bound becomes sharper
    for _ in range(50):
        expected, tolerance = draw.uniform(1, 2, 4), draw.uniform(0.1, 1, 4)
        measured = expected + tolerance * draw.uniform(-0.9, 0.9, 4)
        rule = {"tol": tolerance, "relation": relation}
        power = displayed(measured, expected, rejects={"far": {"==": 99, "<=": -99, ">=": 99}[relation]}, **rule)[
            "power"
        ]
        for sign in signs:
            with pytest.raises(ClaimError, match="failed"):
                check(measured, expected * (1 + sign * 1.001 * power["relative"]), **rule)
        passes = []
        for sign in signs:
            try:
                check(measured, expected * (1 + sign * 0.999 * power["relative"]), rejects={"far": -99 * sign}, **rule)
            except ClaimError as error:
                passes.append("failed" not in str(error))
            else:
                passes.append(True)
        assert any(passes)


def test_the_power_of_a_claim_about_zero_is_a_shift():
    assert displayed([0.1, -0.2], 0.0, tol=0.5)["power"] == {"absolute": pytest.approx(0.4)}


def test_a_wrong_formula_is_recorded_where_it_is_furthest_off_with_what_was_measured_there():
    record = displayed([1.0, 2.0, 3.0], [1.1, 2.0, 3.0], tol=0.2, rejects={"constant": 1.0})
    assert (record["rejects"], record["against"]) == ({"constant": 1.0}, {"constant": 3.0})
