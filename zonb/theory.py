r"""Closed forms that the experiments are held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch
from scipy.optimize import brentq

from zonb.directions import Law, Pair, orthonormal, sphere
from zonb.kernels import entk

__all__ = ["cross_entropy_gradient", "effective_rank", "eq15_perturbations", "error_law", "evolve", "expected_nzk"]
__all__ += ["gradient_second_moment", "jl_dimension", "jl_epsilon", "jl_exponent", "log_softmax_jacobian"]
__all__ += ["loss_of_mean", "mean_loss", "perturbations_needed", "relative_rms_error", "second_moment_step"]
__all__ += ["secular_step", "stable_step"]


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

    Source: Li, Hastie and Church (2006), Lemma 3, summed over the entries; neither paper states it.

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
    if law in (sphere, orthonormal):
        if law == orthonormal:
            _check_room(P, d)
        without_replacement = (d - P) / max(d - 1, 1) if law == orthonormal else 1
        return without_replacement * (d / (d + 2) * (S + 2 * K2) - K2).clamp_min(0) / P
    raise ValueError(f"no error law is known for {law.name}")


def relative_rms_error(rho: torch.Tensor, P: torch.Tensor) -> torch.Tensor:
    r"""Root-mean-square relative error of the projected eNTK for Gaussian directions, :math:`\sqrt{(1 + 1/\rho^2)/P}`.

    It depends on P and on the alignment (`kernels.alignment`) alone, neither on the number of outputs V nor on d.

    Args:
        rho: alignment, in (0, 1].
        P: number of directions; broadcasts against ``rho``.

    Source: `error_law` with :math:`\kappa = 3`, divided by :math:`\|K\|_F^2 = \rho^2 S`.

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
    if law == sphere:
        return 1 + (d - 1) / P
    if law == orthonormal:
        _check_room(P, d)
        return d / P
    raise ValueError(f"no second moment is known for {law.name}")


def expected_nzk(X: torch.Tensor, pair: Pair) -> torch.Tensor:
    r"""The expectation of `zonb.kernels.nzk`, for every pair of directions that `Pair` describes.

    With :math:`K = XX^T`, :math:`s = X\mathbf 1`, :math:`\alpha = r\sigma_\zeta`, :math:`\beta = \sigma_z` and
    :math:`c = E[|u|^2u_k^2]`, which is :math:`d - 1 + \kappa` for independent entries:

    .. math:: E\,NZK = a\,K + b\,ss^T, \qquad
        a = c\,\alpha^2\beta^2 + (1-r^2)\sigma_\zeta^2\sigma_z^2 + d\,m_\zeta m_z\alpha\beta,

    .. math:: b = d\,m_\zeta m_z(m_\zeta m_z + \alpha\beta) + (\beta m_\zeta + \alpha m_z)^2
        + (1-r^2)\sigma_\zeta^2m_z^2.

    Theorem 1 is r = 0; with means 0 and equal deviations, r = 1 is Corollary 2, :math:`(d - 1 + \kappa)\sigma^4K`.
    Assumes that odd moments up to the third vanish, as they do for every law of `zonb.directions`.

    Args:
        X: tangents, (N, d).
        pair: the law of the two directions.

    Returns:
        (N, N), symmetric and positive semidefinite for means 0; singular whenever N exceeds d.

    Source: paper B, Eq. 6, 8 and 9. Deviation: r between 0 and 1, and identical directions with a mean, are ours; Eq. 8
    asks for more than independence: that c is the same for all entries, as it is for identically distributed ones.

    >>> from zonb import directions
    >>> expected_nzk(torch.eye(2), directions.Pair(law=directions.gaussian, shared=1.0, sigma_z=2.0, sigma_zeta=2.0))
    tensor([[64.,  0.],
            [ 0., 64.]])
    """
    d = X.shape[-1]
    alpha, beta, own = pair.shared * pair.sigma_zeta, pair.sigma_z, (1 - pair.shared**2) * pair.sigma_zeta**2
    means = pair.mean_zeta * pair.mean_z
    a = gradient_second_moment(d, 1, pair.law) * (alpha * beta) ** 2 + own * beta**2 + d * means * alpha * beta
    b = d * means * (means + alpha * beta) + (beta * pair.mean_zeta + alpha * pair.mean_z) ** 2 + own * pair.mean_z**2
    s = X.sum(-1)
    return a * entk(X, X) + b * torch.outer(s, s)


