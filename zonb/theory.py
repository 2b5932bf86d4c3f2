r"""Closed forms that the experiments are held against."""

from __future__ import annotations

import torch

from zonb.directions import Law, orthonormal, sphere
from zonb.kernels import entk


def log_softmax_jacobian(logits: torch.Tensor) -> torch.Tensor:
    r""":math:`A = \partial\log\pi/\partial z = I - \mathbf 1\pi^T`, with :math:`\pi = \mathrm{softmax}(z)`.

    An oblique projection (:math:`A^2 = A`), of norm :math:`\|A\|_2 = \sqrt V\,\|\pi\|_2 \in [1, \sqrt V)`.

    Args:
        logits: z, (..., V) with V at least 2.

    Returns:
        (..., V, V).

    Source: paper A, Eq. 3. Deviation: the paper takes :math:`\|A\|_2 \le 1`, which holds for uniform :math:`\pi` only.

    >>> log_softmax_jacobian(torch.zeros(2))
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]])
    """
    V = logits.shape[-1]
    return torch.eye(V, dtype=logits.dtype) - torch.softmax(logits, -1).unsqueeze(-2)


def cross_entropy_gradient(logits: torch.Tensor, label: int) -> torch.Tensor:
    r""":math:`G = \partial L/\partial z = \pi - e_y` for the cross-entropy :math:`L = -\log\pi_y`.

    Args:
        logits: z at the update's input, (V,).
        label: y, in ``range(V)``.

    Returns:
        (V,).

    Raises:
        ValueError: ``label`` is out of range.

    Source: paper A, Eq. 3. Deviation: Eq. 13 writes :math:`G(x_o, y_u)`; the gradient is taken at :math:`x_u`.

    >>> cross_entropy_gradient(torch.zeros(2), 0)
    tensor([-0.5000,  0.5000])
    """
    if not 0 <= label < len(logits):
        raise ValueError(f"label={label} must be in 0..{len(logits) - 1}, one of the {len(logits)} classes")
    gradient = torch.softmax(logits, -1)
    gradient[label] -= 1
    return gradient


def error_law(J_o: torch.Tensor, J_u: torch.Tensor, P: int, law: Law) -> torch.Tensor:
    r"""The expected squared error :math:`E\|K(o,u;U) - K(o,u)\|_F^2` of the projected eNTK, exactly.

    With :math:`S = \|J_o\|_F^2\|J_u\|_F^2` and :math:`s(k) = \sum_i J_{ik}^2`:

    * independent entries with fourth moment :math:`\kappa`:
      :math:`\frac1P\left(S + \|K\|_F^2 + (\kappa-3)\sum_k s_o(k)s_u(k)\right)`;
    * sphere of radius :math:`\sqrt d`: :math:`\frac1P\left(\frac{d}{d+2}(S + 2\|K\|_F^2) - \|K\|_F^2\right)`;
    * orthonormal directions: :math:`\frac{d^2}{P^2}\left(a\|K\|_F^2 + b(S+\|K\|_F^2)\right) - \|K\|_F^2` with
      :math:`a = \frac{P((d+1)P-2)}{d(d-1)(d+2)}`, :math:`b = \frac{P(d-P)}{d(d-1)(d+2)}`, which is zero at P = d.

    Args:
        J_o, J_u: Jacobians, (V, d).
        P: number of directions.
        law: their law.

    Returns:
        A scalar tensor.

    Source: new; neither paper states it.

    >>> from zonb import directions
    >>> J = torch.ones(1, 1)  # one tangent, one dimension: E(u^2 - 1)^2 = kappa - 1
    >>> error_law(J, J, 1, directions.gaussian).item(), error_law(J, J, 1, directions.rademacher).item()
    (2.0, 0.0)
    """
    if P < 1:
        raise ValueError(f"P={P} must be at least 1")
    d = J_o.shape[-1]
    S = (J_o.square().sum() * J_u.square().sum()).clone()
    K2 = entk(J_o, J_u).square().sum()
    if law.kappa is not None:
        return (S + K2 + (law.kappa - 3) * (J_o.square().sum(0) @ J_u.square().sum(0))) / P
    if law is sphere:
        return (d / (d + 2) * (S + 2 * K2) - K2) / P
    if law is orthonormal:
        scale = d**2 / P**2 * P / (d * (d - 1) * (d + 2))
        return scale * (((d + 1) * P - 2) * K2 + (d - P) * (S + K2)) - K2
    raise ValueError(f"no error law is known for {law.name}")


def relative_rms_error(rho: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
    r"""Root-mean-square relative error of the projected eNTK for Gaussian directions, :math:`\sqrt{(1 + 1/\rho^2)/P}`.

    It knows neither the number of outputs V nor the dimension d, only P and the alignment (`kernels.alignment`).

    Args:
        rho: alignment, in (0, 1].
        P: number of directions; broadcasts against ``rho``.

    Source: new; `error_law` with :math:`\kappa = 3`, divided by :math:`\|K\|_F^2 = \rho^2 S`.

    >>> relative_rms_error(torch.tensor(1.0), torch.tensor(8)).item()
    0.5
    """
    return torch.sqrt((1 + 1 / rho**2) / P)
