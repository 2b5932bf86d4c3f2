"""A sweep: the claims of a chapter at the points of a grid, as a table and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from zonb.press.book import Run, RunnerError
from zonb.press.ledger import collect

_COLUMNS = ("claim", "relation", "measured", "expected", "sem", "tolerance")


def sweep_rows(points: Sequence[tuple[Mapping[str, Any], Run]]) -> list[dict[str, Any]]:
    """The claims at the points of a grid, a row each: the grid's parameters, then the claim's numbers.

    Args:
        points: the grid's parameters and the run of each point; one without a result has no rows.
    """
    return [
        {**point, "claim": row["id"], **{name: row[name] for name in _COLUMNS[1:]}}
        for point, item in points
        if item.done
        for row in collect(item.result().cells, item.chapter.slug)
    ]


def sweep_csv(grid: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of a sweep as a CSV table; numbers with all their digits."""
    text = io.StringIO()
    table = csv.DictWriter(text, [*grid, *_COLUMNS], lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def sweep_svg(grid: Sequence[str], rows: Sequence[Mapping[str, Any]], id: str) -> str:
    """A claim over a grid: measured with error bars against the first parameter, expected dashed.

    Points that agree in all other parameters share a colour. Bars are standard errors, or the tolerance of a claim
    that has none.

    Raises:
        RunnerError: no row is of this claim.
    """
    of_claim = [row for row in rows if row["claim"] == id]
    if not of_claim:
        known = ", ".join(dict.fromkeys(row["claim"] for row in rows))
        raise RunnerError(f"no claim {id!r} in this sweep; " + (f"choose one of {known}" if known else "it has none"))
    from matplotlib.figure import Figure

    from zonb import plots

    plots.style()
    figure = Figure(figsize=(6.4, 4))
    ax = figure.subplots()
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in of_claim:
        lines.setdefault(", ".join(f"{name} = {row[name]}" for name in grid[1:]), []).append(row)
    for k, (label, line) in enumerate(lines.items()):
        at = [row[grid[0]] if isinstance(row[grid[0]], int | float) else str(row[grid[0]]) for row in line]
        measured, expected = ([row[name] for row in line] for name in ("measured", "expected"))
        bars = [row["tolerance"] if row["sem"] is None else row["sem"] for row in line]
        colour = plots.COLOURS[k % len(plots.COLOURS)]
        marker = plots.MARKERS[(k + k // len(plots.COLOURS)) % len(plots.MARKERS)]
        ax.errorbar(at, measured, bars, fmt=marker, color=colour, capsize=3, label=label)
        ax.plot(at, expected, "--", color=colour, linewidth=1.2)
    ax.plot([], [], "--", color=plots.INK, label="expected")
    error = "tolerance" if of_claim[0]["sem"] is None else "standard error"
    ax.set(xlabel=grid[0], ylabel=f"{id} (bars: {error})")
    ax.legend()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
