import hashlib
import json
import math
import platform
from datetime import UTC, datetime

import pytest
from conftest import CLAIM, ENTRY, REFUTED, ROW

from zonb.press import ledger
from zonb.press.book import Book, RunnerError


def test_verify_compares_claim_by_claim_and_leaves_a_receipt(told):
    book, start = told, datetime.now(UTC).replace(microsecond=0)
    published = book.zonb("ledger", "--json").stdout
    (row,) = json.loads(published)
    assert row["chapter"] == "01-a" and row["measured"] == 1.1 and row["sem"] == pytest.approx(0.1)
    assert row["statement"] == ENTRY["statement"] and row["kind"] == "holds" and row["source"] == ["A Eq. 1"]

    def verified(*rows, options=()):
        (book.root / "ledger.json").write_text(json.dumps(rows))
        done = book.zonb("verify", "ledger.json", *options)
        receipt = json.loads((book.root / "_build" / "verify-receipt.json").read_text())
        digest = hashlib.sha256((book.root / "ledger.json").read_bytes()).hexdigest()
        assert receipt["ledger"] == {"file": "ledger.json", "sha256": digest}
        assert done.stdout.splitlines()[-1] == "_build/verify-receipt.json"
        return done, receipt

    same, receipt = verified(row)
    assert same.returncode == 0
    assert same.stdout.startswith("1 claims compared: 1 same, 0 within tolerance, 0 new, 0 missing, 0 differs\n")
    (result,) = book.results("01-a")
    assert result.stem == f"01-a-{receipt['keys']['01-a']}" and receipt["profile"] == "quick"
    assert receipt["machines"][0]["versions"]["python"] == platform.python_version()
    assert start <= datetime.fromisoformat(receipt["date"]) <= datetime.now(UTC)
    shown, _ = verified(row, options=["--all"])
    assert "same: one: published 1.1 for 1, rerun 1.1 for 1: 0 apart, 0.71 allowed\n" in shown.stdout

    close, receipt = verified({**row, "measured": 1.2})
    assert (
        close.returncode == 0
        and "within tolerance: one: published 1.2 for 1, rerun 1.1 for 1: 0.1 apart, 0.71 allowed\n" in close.stdout
    )
    (outcome,) = receipt["claims"]
    assert outcome["published"]["measured"] == 1.2 and outcome["rerun"]["measured"] == 1.1

    other, receipt = verified({**row, "measured": 2.0}, {**row, "id": "two"})
    assert (
        other.returncode == 1
        and "differs: one: published 2 for 1, rerun 1.1 for 1: 0.9 apart, 0.71 allowed" in other.stdout
    )
    assert "missing: two: only in the published ledger" in other.stdout
    assert [(claim["id"], claim["outcome"]) for claim in receipt["claims"]] == [("two", "missing"), ("one", "differs")]
    assert receipt["counts"] == {"same": 0, "within tolerance": 0, "new": 0, "missing": 1, "differs": 1}
    extra, _ = verified()
    assert extra.returncode == 1 and "new: one: only in the rerun" in extra.stdout


PUBLISHED = {**ROW, "measured": 1.0, "tolerance": 0.3}


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({}, "same"),
        ({"tolerance": 0.2}, "same"),
        ({"measured": 1.0 + 2**-52}, "within tolerance"),
        ({"measured": 1.4}, "within tolerance"),
        ({"measured": 1.5}, "differs"),
        ({"expected": 1.1, "measured": 1.1}, "within tolerance"),
        ({"expected": 5.0, "measured": 5.2}, "within tolerance"),  # another network, the same law
        ({"expected": 0.5, "measured": 1.2}, "differs"),
        ({"relation": "<=", "measured": 0.2}, "within tolerance"),
        ({"relation": "<=", "measured": 1.6}, "differs"),
        ({"relation": ">=", "measured": 9.0}, "within tolerance"),
        ({"relation": ">=", "measured": 0.1}, "differs"),
        ({"measured": float("nan")}, "differs"),
        ({"kind": "refuted"}, "differs"),
    ],
)
def test_ledgers_agree_within_both_tolerances_and_same_means_identical(changed, outcome):
    published = {**PUBLISHED, "relation": changed.get("relation", "==")}
    rerun = {**published, **changed}
    (compared,) = ledger.compare([published], [rerun])
    assert compared["outcome"] == outcome and compared["said"].startswith(f"{outcome}: one: published 1 for 1, rerun ")
    assert compared["allowed"] == math.hypot(0.3, rerun["tolerance"])
    if changed.get("kind") != "refuted":
        assert (compared["apart"] <= compared["allowed"]) is (outcome != "differs")
    else:
        assert compared["said"].endswith("; published as 'holds', here 'refuted'")


