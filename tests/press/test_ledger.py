import hashlib
import json
import math
import platform
from datetime import UTC, datetime, timedelta

import pytest
from conftest import CLAIM

from zonb import claims
from zonb.press import ledger


def test_verify_compares_claim_by_claim_and_leaves_a_receipt(book):
    book.write("01-a", CLAIM.format(1.1))
    assert book.zonb("run", "01").returncode == 0
    published = book.zonb("ledger", "--json").stdout
    (row,) = json.loads(published)
    assert row["chapter"] == "01-a" and row["measured"] == 1.1 and row["sem"] == pytest.approx(0.1)

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
    assert datetime.now(UTC) - datetime.fromisoformat(receipt["date"]) < timedelta(minutes=1)
    shown, _ = verified(row, options=["--all"])
    assert "same: one: published 1.1 for 1, rerun 1.1 for 1, apart 0\n" in shown.stdout

    close, receipt = verified({**row, "measured": 1.2})
    assert (
        close.returncode == 0
        and "within tolerance: one: published 1.2 for 1, rerun 1.1 for 1, apart 0.1\n" in close.stdout
    )
    (outcome,) = receipt["claims"]
    assert outcome["published"]["measured"] == 1.2 and outcome["rerun"]["measured"] == 1.1

    other, receipt = verified({**row, "measured": 2.0}, {**row, "id": "two"})
    assert other.returncode == 1 and "differs: one: published 2 for 1, rerun 1.1 for 1, further apart" in other.stdout
    assert "missing: two: only in the published ledger" in other.stdout
    assert [(claim["id"], claim["outcome"]) for claim in receipt["claims"]] == [("two", "missing"), ("one", "differs")]
    assert receipt["counts"] == {"same": 0, "within tolerance": 0, "new": 0, "missing": 1, "differs": 1}
    extra, _ = verified()
    assert extra.returncode == 1 and "new: one: only in the rerun" in extra.stdout


ROW = {"id": "c", "chapter": "01-a", "verdict": "holds", "relation": "==", "measured": 1.0, "expected": 1.0}
ROW["tolerance"] = 0.3


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({}, "same"),
        ({"tolerance": 0.2}, "same"),
        ({"measured": 1.0 + 2**-52}, "within tolerance"),
        ({"measured": 1.4}, "within tolerance"),
        ({"measured": 1.5}, "differs"),
        ({"expected": 1.1, "measured": 1.1}, "within tolerance"),
        ({"measured": 0.2, "relation": "<="}, "within tolerance"),
        ({"measured": 1.6, "relation": "<="}, "differs"),
        ({"measured": float("nan")}, "differs"),
    ],
)
def test_an_outcome_is_the_rule_of_disagreements_and_same_means_identical(changed, outcome):
    row = {**ROW, "relation": changed.get("relation", "==")}
    changed = {**row, **changed}
    (compared,) = ledger.compare([row], [changed])
    assert compared["outcome"] == outcome
    assert bool(claims.disagreements([row], [changed])) is (outcome == "differs")
    assert (compared["apart"] <= math.hypot(row["tolerance"], changed["tolerance"])) is (outcome != "differs")


def test_another_verdict_differs_whatever_the_numbers():
    assert [row["outcome"] for row in ledger.compare([ROW], [{**ROW, "verdict": "refuted"}])] == ["differs"]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"id": "one"}]'])
def test_a_file_that_is_no_ledger_is_said(book, text):
    book.write("01-a", CLAIM.format(1.1))
    book.zonb("run", "01")
    (book.root / "ledger.json").write_text(text)
    done = book.zonb("verify", "ledger.json")
    assert done.returncode == 2 and "ledger.json is not a ledger" in done.stderr


def test_a_ledger_needs_results_and_unique_ids(book):
    book.write("01-a", CLAIM.format(1.1))
    missing = book.zonb("ledger")
    assert missing.returncode == 2 and "01-a has no result" in missing.stderr
    book.write("02-b", CLAIM.format(1.1))
    book.zonb("run", "01", "02")
    twice = book.zonb("ledger")
    assert twice.returncode == 2 and "claims share an id: one" in twice.stderr