def evolve(
    K: torch.Tensor, f_0: torch.Tensor, y: torch.Tensor, eta: float, steps: Sequence[int] | torch.Tensor
) -> torch.Tensor:
    r"""Outputs of gradient descent in function space, :math:`f_t = y + (I - \eta K/N)^t(f_0 - y)`, all t at once.

    One eigendecomposition :math:`K/N = V\Lambda V^T`, then powers of numbers: :math:`(1-\eta\lambda_i)^t`. Converges
    iff :math:`0 < \eta\lambda_i < 2` for every positive eigenvalue, to y plus the part of :math:`f_0 - y` that K does
    not reach.

    Args:
        K: a symmetric kernel, (N, N); not yet divided by N.
        f_0: outputs at the start, (N,).
        y: targets, (N,).
        eta: step size.
        steps: the t wanted, (T,), each at least 0.

    Returns:
        (T, N), float64.

    Raises:
        ValueError: K is not symmetric or not of shape (N, N), or a negative step. A mean of NZK draws with independent
            directions is not symmetric, by 3 % for paper B's 10,000 draws with standard deviation 0.5: take its
            expectation, or repeat :math:`f \leftarrow f - \eta K(f-y)/N`. ``(K + K.T)/2`` is another kernel, whose
            loss may differ by more than 10 %.

    Source: paper B, Eq. 7, 12 and 24. Deviation: the paper takes the limit to be y, which needs an invertible K, and
    :math:`1-\eta\lambda<1` for convergence, which is not enough.

    >>> evolve(torch.eye(2), torch.zeros(2), torch.tensor([1.0, 2.0]), 1.0, [0, 1, 2])  # N = 2 halves the step
    tensor([[0.0000, 0.0000],
            [0.5000, 1.0000],
            [0.7500, 1.5000]], dtype=torch.float64)
    """
    values, vectors = _spectrum(K)
    coefficients = vectors.T @ (f_0 - y).double()
    return y.double() + (_powers(1 - eta * values, _checked(steps)) * coefficients) @ vectors.T


def loss_of_mean(
    K: torch.Tensor, f_0: torch.Tensor, y: torch.Tensor, eta: float, steps: Sequence[int] | torch.Tensor
) -> torch.Tensor:
    r"""The loss :math:`\frac1{2N}|f_t - y|^2` along `evolve`, without forming :math:`f_t`.

    For a zeroth-order method whose kernel has the expectation K this is the loss of the mean outputs; the mean of the
    loss is larger (`mean_loss`).

    Args:
        K, f_0, y, eta, steps: as in `evolve`.

    Returns:
        (T,), float64.

    Source: paper B, the curves of Fig. 1, 2, 9, 11 and 15.

    >>> loss_of_mean(torch.eye(2), torch.zeros(2), torch.tensor([1.0, 2.0]), 1.0, [0, 1])
    tensor([1.2500, 0.3125], dtype=torch.float64)
    """
    values, vectors = _spectrum(K)
    coefficients = vectors.T @ (f_0 - y).double()
    return _power_sums((1 - eta * values).square(), coefficients.square(), _checked(steps)) / (2 * len(y))