def test_a_claim_of_one_ledger_alone_is_new_or_missing():
    for published, rerun, said in (
        ([ROW], [], "missing: one: only in the published ledger"),
        ([], [ROW], "new: one: only in the rerun"),
    ):
        assert [row["said"] for row in ledger.compare(published, rerun)] == [said]


def test_numbers_are_the_mean_of_several_with_its_spread_and_the_worst_of_a_bound():
    assert ledger.numbers(ROW) == ledger.worst(ROW) == "1.25 ± 0.1 for 1"
    many = {**ROW, "comparisons": 20, "mean": [1.02, 1.01], "spread": 0.034}
    assert ledger.numbers(many) == "1.02 ± 0.034 for 1.01 (mean and spread of 20)"
    assert ledger.worst(many) == "1.25 ± 0.1 for 1, the worst of 20"
    bound = {**many, "relation": ">=", "sem": None}
    assert ledger.numbers(bound) == ledger.worst(bound) == "1.25 ± 0.5 (tolerance) for at least 1, the worst of 20"


def test_a_refuted_statement_is_told_with_what_the_paper_says_and_what_was_measured_where_it_fails():
    assert ledger.verdict(ROW) == "holds"
    row = {**ROW, **REFUTED, "says": "at most 1", "measured": 0.9, "against": {"two": 1.396}}
    assert ledger.verdict(row) == "the paper says at most 1; measured 1.396: refuted"
    del row["paper"]
    assert ledger.verdict(row) == "the paper says at most 1; measured 0.9: refuted"


@pytest.mark.parametrize(
    ("power", "said"),
    [({"relative": 0.0314}, "3.1 %"), ({"relative": 2.5}, "2.5e+02 %"), ({"absolute": 0.04}, "0.04")],
)
def test_the_power_says_how_far_off_a_formula_may_be(power, said):
    assert ledger.power({**ROW, "power": power}) == f"a formula off by more than {said} would have been rejected"


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"kind": "true"}, "the kind 'true' must be one of holds, sharpened"),
        ({"source": ["paper A"]}, "'paper A' must read like 'A Eq. 5'"),
        ({"source": ["A Eq. 5 ; B Thm. 1"]}, "must read like 'A Eq. 5'"),
        ({"kind": "refuted"}, "'says' belongs to what is refuted"),
        ({"says": "two"}, "'says' belongs to what is refuted"),
        ({"kind": "known"}, "'reference' belongs to what is known"),
        ({"statment": "One."}, "an entry has name, kind, source and statement"),
    ],
)
def test_an_entry_that_is_incomplete_is_refused(book, changed, complaint):
    book.word(one={**ENTRY, **changed})
    with pytest.raises(RunnerError, match=f"book/claims.yml, one: .*{complaint}"):
        ledger.wording(Book(book.root))


def test_sources_of_the_documented_form_are_taken(book):
    sources = [
        "A Eq. 5",
        "A Fig. 1",
        "A Lemma 1",
        "B Thm. 1",
        "B Cor. 2",
        "B Prop. 3",
        "B Property 4",
        "A Sec. D.1.2",
        "new",
    ]
    book.word(one={**ENTRY, "source": sources})
    assert ledger.wording(Book(book.root))["one"]["source"] == sources


def test_a_claim_without_an_entry_is_named_with_what_to_do(told):
    told.word(two=ENTRY)
    done = told.zonb("ledger")
    assert done.returncode == 2 and "the claim one of 01-a has no entry in book/claims.yml: add 'one:'" in done.stderr
    told.word(one={**REFUTED, "paper": "three"})
    assert "the claim one rejects no formula 'three'" in told.zonb("ledger").stderr


def test_new_wording_executes_nothing_and_is_printed(told):
    told.word(one={**REFUTED, "source": ["new"], "says": "at most 0.5"})
    shown = told.zonb("ledger").stdout
    assert shown.startswith("one (new; 01-a): the paper says at most 0.5; measured 1.1: refuted. One is $1$.\n")
    assert "up to date" in told.zonb("list").stdout and told.executed() == []


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"id": "one"}]'])
def test_a_file_that_is_no_ledger_is_said(told, text):
    (told.root / "ledger.json").write_text(text)
    done = told.zonb("verify", "ledger.json")
    assert done.returncode == 2 and "ledger.json is not a ledger" in done.stderr


def test_a_ledger_needs_results_and_unique_ids(book):
    book.write("01-a", CLAIM.format(1.1))
    missing = book.zonb("ledger")
    assert missing.returncode == 2 and "01-a has no result" in missing.stderr
    book.write("02-b", CLAIM.format(1.1))
    assert book.zonb("run", "01", "02").returncode == 0
    twice = book.zonb("ledger")
    assert twice.returncode == 2 and "claims share an id: one" in twice.stderr
