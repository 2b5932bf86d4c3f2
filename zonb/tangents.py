r"""Tangents of a network: Jacobians, directional derivatives and their finite differences.

Everywhere :math:`\theta \in R^d` is the vector of all parameters in the order of ``model.parameters()``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

Function = Callable[[torch.Tensor], torch.Tensor]
Difference = Callable[[Function, torch.Tensor, torch.Tensor, float], torch.Tensor]


def parameter_vector(model: nn.Module) -> torch.Tensor:
    """All parameters as one detached vector, shape (d,).

    >>> parameter_vector(nn.Linear(3, 2)).shape
    torch.Size([8])
    """
    return parameters_to_vector(model.parameters()).detach().clone()


def as_function(model: nn.Module, x: torch.Tensor) -> Function:
    r"""The map :math:`\theta \mapsto z_\theta(x)` as a plain function of a vector; the model is not changed.

    Args:
        model: any module whose forward pass is deterministic.
        x: a batch of inputs, (N, ...).

    Returns:
        A function from (d,) to the model's output for ``x``, (N, V) for a classifier.

    >>> layer = nn.Linear(2, 1)
    >>> f = as_function(layer, torch.ones(1, 2))
    >>> f(torch.tensor([1.0, 2.0, 3.0])).item()
    6.0
    """
    named = list(model.named_parameters())
    sizes = [parameter.numel() for _, parameter in named]

    def f(theta: torch.Tensor) -> torch.Tensor:
        if theta.shape != (sum(sizes),):
            raise ValueError(f"theta has shape {tuple(theta.shape)}, the model's parameters make ({sum(sizes)},)")
        pieces = theta.split(sizes)
        state = {name: piece.view_as(parameter) for (name, parameter), piece in zip(named, pieces, strict=True)}
        return functional_call(model, state, (x,))

    return f


def jacobian(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    r"""The Jacobian :math:`J(x) = \partial z(x)/\partial\theta`, by one backward pass an output.

    Args:
        model: a module whose outputs for different inputs of a batch do not influence each other
            (no batch normalisation in training mode).
        x: a batch of inputs, (N, ...).

    Returns:
        (N, V, d) for a model with outputs (N, V); in general the output's shape with d appended.
        No more than one input's graph is alive at a time.

    Raises:
        ValueError: an empty batch.

    Paper A writes :math:`\nabla_\theta z` for the transpose, d x V.

    >>> jacobian(nn.Linear(2, 1), torch.tensor([[3.0, 4.0]]))
    tensor([[[3., 4., 1.]]])
    """
    if len(x) == 0:
        raise ValueError("x holds no input; give at least one, shape (N, ...)")
    parameters = list(model.parameters())
    blocks = []
    for n in range(len(x)):
        output = model(x[n : n + 1])[0]
        rows = [
            parameters_to_vector(
                torch.autograd.grad(z, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            )
            for z in output.flatten()
        ]
        blocks.append(torch.stack(rows).view(*output.shape, -1))
    return torch.stack(blocks)


def in_span(J: torch.Tensor) -> torch.Tensor:
    r"""Tangents with the same Gram matrix in as many dimensions as there are tangents.

    The rows of :math:`R^T` where :math:`J^T = QR`. Gaussian directions know tangents by their Gram matrix alone, so
    that projections of these have the same law as those of ``J``, at a cost without d. That holds for no other law.

    Args:
        J: n tangents in all, (..., d).

    Returns:
        (..., min(n, d)).

    Source: chapter 03 of the book, "Gaussian directions see the Gram matrix only".

    >>> J = torch.arange(10.0).view(2, 5)
    >>> small = in_span(J)
    >>> tuple(small.shape), torch.allclose(small @ small.T, J @ J.T)
    ((2, 2), True)
    """
    return torch.linalg.qr(J.reshape(-1, J.shape[-1]).T).R.T.reshape(*J.shape[:-1], -1)


def jvp(model: nn.Module, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    r"""The directional derivative :math:`J(x)u` by forward-mode differentiation, without forming :math:`J`.

    Args:
        model: as in `jacobian`.
        x: a batch of inputs, (N, ...).
        u: a direction in parameter space, (d,).

    Returns:
        The output's shape, (N, V).

    Raises:
        ValueError: ``u`` is not of shape (d,).

    >>> jvp(nn.Linear(2, 1), torch.tensor([[3.0, 4.0]]), torch.tensor([1.0, 0.0, 2.0]))
    tensor([[5.]])
    """
    theta = parameter_vector(model)
    _check_direction(theta, u)
    with warnings.catch_warnings():
        # torch's own first use of forward mode warns about torch.jit.script.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.script")
        return torch.func.jvp(as_function(model, x), (theta,), (u,))[1].detach()


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
    _check_direction(theta, u)
    _check_mu(mu)
    return (f(theta + mu * u) - f(theta - mu * u)) / (2 * mu)


def forward_difference(f: Function, theta: torch.Tensor, u: torch.Tensor, mu: float) -> torch.Tensor:
    r""":math:`(f(\theta+\mu u) - f(\theta))/\mu`: truncation :math:`O(\mu)`, rounding :math:`O(\epsilon/\mu)`.

    Arguments as in `central_difference`.

    >>> forward_difference(lambda t: t @ t, torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0]), 0.5).item()
    2.5
    """
    _check_direction(theta, u)
    _check_mu(mu)
    return (f(theta + mu * u) - f(theta)) / mu


def default_mu(theta: torch.Tensor | Sequence[torch.Tensor], *, difference: Difference = central_difference) -> float:
    r"""A smoothing radius that balances truncation against rounding, for directions of covariance :math:`I_d`.

    :math:`\mu = \epsilon^{1/3}\,\|\theta\|/\sqrt d` for the central and :math:`\epsilon^{1/2}\,\|\theta\|/\sqrt d` for
    the forward difference, :math:`\epsilon` the machine epsilon of the coarsest parameter: the parameters move by that
    fraction of their own length. A rule of thumb for functions that round to about :math:`\epsilon`.

    Args:
        theta: the parameters, not all zero: (d,), or tensors of any shapes and types.
        difference: `central_difference` or `forward_difference`.

    Raises:
        ValueError: ``theta`` is zero, or ``difference`` is neither of the two.

    >>> f"{default_mu(torch.ones(10_000, dtype=torch.float64)):.1e}"
    '6.1e-06'
    """
    powers = {central_difference: 1 / 3, forward_difference: 1 / 2}
    if difference not in powers:
        raise ValueError(f"no rule for {difference!r}; choose central_difference or forward_difference")
    parts = [theta] if isinstance(theta, torch.Tensor) else theta
    types = [torch.promote_types(part.dtype, torch.float32) for part in parts]
    norms = [torch.linalg.vector_norm(part.detach(), dtype=t).item() for part, t in zip(parts, types, strict=True)]
    size = math.hypot(*norms) / math.sqrt(sum(part.numel() for part in parts))
    if size == 0:
        raise ValueError("all parameters are zero, so their length sets no scale; give mu")
    return max(torch.finfo(part.dtype).eps for part in parts) ** powers[difference] * size


def spsa_gradient(
    f: Function,
    theta: torch.Tensor,
    directions: torch.Tensor,
    mu: float,
    *,
    difference: Difference = central_difference,
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


def _check_direction(theta: torch.Tensor, u: torch.Tensor) -> None:
    # Broadcasting (1, d) against (d, 1) runs silently and moves along the all-ones vector.
    if u.shape != theta.shape:
        raise ValueError(
            f"the direction has shape {tuple(u.shape)}, the parameters {tuple(theta.shape)}; give one entry a parameter"
        )


def _check_mu(mu: float) -> None:
    if not mu > 0:
        raise ValueError(f"mu={mu} must be above 0; default_mu gives a good value")
