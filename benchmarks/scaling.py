"""How time grows with N, V, d and P: measured exponents beside the expected ones, and a log-log figure.

Usage: python benchmarks/scaling.py [--repeats N]
An exponent is fitted to the three largest sizes, because small ones show fixed costs.
"""

import argparse
import statistics
from collections.abc import Callable

import harness
import matplotlib
import numpy as np
import torch

from zonb import directions, kernels, models, plots, tangents, theory
from zonb.optim import ZOSGD


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=directions.generator(0), dtype=dtype)


def jacobian(N: int) -> Callable:
    model, x = models.lenet(seed=0), random(N, 1, 28, 28)
    return lambda: tangents.jacobian(model, x)


def gram(N: int) -> Callable:
    model, x = models.lenet(seed=0), random(N, 1, 28, 28)
    return lambda: tangents.gram(model, x)


def gram_by_outputs(V: int) -> Callable:
    model, x = models.mlp((400, 400, V), seed=0), random(32, 400)
    return lambda: tangents.gram(model, x)


def project_by_d(d: int) -> Callable:
    J, g = random(10, 10, d), directions.generator(1)
    return lambda: kernels.project(J, directions.rademacher, 128, generator=g)


def project_by_P(P: int) -> Callable:
    J, g = random(10, 10, 30_000), directions.generator(1)
    return lambda: kernels.project(J, directions.rademacher, P, generator=g)


def losses(N: int) -> Callable:
    X = random(N, 2 * N, dtype=torch.float64)
    K, f, y, steps = X @ X.T / N, random(N).double(), torch.zeros(N).double(), torch.arange(16_000)
    return lambda: theory.loss_of_mean(K, f, y, 0.1, steps)


def sampled(draws: int) -> Callable:
    X, g, pair = random(200, 711), directions.generator(1), directions.Pair(law=directions.gaussian)
    return lambda: kernels.sampled_nzk(X, pair, draws, generator=g)


def step_by_P(P: int) -> Callable:
    model, x = models.lenet(seed=0), random(64, 1, 28, 28)
    optimizer = ZOSGD(model.named_parameters(), 1e-5, mu=1e-3, P=P)
    return lambda: optimizer.step(lambda: model(x).square().mean())


def step_by_d(d: int) -> Callable:
    width = round(d**0.5)
    model, x = models.mlp((width, width, 1), seed=0), random(16, width)
    optimizer = ZOSGD(model.named_parameters(), 1e-6, mu=1e-3)
    return lambda: optimizer.step(lambda: model(x).square().mean())


WORK = {  # what: (a function of a size, the size's symbol, sizes, expected exponent)
    "tangents.jacobian": (jacobian, "N", (8, 32, 128, 256, 512), 1),
    "tangents.gram": (gram, "N", (32, 128, 256, 512, 1024), 2),
    "tangents.gram, 10 outputs and more": (gram_by_outputs, "V", (10, 40, 80, 160, 320), 2),
    "kernels.project, P = 128": (project_by_d, "d", (3_000, 10_000, 30_000, 100_000, 300_000), 1),
    "kernels.project": (project_by_P, "P", (64, 128, 256, 512, 1024), 1),
    "kernels.sampled_nzk": (sampled, "draws", (2_000, 5_000, 10_000, 20_000, 40_000), 1),
    "theory.loss_of_mean": (losses, "N", (50, 100, 400, 800, 1_600), 3),
    "optim.ZOSGD.step": (step_by_P, "P", (1, 8, 32, 64, 128), 1),
    "optim.ZOSGD.step, P = 1": (step_by_d, "d", (10**5, 10**6, 4 * 10**6, 10**7, 3 * 10**7), 1),
}


def slope(sizes: tuple[int, ...], seconds: list[float]) -> float:
    return float(np.polyfit(np.log(sizes[-3:]), np.log(seconds[-3:]), 1)[0])


def draw(measured: dict[str, list[float]]) -> None:
    matplotlib.use("agg")
    plots.style()
    figure, axes = matplotlib.pyplot.subplots(3, 3, figsize=(9.5, 8.5))
    for ax, (name, (_, symbol, sizes, expected)) in zip(axes.flat, WORK.items(), strict=True):
        times = 1e3 * np.array(measured[name])
        ax.loglog(sizes, times, "o-", label="measured")
        line = times[-1] * (np.array(sizes) / sizes[-1]) ** expected
        ax.loglog(sizes, line, "--", color=plots.COLOURS[1], label="expected slope")
        ax.set(xlabel=symbol if symbol == "draws" else f"${symbol}$", ylabel="ms", title=name.replace(", ", ",\n", 1))
        for axis in (ax.xaxis, ax.yaxis):  # decades only: labels in between run into each other
            axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes[0, 0].legend(frameon=False)
    harness.RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(harness.RESULTS / "scaling.svg", metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    measured, rows = {}, []
    for name, (make, symbol, sizes, expected) in WORK.items():
        seconds = harness.alternate({str(size): make(size) for size in sizes}, options.repeats)
        measured[name] = [statistics.median(seconds[str(size)]) for size in sizes]
        rows.append(
            {
                "work": f"`{name}`" if "," not in name else f"`{name.split(',')[0]}`,{name.split(',')[1]}",
                "in": symbol if symbol == "draws" else f"${symbol}$",
                "sizes": f"{sizes[0]:,} to {sizes[-1]:,}",
                "exponent": f"{slope(sizes, measured[name]):.2f}",
                "expected": str(expected),
                "time of the largest": harness.spread(seconds[str(sizes[-1])]),
            }
        )
    draw(measured)
    notes = ["Exponents are fitted to the three largest sizes; below them fixed costs show."]
    figure = {
        "caption": "Measured times, and lines of the expected slope through the largest size.",
        "alt": "Nine log-log panels of time against size, one for each row of the table. In each the measured points "
        "bend towards the dashed line of the expected slope as the size grows.",
    }
    harness.publish("scaling", "Time against size", rows, notes, figure=figure)


if __name__ == "__main__":
    main()
