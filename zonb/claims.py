"""A claim: a statement of a paper, what was measured, and a check that can fail.

`claim` is called in a notebook. It asserts, it makes sure that the nearest wrong formulas would not have
passed, and it displays one record, from which the ledger, the errata page and the numbers in the prose follow.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

VERDICTS = ("holds", "holds with correction", "refuted", "new")
RELATIONS = ("==", "<=", ">=")
MIME = "application/vnd.zonb.claim+json"
_SOURCE = re.compile(r"new|[AB] (Eq\.|Fig\.|Lemma|Thm\.|Cor\.|Prop\.|Property|Sec\.) [A-Z0-9][A-Za-z0-9.]*")


class ClaimError(AssertionError):
    """A claim failed, or a wrong formula would have passed in its place."""


def claim(
    id: str,
    measured: ArrayLike,
    expected: ArrayLike,
    *,
    source: str,
    statement: str,
    rejects: Mapping[str, ArrayLike],
    sem: ArrayLike | None = None,
    tol: ArrayLike | None = None,
    z: float = 5,
    relation: str = "==",
    verdict: str = "holds",
) -> None:
    r"""Assert a claim and record it.

    Passes if every element satisfies :math:`|measured - expected| \le z\,sem` (or ``tol``); for the relations
    ``<=`` and ``>=`` only the excess on the wrong side counts. Then every formula in ``rejects``, put in the
    place of ``expected``, must fail the same test, because a check that a wrong formula passes checks nothing.

    Args:
        id: a short name, unique in the book, such as ``"A.error-law"``; also the name of its glued number
            (``id`` is the measured value, ``id.expected`` and ``id.sem`` the other two).
        measured: a number or an array.
        expected: what the formula says, broadcast against ``measured``.
        source: where the statement stands: ``"A Eq. 5"``, ``"B Thm. 1"``, ``"new"``, several joined by ``" ; "``.
        statement: one sentence, Markdown with maths.
        rejects: wrong formulas by name, at least one.
        sem: standard error of ``measured`` (positive). Give it for a statistical claim.
        tol: absolute tolerance, where nothing is random; the text beside the claim says where it comes from.
        z: number of standard errors allowed.
        relation: ``"=="``, ``"<="`` or ``">="``, read as ``measured relation expected``.
        verdict: on the paper's statement: ``"holds"``, ``"holds with correction"``, ``"refuted"``, or ``"new"``.

    Raises:
        ClaimError: the claim failed, or a wrong formula passed.
        ValueError: an argument is missing or out of range.

    >>> claim("demo", 1.02, 1.0, source="new", statement="One is one.", sem=0.01, rejects={"two": 2.0}, verdict="new")
    demo: new. Measured 1.02, expected 1, standard error 0.01. Rejected: two (2).
    """
    if not statement.strip() or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", id):
        raise ValueError(f"claim {id!r} needs a statement and an id of letters, digits, '.', '-' and '_'")
    for part in source.split(" ; "):
        if not _SOURCE.fullmatch(part):
            raise ValueError(f"source {part!r} of claim {id} must read like 'A Eq. 5', 'B Thm. 1' or 'new'")
    if verdict not in VERDICTS or relation not in RELATIONS:
        raise ValueError(f"claim {id}: verdict {verdict!r} must be in {VERDICTS}, relation {relation!r} in {RELATIONS}")
    if not rejects:
        raise ValueError(f"claim {id} rejects no wrong formula; give at least one, or it cannot be seen to fail")
    if (sem is None) == (tol is None):
        raise ValueError(f"claim {id} needs either sem (a statistical claim) or tol (a deterministic one), not both")
    tolerance = z * np.asarray(sem, dtype=float) if tol is None else np.asarray(tol, dtype=float)
    if not (np.isfinite(tolerance).all() and (tolerance > 0).all()):
        raise ValueError(f"claim {id}: the tolerance must be positive and finite, not {tolerance}")

    measured, expected = np.asarray(measured, dtype=float), np.asarray(expected, dtype=float)
    misfit = _misfit(measured, expected, tolerance, relation)
    at = [np.broadcast_to(array, misfit.shape).flat[misfit.argmax()] for array in (measured, expected, tolerance)]
    record: dict[str, Any] = {
        "id": id,
        "source": source,
        "statement": statement,
        "relation": relation,
        "measured": float(at[0]),
        "expected": float(at[1]),
        "sem": None if sem is None else float(at[2]) / z,
        "tolerance": float(at[2]),
        "comparisons": int(misfit.size),
        "verdict": verdict,
        "rejects": {},
    }
    if misfit.max() > 1:
        raise ClaimError(f"claim {id} failed: {_numbers(record)}, off by {misfit.max():.3g} times the tolerance")
    for name, formula in rejects.items():
        wrong = np.broadcast_to(np.asarray(formula, dtype=float), misfit.shape)
        if not np.isfinite(wrong).all():
            raise ValueError(f"claim {id}: the wrong formula {name!r} is not a finite number")
        wrong_misfit = _misfit(measured, wrong, tolerance, relation)
        if wrong_misfit.max() <= 1:
            raise ClaimError(f"claim {id} cannot fail: the wrong formula {name!r} passes it too")
        record["rejects"][name] = float(wrong.flat[wrong_misfit.argmax()])
    _display(record)


def report(**values: float) -> None:
    """Glue numbers that are not claims, so that the prose can cite them by name.

    >>> report(answer=42.0)
    """
    for name, value in values.items():
        _glue(name, value)


def collect(cells: Iterable[Mapping[str, Any]], chapter: str) -> list[dict[str, Any]]:
    """The records that a notebook's cells display, in order, each with its chapter."""
    return [
        {**output["data"][MIME], "chapter": chapter}
        for cell in cells
        for output in cell.get("outputs", [])
        if MIME in output.get("data", {})
    ]


