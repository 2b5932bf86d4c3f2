"""Arrays in, figure out: nothing here computes a result or draws a random number."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

__all__ = ["COLOURS", "INK", "MARKERS", "curves", "explorer", "heatmaps", "histogram", "images", "paired_bars"]
__all__ += ["projection_diagram", "style"]

# Okabe and Ito's colours that keep a contrast of 3 on white and on the dark theme, told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C8C00", "#56A0D3")
MARKERS = ("o", "s", "^", "D", "v", "P")
# Text and axes: legible on white and on black; the site turns it into the page's own text colour.
INK = "#787879"


def style() -> None:
    """Set the book's figure style: transparent SVG, one text size, colours safe on light and dark pages."""
    sns.set_theme(context="notebook", style="ticks", palette=COLOURS)
    alike: dict[Any, Any] = {
        "none": ("figure.facecolor", "axes.facecolor", "savefig.facecolor"),
        INK: ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"),
        11: ("font.size", "axes.labelsize", "axes.titlesize"),
        10: ("xtick.labelsize", "ytick.labelsize", "legend.fontsize"),
        False: ("axes.spines.top", "axes.spines.right"),
    }
    plt.rcParams.update({name: value for value, names in alike.items() for name in names})
    plt.rcParams.update({"legend.framealpha": 0, "lines.markersize": 5, "figure.dpi": 120, "svg.hashsalt": "zonb"})
    plt.rcParams["figure.constrained_layout.use"] = True
    from IPython import get_ipython

    if get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})


def heatmaps(
    kernels: ArrayLike,
    *,
    titles: Sequence[Sequence[str]],
    rows: Sequence[str],
    size: float = 1.55,
) -> Figure:
    """A grid of kernel blocks, one colour scale a row, centred at zero.

    Args:
        kernels: (R, C, V, V).
        titles: R lists of C titles.
        rows: a label for each row.
        size: inches a panel.
    """
    kernels = np.asarray(kernels)
    R, C = kernels.shape[:2]
    figure, axes = plt.subplots(R, C, figsize=(size * C + 0.9, (size + 0.38) * R), squeeze=False)
    for r in range(R):
        # The first column is the exact kernel: it sets the scale, and a noisy estimate may saturate it.
        limit = np.abs(kernels[r, 0]).max()
        for c in range(C):
            panel: Axes = axes[r, c]
            picture = panel.imshow(kernels[r, c], vmin=-limit, vmax=limit, cmap="RdBu_r", interpolation="none")
            panel.set(xticks=[], yticks=[])
            sns.despine(ax=panel, left=True, bottom=True)
            panel.set_title(titles[r][c], fontsize=10)
        axes[r, 0].set_ylabel(rows[r])
        bar = figure.colorbar(picture, ax=axes[r].tolist(), shrink=0.85, pad=0.015, aspect=14)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=9)
    return figure


