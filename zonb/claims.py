"""A claim: a statement of a paper, what was measured, and a check that can fail.

`claim` is called in a notebook. It asserts, it makes sure that the nearest wrong formulas would not have
passed, and it displays one record, from which the ledger, the errata page and the numbers in the prose follow.
What is claimed, and of whom, is data in ``book/claims.yml``; here are the numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["MIME", "RELATIONS", "ClaimError", "claim", "report"]

RELATIONS = ("==", "<=", ">=")
MIME = "application/vnd.zonb.claim+json"


class ClaimError(AssertionError):
    """A claim failed, or a wrong formula would have passed in its place."""


def claim(
    id: str,
    measured: ArrayLike,
    expected: ArrayLike,
    *,
    rejects: Mapping[str, ArrayLike],
    sem: ArrayLike | None = None,
    tol: ArrayLike | None = None,
    z: float = 5,
    relation: str = "==",
) -> None:
    r"""Assert a claim and record it.

    Passes if every element satisfies :math:`|measured - expected| \le z\,sem` (or ``tol``); for the relations
    ``<=`` and ``>=`` only the excess on the wrong side counts. Then every formula in ``rejects``, put in the
    place of ``expected``, must fail the same test, because a check that a wrong formula passes checks nothing.

    The record holds the worst comparison, the means over all comparisons with their spread, each wrong formula where
    it is furthest off, with what was measured there (``against``), and the claim's power: how far off the expected
    values must be, by a common factor (or by a shift where all are zero), to be rejected.

    Args:
        id: the name of an entry in ``book/claims.yml``, such as ``"A.error-law"``. Glued for the prose are ``id``,
            ``id.expected`` and ``id.sem`` (the worst comparison), ``id.mean`` and ``id.spread`` (the mean of what was
            measured, the standard deviation of measured less expected), and ``id.power``, in per cent.
        measured: a number or an array.
        expected: what the formula says, broadcast against ``measured``.
        rejects: wrong formulas by name, at least one.
        sem: standard error of ``measured`` (positive). Give it for a statistical claim.
        tol: absolute tolerance, where nothing is random; the text beside the claim says where it comes from.
        z: number of standard errors allowed.
        relation: ``"=="``, ``"<="`` or ``">="``, read as ``measured relation expected``.

    Raises:
        ClaimError: the claim failed, or a wrong formula passed.
        ValueError: an argument is missing or out of range.

    >>> claim("demo", [1.02, 0.99], 1.0, sem=0.01, rejects={"two": 2.0})
    demo: measured 1.02, expected 1, standard error 0.01 (the worst of 2 comparisons). Rejected: two (2).
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", id):
        raise ValueError(f"claim {id!r} needs an id of letters, digits, '.', '-' and '_'")
    if relation not in RELATIONS:
        raise ValueError(f"claim {id}: relation {relation!r} must be one of {', '.join(RELATIONS)}")
    if not rejects:
        raise ValueError(f"claim {id} rejects no wrong formula; give at least one, or it cannot be seen to fail")
    if (sem is None) == (tol is None):
        raise ValueError(f"claim {id} needs either sem (a statistical claim) or tol (a deterministic one), not both")
    tolerance = z * np.asarray(sem, dtype=float) if tol is None else np.asarray(tol, dtype=float)
    if not (np.isfinite(tolerance).all() and (tolerance > 0).all()):
        raise ValueError(f"claim {id}: the tolerance must be positive and finite, not {tolerance}")

    arrays = np.broadcast_arrays(np.asarray(measured, dtype=float), np.asarray(expected, dtype=float), tolerance)
    measured, expected, tolerance = arrays
    misfit = _misfit(measured, expected, tolerance, relation)
    at = [float(array.flat[misfit.argmax()]) for array in arrays]
    record: dict[str, Any] = {
        "id": id,
        "relation": relation,
        "measured": at[0],
        "expected": at[1],
        "sem": None if sem is None else at[2] / z,
        "tolerance": at[2],
        "comparisons": int(misfit.size),
        "mean": [float(measured.mean()), float(expected.mean())],
        "spread": float((measured - expected).std()) if misfit.size > 1 else None,
        "power": _power(measured, expected, tolerance, relation),
        "rejects": {},
        "against": {},
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
        record["against"][name] = float(measured.flat[wrong_misfit.argmax()])
    _display(record)


def report(**values: float) -> None:
    """Glue numbers that are not claims, so that the prose can cite them by name.

    >>> report(answer=42.0)
    """
    for name, value in values.items():
        _glue(name, value)


def _misfit(measured: np.ndarray, expected: np.ndarray, tolerance: np.ndarray, relation: str) -> np.ndarray:
    """By how many tolerances each element is off on the wrong side; infinite where a value is not a number."""
    gap = measured - expected
    misfit = {"==": np.abs(gap), "<=": gap, ">=": -gap}[relation] / tolerance
    return np.where(np.isnan(misfit), np.inf, misfit)


def _power(measured: np.ndarray, expected: np.ndarray, tolerance: np.ndarray, relation: str) -> dict[str, float]:
    """The least change of ``expected``, by a factor 1 ± x or by ± x where all are zero, that is sure to be rejected."""
    kind = "relative" if expected.any() else "absolute"
    unit = expected if kind == "relative" else np.ones_like(expected)
    moves = expected != 0 if kind == "relative" else np.full(expected.shape, True)
    needed = []
    for sign in (1, -1):  # a comparison notices where the formula moves away from what was measured
        away = np.sign(sign * unit)
        seen = moves & {"==": away != 0, "<=": away < 0, ">=": away > 0}[relation]
        room = tolerance + away * (measured - expected)
        if seen.any():
            needed.append(float((room[seen] / np.abs(unit[seen])).min()))
    return {kind: max(needed)}


def _numbers(record: Mapping[str, Any]) -> str:
    sign = {"==": "", "<=": "at most ", ">=": "at least "}[record["relation"]]
    error = "tolerance" if record["sem"] is None else "standard error"
    text = f"measured {record['measured']:.4g}, expected {sign}{record['expected']:.4g}"
    text += f", {error} {record['tolerance'] if record['sem'] is None else record['sem']:.2g}"
    return text + (f" (the worst of {record['comparisons']} comparisons)" if record["comparisons"] > 1 else "")


def _display(record: Mapping[str, Any]) -> None:
    wrong = ", ".join(f"{name} ({value:.4g})" for name, value in record["rejects"].items())
    text = f"{record['id']}: {_numbers(record)}. Rejected: {wrong}."
    glued = {"": record["measured"], ".expected": record["expected"], ".sem": record["sem"]}
    glued |= {
        ".mean": record["mean"][0],
        ".spread": record["spread"],
        ".power": 100 * next(iter(record["power"].values())),
    }
    for suffix, value in glued.items():
        if value is not None:
            _glue(record["id"] + suffix, value)
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
