r"""Closed forms that the experiments are held against."""

from __future__ import annotations

import math
from numbers import Integral

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
    * orthonormal directions: that of the sphere times :math:`\frac{d-P}{d-1}`, which is zero at P = d.

    Args:
        J_o, J_u: Jacobians, (V, d).
        P: number of directions; at most d if they are orthonormal.
        law: their law.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: ``P`` out of range, or a law without a formula.

    Source: new; neither paper states it.

    >>> from zonb import directions
    >>> J = torch.ones(1, 1)  # one tangent, one dimension: E(u^2 - 1)^2 = kappa - 1
    >>> error_law(J, J, 1, directions.gaussian).item(), error_law(J, J, 1, directions.rademacher).item()
    (2.0, 0.0)
    """
    _check_count("P", P, 1)
    if J_o.ndim != 2 or J_u.ndim != 2:
        raise ValueError(f"Jacobians have shapes {tuple(J_o.shape)} and {tuple(J_u.shape)}; expected (V, d), one pair")
    d = J_o.shape[-1]
    S = J_o.square().sum() * J_u.square().sum()
    K2 = entk(J_o, J_u).square().sum()
    # Where the error is zero, rounding may leave it below.
    if law.kappa is not None:
        return (S + K2 + (law.kappa - 3) * (J_o.square().sum(0) @ J_u.square().sum(0))).clamp_min(0) / P
    if law is sphere or law is orthonormal:
        if law is orthonormal:
            _check_room(P, d)
        without_replacement = (d - P) / max(d - 1, 1) if law is orthonormal else 1
        return without_replacement * (d / (d + 2) * (S + 2 * K2) - K2).clamp_min(0) / P
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


def perturbations_needed(rho: float, tol: float) -> int:
    r"""Gaussian directions for a relative root-mean-square error ``tol``, :math:`P^* = (1 + 1/\rho^2)/tol^2`.

    Args:
        rho: alignment, in [1e-9, 1]; `kernels.alignment`, or `kernels.estimate_alignment` from forward passes alone.
        tol: relative error wanted, in [1e-9, 1e9].

    Returns:
        The least integer P whose `relative_rms_error` is at most ``tol``.

    Raises:
        ValueError: an argument out of range.

    Source: new; paper A leaves the number of perturbations open. Deviation from its Eq. 15: neither V nor d.

    >>> perturbations_needed(rho=0.5, tol=0.1)
    500
    """
    _check_range("rho", rho, 1e-9, 1)
    _check_range("tol", tol, 1e-9, 1e9)
    return _ceil((1 + 1 / rho**2) / tol**2)


def jl_exponent(eps: float) -> float:
    r"""The exponent of the Johnson-Lindenstrauss lemma, :math:`\epsilon^2/4 - \epsilon^3/6`.

    For fixed w and P directions with independent, strictly sub-Gaussian entries of variance 1 (Gaussian, Rademacher,
    uniform), each of :math:`\|U^Tw\|^2 \ge (1+\epsilon)\|w\|^2` and :math:`\|U^Tw\|^2 \le (1-\epsilon)\|w\|^2` has
    probability at most :math:`\exp(-P(\epsilon^2/4 - \epsilon^3/6))`.

    Args:
        eps: relative error of a squared length, in [1e-9, 1).

    Raises:
        ValueError: ``eps`` out of range.

    Source: Dasgupta and Gupta (2003), Achlioptas (2003). Deviation: paper A's conference version has
    :math:`\epsilon^2/4`, the leading order, which is too large an exponent for the upper tail.

    >>> jl_exponent(0.5)
    0.0416...
    """
    if not 1e-9 <= eps < 1:
        raise ValueError(f"eps={eps} must be in [1e-9, 1)")
    return eps**2 / 4 - eps**3 / 6


def jl_dimension(n: int, eps: float, delta: float) -> int:
    r"""Directions that suffice, by the union bound, to preserve the inner products between two halves of n points.

    With :math:`P \ge (2\ln n + \ln(1/\delta))/(\epsilon^2/4-\epsilon^3/6)` and probability at least :math:`1-\delta`,
    :math:`|\langle U^Tg, U^Th\rangle - \langle g,h\rangle| \le \frac\epsilon2(\|g\|^2+\|h\|^2)` for every g among
    one half of the points and h among the other: the V tangents at :math:`x_o` and the V at :math:`x_u`, n = 2V.
    Each of the :math:`(n/2)^2` pairs can fail in four ways, two tails for :math:`g+h` and two for :math:`g-h`.

    Args:
        n: number of points, at least 2.
        eps: the lemma's error, in [1e-9, 1).
        delta: probability of failure, in [1e-300, 1].

    Raises:
        ValueError: an argument out of range.

    Source: paper A, Lemma 1, made distributional. scikit-learn's ``johnson_lindenstrauss_min_dim`` is this with
    ``delta=1``, up to rounding.

    >>> jl_dimension(20, 0.5, 0.1)
    200
    """
    _check_count("n", n, 2)
    _check_range("delta", delta, 1e-300, 1)
    return _ceil((2 * math.log(n) + math.log(1 / delta)) / jl_exponent(eps))


def jl_epsilon(P: int, n: int, delta: float) -> float:
    r"""The smallest error that `jl_dimension` grants to P directions; infinite where it grants none below 1.

    Args:
        P: number of directions.
        n, delta: as in `jl_dimension`.

    Raises:
        ValueError: an argument out of range.

    >>> jl_dimension(20, jl_epsilon(200, 20, 0.1), 0.1), jl_epsilon(50, 20, 0.1)
    (200, inf)
    """
    _check_count("P", P, 1)
    _check_count("n", n, 2)
    _check_range("delta", delta, 1e-300, 1)
    target = (2 * math.log(n) + math.log(1 / delta)) / P
    if target >= 1 / 12:  # the exponent at eps = 1
        return math.inf
    # eps = 1/2 + sin(phi) turns eps^2/4 - eps^3/6 into (1 + sin 3 phi)/24; the product below is that sum, without
    # its cancellation where eps is small.
    a = math.asin(math.sqrt(12 * target)) / 3
    return 2 * math.sin(a) * math.cos(math.pi / 6 - a)


def eq15_perturbations(V: int, rho: float, tol: float) -> int:
    r"""What paper A's Eq. 15, corrected, asks for a relative error ``tol`` of the kernel: :math:`V\ln V/(\rho\,tol)^2`.

    Eq. 15 bounds :math:`\|\Delta K\|_F` by about :math:`\sqrt{V\ln V/P}\;\Xi^2` with
    :math:`\Xi = \max(\|J_o\|_F,\|J_u\|_F)`; divided by :math:`\|K\|_F = \rho\|J_o\|_F\|J_u\|_F`, and with
    :math:`\|J_o\|_F=\|J_u\|_F`, its best case, that is :math:`\sqrt{V\ln V/P}/\rho`.

    Args:
        V: number of outputs, at least 2.
        rho: alignment, in [1e-9, 1].
        tol: relative error wanted, in [1e-9, 1e9].

    Raises:
        ValueError: an argument out of range.

    Source: paper A, Eq. 15. Deviation: the paper prints :math:`\Xi`; :math:`\Xi^2` is right.

    >>> eq15_perturbations(V=10, rho=0.5, tol=0.1)
    9211
    """
    _check_count("V", V, 2)
    _check_range("rho", rho, 1e-9, 1)
    _check_range("tol", tol, 1e-9, 1e9)
    return _ceil(V * math.log(V) / (rho * tol) ** 2)


def gradient_second_moment(d: int, P: int, law: Law) -> float:
    r"""Squared length of the zeroth-order gradient :math:`\hat g = UU^Tg` over g's, :math:`E\|\hat g\|^2/\|g\|^2`.

    * independent entries with fourth moment :math:`\kappa`: :math:`1 + (d - 2 + \kappa)/P`, whatever g is;
    * sphere of radius :math:`\sqrt d`: :math:`1 + (d-1)/P`;
    * orthonormal directions: :math:`d/P`.

    Args:
        d: number of parameters.
        P: number of directions.
        law: their law.

    Raises:
        ValueError: ``d`` or ``P`` is no positive integer, more orthonormal directions than dimensions, or a law without
            a formula.

    Source: paper A takes :math:`d/P` in the bound before Eq. 12. Deviation: the terms it drops.

    >>> from zonb import directions
    >>> gradient_second_moment(100, 10, directions.gaussian)  # (P + d + 1) / P
    11.1
    """
    _check_count("d", d, 1)
    _check_count("P", P, 1)
    if law.kappa is not None:
        return 1 + (d - 2 + law.kappa) / P
    if law is sphere:
        return 1 + (d - 1) / P
    if law is orthonormal:
        _check_room(P, d)
        return d / P
    raise ValueError(f"no second moment is known for {law.name}")


def _check_count(name: str, value: int, least: int) -> None:
    if not (isinstance(value, Integral) and value >= least):
        raise ValueError(f"{name}={value} must be an integer of at least {least}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}={value} must be in [{low:g}, {high:g}]")


def _check_room(P: int, d: int) -> None:
    if P > d:
        raise ValueError(f"P={P} orthonormal directions do not fit into d={d} dimensions; choose P <= {d}")


def _ceil(value: float) -> int:
    # 1/0.1^2 is 99.99...: a value within rounding of an integer is that integer.
    return math.ceil(value * (1 - 1e-12))