def curves(
    x: ArrayLike,
    lines: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    guides: Mapping[str, ArrayLike] | None = None,
    points: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    dots: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ax: Axes | None = None,
    title: str = "",
    marked: bool = True,
    legend: bool = True,
    ramp: bool = False,
    xscale: str = "log",
    yscale: str = "log",
) -> Axes:
    """Curves over one axis, measured ones with markers and ``guides`` (theory, slopes) dashed.

    Args:
        x: (n,).
        lines: measured curves by label, each (n,); NaN leaves a gap.
        guides: curves to compare with, drawn in the text colour.
        points: single points by label, as (x, y), drawn as stars.
        dots: clouds of measured points by label, as (x, y).
        ax: where to draw; a new figure if not given.
        marked: whether measured curves carry markers.
        legend: whether to draw one.
        ramp: colours from one ramp, blue to orange in the order of ``lines``, instead of distinct ones.
        xscale, yscale: matplotlib's names of the scales.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4))
    ax.set(xscale=xscale, yscale=yscale, xlabel=xlabel, ylabel=ylabel, title=title)
    colours = sns.blend_palette(COLOURS[:2], len(lines)) if ramp else COLOURS
    for k, (label, y) in enumerate(lines.items()):
        marker = MARKERS[k % len(MARKERS)] if marked else None
        style = "-" if k < len(colours) else ":"
        ax.plot(x, y, style, marker=marker, color=colours[k % len(colours)], label=label, linewidth=1.4)
    for k, (label, (at, height)) in enumerate((dots or {}).items(), start=len(lines)):
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
        ax.plot(at, height, marker, color=colour, markersize=4, alpha=0.8, markeredgewidth=0, label=label)
    for k, (label, y) in enumerate((guides or {}).items()):
        ax.plot(x, y, color=INK, linestyle=("--", ":", "-.")[k % 3], label=label, linewidth=1.4, zorder=3)
    for label, (at, height) in (points or {}).items():
        ax.plot(at, height, "*", color=INK, markersize=12, label=label, zorder=4)
    if legend:
        ax.legend()
    return ax


def paired_bars(
    groups: Sequence[str], series: Mapping[str, tuple[ArrayLike, ArrayLike | None]], *, xlabel: str, ylabel: str
) -> Axes:
    """Bars side by side: for every group one bar a series, with an error bar where one is given.

    Args:
        groups: names on the horizontal axis.
        series: label to (heights, half-lengths of the error bars or None).
    """
    _, ax = plt.subplots(figsize=(6.8, 3.8))
    width = 0.8 / len(series)
    at = np.arange(len(groups))
    for k, (label, (height, error)) in enumerate(series.items()):
        shift = (k - (len(series) - 1) / 2) * width
        ax.bar(at + shift, height, width, yerr=error, label=label, color=COLOURS[k], ecolor=INK, capsize=2)
    ax.axhline(0, color=INK, linewidth=0.8)
    ax.set_xticks(at, groups)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax


def histogram(values: ArrayLike, *, xlabel: str, marks: Mapping[str, float], bins: int = 30) -> Axes:
    """A histogram with labelled vertical marks."""
    _, ax = plt.subplots(figsize=(6.4, 3.4))
    ax.hist(np.asarray(values).ravel(), bins=bins, color=COLOURS[0], alpha=0.75, edgecolor="none")
    for k, (label, value) in enumerate(marks.items()):
        ax.axvline(value, color=COLOURS[k + 1], linewidth=2, linestyle=("-", "--", ":")[k % 3], label=label)
    ax.set(xlabel=xlabel, ylabel="number of pairs")
    ax.legend()
    return ax


def images(pictures: ArrayLike, titles: Sequence[str]) -> Figure:
    """A row of grey images with titles.

    Args:
        pictures: (N, H, W).
        titles: N titles.
    """
    pictures = np.asarray(pictures)
    figure, axes = plt.subplots(1, len(pictures), figsize=(max(1.0 * len(pictures), 4), 1.9), squeeze=False)
    for ax, picture, title in zip(axes[0], pictures, titles, strict=True):
        ax.imshow(picture, cmap="gray_r", interpolation="none")
        ax.set_title(title, fontsize=10)
        ax.set_axis_off()
    return figure


def explorer(
    name: str,
    sliders: Mapping[str, Sequence[Any]],
    frames: Mapping[tuple[Any, ...], Mapping[str, Any]],
    *,
    table: Mapping[str, Sequence[Any]],
    x: ArrayLike | None = None,
    xlabel: str = "",
    ylabel: str = "",
    xscale: str = "linear",
    yscale: str = "linear",
) -> HTML:
    """A picture with sliders, drawn by the site's ``explorers.js`` from numbers in the page; no server is asked.

    Without the script there are the table and whatever figure the chapter shows beside it.

    Args:
        name: what is seen, for the heading and for screen readers.
        sliders: the values of each slider, by label.
        frames: what is drawn at each combination of values, a tuple in the order of ``sliders``: either ``lines`` (by
            label, each (n,) over ``x``, NaN leaves a gap), with ``guides`` (dashed) and ``runs`` (a list of thin lines)
            if there are any, or ``matrices`` (by title, (V, V), one colour scale centred at zero). ``note`` is a
            sentence that goes with the frame.
        table: the main numbers, as columns by heading.
        x: (n,), what a further slider runs over, which reads all lines at its place.
        xlabel, ylabel: the axes.
        xscale, yscale: "linear" or "log".

    Raises:
        KeyError: a combination of values without a frame.
    """
    labels = {"name": name, "xlabel": xlabel, "ylabel": ylabel, "xscale": xscale, "yscale": yscale}
    moved = [{"label": label, "values": list(map(str, values))} for label, values in sliders.items()]
    drawn = [frames[point] for point in itertools.product(*sliders.values())]
    data = {**labels, "x": x, "sliders": moved, "frames": drawn}
    text = json.dumps(_short(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    heads = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in table)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(_short(cell)))}</td>" for cell in row) + "</tr>"
        for row in zip(*table.values(), strict=True)
    )
    return HTML(
        f'<div class="zonb-explorer" role="group" aria-label="{html.escape(name)}">'
        f'<script type="application/json">{text}</script>'
        f"<noscript><p>{html.escape(name)}: the sliders need JavaScript; the table has the numbers.</p></noscript>"
        f"<details><summary>The numbers as a table</summary><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></details></div>"
    )


def _short(value: Any) -> Any:
    """Numbers to four digits in plain lists, for a small page; None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _short(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_short(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value


def projection_diagram() -> Figure:
    r"""Paper A's Figure 2, drawn: :math:`J_o\,U\,U^T J_u^T`, the shapes of its factors and what they mean."""
    figure, ax = plt.subplots(figsize=(7.2, 3.9))
    ax.set(xlim=(0, 12.6), ylim=(-0.5, 6.3), aspect="equal")
    ax.set_axis_off()
    V, d, P = 1.2, 3.2, 0.7
    factors = [(d, V, 0, "J_o", "V\\times d"), (P, d, 1, "U", "d\\times P"), (d, P, 1, "U^\\top", "P\\times d")]
    left, middle = 0.2, 4.2
    for width, height, colour, symbol, shape in [*factors, (V, d, 0, "J_u^\\top", "d\\times V")]:
        _box(ax, left, middle - height / 2, width, height, COLOURS[colour], f"${symbol}$\n${shape}$")
        left += width + 0.35
    ax.text(left, middle, "=", ha="center", va="center", fontsize=16)
    _box(ax, left + 0.4, middle - V / 2, V, V, COLOURS[2], "$K(o,u;U)$\n$V\\times V$")
    halves = (
        (0.2, d + P + 0.35, "projected tangents at $x_o$: $V$ points in $\\mathbb{R}^P$"),
        (d + P + 0.9, d + V + 0.35, "projected tangents at $x_u$"),
    )
    for start, width, text in halves:
        ax.plot([start, start, start + width, start + width], [2.35, 2.15, 2.15, 2.35], color=INK, linewidth=1.2)
        ax.text(start + width / 2, 1.85, text, ha="center", va="top", fontsize=9.5)
    meaning = "entry $(i,j)$ = inner product of tangent $i$ at $x_o$ and tangent $j$ at $x_u$,\n"
    meaning += "after both were projected on the same $P$ random directions"
    ax.text(6.3, 0.75, meaning, ha="center", va="top", fontsize=10)
    return figure


def _box(ax: Axes, x: float, y: float, width: float, height: float, colour: Any, label: str) -> None:
    ax.add_patch(Rectangle((x, y), width, height, facecolor=colour, alpha=0.3, edgecolor=colour, linewidth=1.5))
    ax.text(x + width / 2, y + height / 2, label, ha="center", va="center", fontsize=10.5)