def disagreements(published: Sequence[Mapping[str, Any]], rerun: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where a rerun's ledger contradicts the published one, a line each; an empty list if nowhere.

    What must be the same on another machine is not the number itself, since a network trained there may differ in its
    last digits, but how far it lies from what its formula expects. Two measurements of one claim agree if these
    deviations differ by at most the root of the sum of their squared tolerances. For a bound (``<=`` or ``>=``) only
    the part of a deviation on the wrong side counts. Verdicts must be equal, and neither ledger may lack a claim of the
    other.

    >>> row = {"id": "c", "verdict": "holds", "relation": "==", "measured": 1.0, "expected": 1.0, "tolerance": 0.3}
    >>> disagreements([row], [{**row, "measured": 1.4}]), disagreements([row], [{**row, "measured": 2.0}])
    ([], ['c: published 1 for 1, rerun 2 for 1, further apart than the tolerance 0.424'])
    """
    old, new = ({row["id"]: row for row in rows} for rows in (published, rerun))
    lines = [
        f"{id}: only in the {'published ledger' if id in old else 'rerun'}" for id in sorted(old.keys() ^ new.keys())
    ]
    for id in sorted(old.keys() & new.keys()):
        a, b = old[id], new[id]
        tolerance = math.hypot(a["tolerance"], b["tolerance"])
        if a["verdict"] != b["verdict"]:
            lines.append(f"{id}: published verdict {a['verdict']!r}, rerun {b['verdict']!r}")
            continue
        gaps = [row["measured"] - row["expected"] for row in (a, b)]
        if a["relation"] != "==":
            gaps = [max(0.0, gap if a["relation"] == "<=" else -gap) for gap in gaps]
        if not abs(gaps[0] - gaps[1]) <= tolerance:
            lines.append(
                f"{id}: published {a['measured']:.6g} for {a['expected']:.6g}, rerun {b['measured']:.6g} for "
                f"{b['expected']:.6g}, further apart than the tolerance {tolerance:.3g}"
            )
    return lines


def _misfit(measured: np.ndarray, expected: np.ndarray, tolerance: np.ndarray, relation: str) -> np.ndarray:
    """By how many tolerances each element is off on the wrong side; infinite where a value is not a number."""
    gap = measured - expected
    misfit = {"==": np.abs(gap), "<=": gap, ">=": -gap}[relation] / tolerance
    return np.where(np.isnan(misfit), np.inf, misfit)


def _numbers(record: Mapping[str, Any]) -> str:
    sign = {"==": "", "<=": "at most ", ">=": "at least "}[record["relation"]]
    error = "tolerance" if record["sem"] is None else "standard error"
    text = f"measured {record['measured']:.4g}, expected {sign}{record['expected']:.4g}"
    text += f", {error} {record['tolerance'] if record['sem'] is None else record['sem']:.2g}"
    return text + (f" (the worst of {record['comparisons']} comparisons)" if record["comparisons"] > 1 else "")


def _display(record: Mapping[str, Any]) -> None:
    wrong = ", ".join(f"{name} ({value:.4g})" for name, value in record["rejects"].items())
    numbers = _numbers(record)
    text = f"{record['id']}: {record['verdict']}. {numbers[0].upper()}{numbers[1:]}. Rejected: {wrong}."
    for suffix in ("measured", "expected", "sem"):
        if record[suffix] is not None:
            _glue(record["id"] + ("" if suffix == "measured" else f".{suffix}"), record[suffix])
    if _in_notebook():
        from IPython.display import display

        display({"text/plain": text, MIME: json.loads(json.dumps(record))}, raw=True)
    else:
        print(text)


def _glue(name: str, value: float) -> None:
    if _in_notebook():
        from myst_nb import glue

        glue(name, float(value), display=False)


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return get_ipython() is not None