def second_moment_step(C: torch.Tensor, X: torch.Tensor, eta: float, P: int, law: Law) -> torch.Tensor:
    r"""One step of :math:`C_t = E[(f_t-y)(f_t-y)^T]` for ZO-SGD on a linear(ised) model with squared loss, exactly.

    With fresh directions :math:`f_{t+1} - y = (I - \frac\eta N XUU^TX^T)(f_t - y)`, so that with
    :math:`\bar K = XX^T/N` and :math:`M = X^TCX/N`

    .. math:: C \leftarrow C - \eta(\bar KC + C\bar K) + \frac{\eta^2}N X\left((1-\tfrac1P)M + \tfrac1P F(M)\right)X^T

    where :math:`F(M) = E[uu^TMuu^T]` is :math:`2M + \mathrm{tr}(M)I + (\kappa-3)\mathrm{diag}(M)` for independent
    entries and :math:`\frac d{d+2}(2M + \mathrm{tr}(M)I)` on the sphere. For Gaussian directions the last term is
    :math:`\eta^2((1+\frac1P)\bar KC\bar K + \frac1P\mathrm{tr}(C\bar K)\bar K)`.

    Args:
        C: second moment of the residuals, (N, N), symmetric.
        X: tangents, (N, d).
        eta: step size; the loss is :math:`\frac1{2N}|f-y|^2`, over all N inputs.
        P: directions a step.
        law: their law.

    Returns:
        (N, N).

    Raises:
        ValueError: ``P`` below 1, or a law without a formula.

    Source: for Gaussian directions Horowitz and Senne (1981) and Feuer and Weinstein (1985), on the LMS filter.

    >>> from zonb import directions
    >>> one = torch.ones(1, 1)  # E(1 - eta u^2)^2 = 1 - 2 eta + 3 eta^2
    >>> second_moment_step(one, one, 0.5, 1, directions.gaussian).item()
    0.75
    """
    _check_count("P", P, 1)
    N, d = X.shape
    M = X.T @ C @ X / N
    spread = 2 * M + M.trace() * torch.eye(d, dtype=M.dtype)
    if law.kappa is not None:
        spread = spread + (law.kappa - 3) * torch.diag(M.diagonal())
    elif law == sphere:
        spread = d / (d + 2) * spread
    else:
        raise ValueError(f"no second-moment recursion is known for {law.name}")
    drift = X @ (X.T @ C) / N
    return C - eta * (drift + drift.T) + eta**2 / N * X @ ((1 - 1 / P) * M + spread / P) @ X.T


def mean_loss(
    K: torch.Tensor, f_0: torch.Tensor, y: torch.Tensor, eta: float, P: int, steps: Sequence[int] | torch.Tensor
) -> torch.Tensor:
    r"""The exact mean :math:`\frac1{2N}E|f_t-y|^2` of ZO-SGD with Gaussian directions, for all t at once.

    In the eigenbasis of :math:`K/N` the mean squares :math:`c_i = E(v_i^T(f_t-y))^2` obey :math:`c \leftarrow Bc` with
    the symmetric :math:`B = \mathrm{diag}((1-\eta\lambda_i)^2 + \eta^2\lambda_i^2/P) + \frac{\eta^2}P\lambda\lambda^T`:
    one more eigendecomposition, then powers.

    Args:
        K, f_0, y, eta, steps: as in `evolve`; K is the first-order kernel :math:`XX^T` of a linear(ised) model.
        P: fresh directions a step.

    Returns:
        (T,), float64; infinite where it overflows.

    Source: the trace of `second_moment_step`.

    >>> mean_loss(torch.ones(1, 1), torch.ones(1), torch.zeros(1), 0.5, 1, [0, 1])
    tensor([0.5000, 0.3750], dtype=torch.float64)
    """
    _check_count("P", P, 1)
    values, vectors = _spectrum(K)
    squares = (vectors.T @ (f_0 - y).double()).square()
    B = torch.diag((1 - eta * values) ** 2 + eta**2 * values**2 / P) + eta**2 / P * torch.outer(values, values)
    rates, modes = torch.linalg.eigh(B)
    weights = modes.sum(0) * (modes.T @ squares)
    return _power_sums(rates, weights, _checked(steps)) / (2 * len(y))


def secular_step(values: torch.Tensor, alpha: float, beta: float) -> float:
    r"""The root :math:`a<2/(\alpha\lambda_{max})` of :math:`\beta a\sum_i\frac{\lambda_i}{2-\alpha a\lambda_i} = 1`.

    Below it, mean squares that obey :math:`c_i \leftarrow (1-2a\lambda_i+\alpha a^2\lambda_i^2)c_i +
    \beta a^2\lambda_i\sum_j\lambda_jc_j` tend to zero, and above it they grow without bound.

    Args:
        values: eigenvalues :math:`\lambda_i`, at least one of them positive; only the positive ones matter.
        alpha: at least 1.
        beta: at least 0; for 0 the root is :math:`2/(\alpha\lambda_{max})`.

    Source: chapter 12 of the book, "Mean square and stability".

    >>> secular_step(torch.tensor([1.0, 1.0]), alpha=2.0, beta=1.0)  # equal: 2 / (alpha + 2 beta)
    0.5
    """
    top = values.max().item()
    shares = (values[values > 0].double() / top).numpy()
    below = shares[shares < 1]

    def excess(x: float) -> float:  # the left side less 1 at a = 2x/(alpha top), times 1 - x: without its pole at x = 1
        rest = (below * (1 - x) / (1 - below * x)).sum()
        return beta / alpha * x * (len(shares) - len(below) + rest) - (1 - x)

    return 2 / (alpha * top) * brentq(excess, 0, 1, xtol=1e-300, rtol=4 * np.finfo(float).eps)


