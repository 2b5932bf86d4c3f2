r"""Finite differences of a function along a direction, their smoothing radius, and the gradient estimate of them.

A function is only evaluated here, never differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from zonb.directions import check_direction
from zonb.tangents import Function

__all__ = ["central_difference", "default_mu", "forward_difference", "spsa_gradient"]

_Difference = Callable[[Function, torch.Tensor, torch.Tensor, float], torch.Tensor]


def central_difference(f: Function, theta: torch.Tensor, u: torch.Tensor, mu: float) -> torch.Tensor:
    r""":math:`(f(\theta+\mu u) - f(\theta-\mu u))/2\mu`: truncation :math:`O(\mu^2)`, rounding :math:`O(\epsilon/\mu)`.

    Source: paper A, Eq. 1. ``f`` is only evaluated, never differentiated.

    Args:
        f: a function of a vector (d,).
        theta: where, (d,).
        u: the direction, (d,).
        mu: the smoothing radius, above 0, in units of ``u``.

    >>> central_difference(lambda t: t @ t, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0]), 0.5).item()
    2.0
    """
    _check(theta, u, mu)
    return (f(theta + mu * u) - f(theta - mu * u)) / (2 * mu)


def forward_difference(f: Function, theta: torch.Tensor, u: torch.Tensor, mu: float) -> torch.Tensor:
    r""":math:`(f(\theta+\mu u) - f(\theta))/\mu`: truncation :math:`O(\mu)`, rounding :math:`O(\epsilon/\mu)`.

    Arguments as in `central_difference`.

    >>> forward_difference(lambda t: t @ t, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0]), 0.5).item()
    2.5
    """
    _check(theta, u, mu)
    return (f(theta + mu * u) - f(theta)) / mu


def default_mu(theta: torch.Tensor | Sequence[torch.Tensor], *, two_sided: bool = True) -> float:
    r"""A smoothing radius that balances truncation against rounding, for directions of covariance :math:`I_d`.

    :math:`\mu = \epsilon^{1/3}\,\|\theta\|/\sqrt d` for the central and :math:`\epsilon^{1/2}\,\|\theta\|/\sqrt d` for
    the forward difference, :math:`\epsilon` the machine epsilon of the coarsest parameter: the parameters move by that
    fraction of their own length. A rule of thumb for functions that round to about :math:`\epsilon`.

    Args:
        theta: the parameters, not all zero: (d,), or tensors of any shapes and types.
        two_sided: for `central_difference`; otherwise for `forward_difference`.

    Raises:
        ValueError: ``theta`` is zero.

    >>> f"{default_mu(torch.ones(10_000, dtype=torch.float64)):.1e}"
    '6.1e-06'
    """
    parts = [theta] if isinstance(theta, torch.Tensor) else theta
    types = [torch.promote_types(part.dtype, torch.float32) for part in parts]
    norms = [torch.linalg.vector_norm(part.detach(), dtype=t).item() for part, t in zip(parts, types, strict=True)]
    size = math.hypot(*norms) / math.sqrt(sum(part.numel() for part in parts))
    if size == 0:
        raise ValueError("all parameters are zero, so their length sets no scale; give mu")
    return max(torch.finfo(part.dtype).eps for part in parts) ** (1 / 3 if two_sided else 1 / 2) * size


def spsa_gradient(
    f: Function,
    theta: torch.Tensor,
    directions: torch.Tensor,
    mu: float,
    *,
    difference: _Difference = central_difference,
) -> torch.Tensor:
    r"""The zeroth-order gradient estimate :math:`\frac1P\sum_p \frac{f(\theta+\mu u_p)-f(\theta-\mu u_p)}{2\mu}\,u_p`.

    Unbiased up to :math:`O(\mu^2)` for directions with identity covariance.

    Args:
        f: a scalar function of a vector (d,); only evaluated.
        theta: where, (d,).
        directions: one a row, (P, d).
        mu: the smoothing radius.
        difference: `central_difference` (the paper's) or `forward_difference`.

    Returns:
        (d,).

    Raises:
        ValueError: ``directions`` is not of shape (P, d) with P at least 1.

    Source: paper A, Eq. 1 and the multi-perturbation rule before Eq. 4.

    >>> theta, u = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, -1.0]])
    >>> spsa_gradient(lambda t: t @ t, theta, u, 0.5)
    tensor([-2.,  2.])
    """
    if directions.ndim != 2 or len(directions) == 0:
        raise ValueError(f"directions have shape {tuple(directions.shape)}; expected (P, {theta.numel()}) with P >= 1")
    estimate = torch.zeros_like(theta)
    for u in directions:
        estimate += difference(f, theta, u, mu) * u
    return estimate / len(directions)


def _check(theta: torch.Tensor, u: torch.Tensor, mu: float) -> None:
    check_direction(theta, u)
    if not mu > 0:
        raise ValueError(f"mu={mu} must be above 0; default_mu gives a good value")
