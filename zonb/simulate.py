r"""Many runs of zeroth-order SGD on a linear(ised) model, side by side.

For the squared loss of a model that is linear in its parameters a central difference is the derivative along its
direction, whatever the smoothing radius is. So a step needs no difference: these runs are zeroth-order SGD itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from zonb.directions import Law, Pair, gaussian

__all__ = ["losses", "zo_sgd"]

_NUMBERS = 1 << 22  # that the directions of a step hold at a time


def zo_sgd(
    X: torch.Tensor,
    y: torch.Tensor,
    theta: torch.Tensor,
    eta: float,
    *,
    steps: int,
    runs: int,
    generator: torch.Generator,
    law: Law | Pair = gaussian,
    P: int = 1,
    batch: int | None = None,
) -> Iterator[torch.Tensor]:
    r"""The parameters of independent runs at the start and after each step, in float64.

    .. math:: \theta \leftarrow \theta - \frac\eta P\sum_{p=1}^P u_p\,u_p^Tg, \qquad
        g = \frac1{|B|}\sum_{i\in B}(x_i^T\theta-y_i)\,x_i

    with fresh directions for every step of every run, and with B all inputs or a fresh subset. For a `Pair` the step is
    that of paper B's kernel, :math:`\frac\eta P\sum_p\zeta_p\,(\zeta_p^Tz_p)\,z_p^Tg` in the place of the sum.

    A network linearised at :math:`\theta_0` is the model with the tangents as ``X``, the targets :math:`y-f_0` and the
    start 0; for Gaussian directions `zonb.tangents.in_span` of them will do. A generator: to keep the last step alone,
    write ``*_, last = zo_sgd(...)``. Memory is that of three sets of parameters, of their outputs, and of the
    directions and subsets of as many runs as stay below four million numbers (at least of one run).

    Args:
        X: inputs or tangents, (N, d).
        y: targets, (N,).
        theta: where all runs start, (d,), or each, (runs, d).
        eta: step size :math:`\eta` for the loss :math:`\frac1{2N}|X\theta-y|^2`.
        steps: how many, at least 0.
        runs: how many, at least 1.
        generator: the source of randomness.
        law: the law of the directions, or a pair of them.
        P: directions a step.
        batch: size of the subset B, drawn without replacement; all inputs if not given.

    Yields:
        (runs, d), ``steps + 1`` times.

    Raises:
        ValueError: ``steps``, ``runs``, ``P`` or ``batch`` out of range, or shapes that do not fit.

    Source: paper A, Eq. 1; paper B, Eq. 1, and Eq. 14 and 20 for a pair.

    >>> from zonb import directions
    >>> X, y = torch.eye(2), torch.tensor([1.0, 2.0])
    >>> *_, last = zo_sgd(X, y, torch.zeros(2), 0.5, steps=200, runs=3, generator=directions.generator(0))
    >>> bool(((last - y).abs() < 1e-3).all())
    True
    """
    N, d = X.shape
    if min(runs, P, steps + 1) < 1 or not (batch is None or 1 <= batch <= N):
        raise ValueError(f"steps={steps} must be at least 0, runs={runs} and P={P} at least 1, and batch in 1..{N}")
    if y.shape != (N,) or theta.shape not in ((d,), (runs, d)):
        raise ValueError(f"y has shape {tuple(y.shape)}, not ({N},), or theta {tuple(theta.shape)}, not (..., {d})")
    X, y, theta = X.double(), y.double(), theta.double().expand(runs, d)
    how: dict[str, Any] = {"generator": generator, "dtype": torch.float64}

    def gradient(theta: torch.Tensor) -> torch.Tensor:
        if batch is None:
            return (theta @ X.T - y) @ X / N
        rows = torch.rand(len(theta), N, generator=generator).topk(batch).indices
        residuals = (X[rows] @ theta.unsqueeze(2)).squeeze(2) - y[rows]
        return (residuals.unsqueeze(1) @ X[rows]).squeeze(1) / batch

    def step(theta: torch.Tensor) -> torch.Tensor:
        n = len(theta)
        if isinstance(law, Pair):
            zeta, z = law.sample(n * P, d, **how)
            zeta = (zeta * z).sum(1, keepdim=True) * zeta
        elif law.independent:
            zeta = z = law.sample(n * P, d, **how)
        else:
            zeta = z = torch.cat([law.sample(P, d, **how) for _ in range(n)])
        slopes = z.view(n, P, d) @ gradient(theta).unsqueeze(2)
        return theta - eta / P * (slopes.mT @ zeta.view(n, P, d)).squeeze(1)

    def path(theta: torch.Tensor) -> Iterator[torch.Tensor]:
        together = max(1, _NUMBERS // (2 * P * d + (0 if batch is None else batch * d + N)))
        yield theta
        for _ in range(steps):
            theta = torch.cat([step(part) for part in theta.split(together)])
            yield theta

    return path(theta)


def losses(X: torch.Tensor, y: torch.Tensor, path: Iterable[torch.Tensor]) -> torch.Tensor:
    r"""The losses :math:`\frac1{2N}|X\theta-y|^2` along runs.

    Args:
        X: inputs or tangents, (N, d).
        y: targets, (N,).
        path: parameters of n runs, (n, d) each, such as `zo_sgd` yields.

    Returns:
        (T, n) for T sets of parameters.

    >>> losses(torch.eye(2), torch.zeros(2), [torch.ones(1, 2, dtype=torch.float64)])
    tensor([[0.5000]], dtype=torch.float64)
    """
    X, y = X.double(), y.double()
    return torch.stack([(theta @ X.T - y).square().mean(1) / 2 for theta in path])