def stable_step(K: torch.Tensor, P: float) -> float:
    r"""The step size below which ZO-SGD with P Gaussian directions is stable in mean square on a squared loss.

    The root :math:`\eta` of :math:`\frac\eta P\sum_i\frac{\lambda_i}{2-\eta\lambda_i(1+1/P)} = 1`, with
    :math:`\lambda_i` the positive eigenvalues of :math:`K/N` (`secular_step`); above it :math:`E|f_t-y|^2` grows
    without bound. It is at least :math:`2/(\lambda_{max}(1+1/P) + \mathrm{tr}(K/N)/P)`, with equality if these
    eigenvalues are equal; for :math:`P=\infty` it is first order's :math:`2/\lambda_{max}`.

    Args:
        K: the first-order kernel :math:`XX^T`, (N, N), not divided by N and not zero.
        P: fresh directions a step; ``math.inf`` for the first-order method.

    Raises:
        ValueError: K is zero or not symmetric, or P below 1.

    Source: Feuer and Weinstein (1985) for P = 1, where :math:`\eta` is twice their step.

    >>> stable_step(torch.ones(1, 1), 1), stable_step(torch.ones(1, 1), math.inf)  # E(1 - eta u^2)^2 < 1: eta < 2/3
    (0.6666..., 2.0)
    """
    if not P >= 1:
        raise ValueError(f"P={P} must be at least 1")
    values, _ = _spectrum(K)
    if not values.max() > 0:
        raise ValueError("the kernel has no positive eigenvalue: every step size is stable, and none does anything")
    return secular_step(values, 1 + 1 / P, 1 / P)


def effective_rank(K: torch.Tensor) -> float:
    r"""Effective rank :math:`\mathrm{tr}K/\lambda_{max}`, between 1 and the rank.

    Args:
        K: a symmetric kernel, (N, N), not zero.

    Raises:
        ValueError: K is zero or not symmetric.

    >>> effective_rank(torch.diag(torch.tensor([4.0, 2.0, 2.0])))
    2.0
    """
    values, _ = _spectrum(K)
    if not values.max() > 0:
        raise ValueError("the kernel has no positive eigenvalue; it has no effective rank")
    return (values.sum() / values.max()).item()


def _spectrum(K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and eigenvectors of K/N in float64; eigenvalues within rounding of zero are zero."""
    if K.ndim != 2 or K.shape[0] != K.shape[1]:
        raise ValueError(f"K has shape {tuple(K.shape)}; expected (N, N)")
    off = torch.linalg.matrix_norm(K - K.T).item()
    size = torch.linalg.matrix_norm(K).item()
    if not off <= 1e3 * torch.finfo(K.dtype).eps * size:
        raise ValueError(f"K is not symmetric (by {off:.3g} of {size:.3g}): take its expectation, or iterate")
    K = K.double()
    values, vectors = torch.linalg.eigh((K + K.T) / (2 * len(K)))
    rounding = len(K) * torch.finfo(torch.float64).eps * values.abs().max()
    return torch.where(values.abs() <= rounding, 0.0, values), vectors


def _powers(bases: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    return bases ** steps.unsqueeze(1)


def _power_sums(bases: torch.Tensor, weights: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """The sums of ``weights * bases**t``: with t = 256 q + r one matrix product over the q that occur and all r."""
    bases, weights = bases[weights != 0], weights[weights != 0]  # where infinity times zero is zero
    q, row = torch.unique(steps // 256, return_inverse=True)
    r = torch.arange(256, dtype=torch.float64)
    return ((_powers(bases, 256 * q) * weights) @ _powers(bases, r).T)[row, (steps % 256).long()]


def _checked(steps: Sequence[int] | torch.Tensor) -> torch.Tensor:
    steps = torch.as_tensor(steps).double()
    if steps.ndim != 1 or len(steps) == 0 or not ((steps >= 0) & (steps.frac() == 0)).all():
        raise ValueError("steps must be a list of whole numbers of at least 0, not empty")
    return steps


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
