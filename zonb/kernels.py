r"""The empirical neural tangent kernel (eNTK), its random projections, and the neural zeroth-order kernel (NZK).

For two inputs, :math:`J_o, J_u \in R^{V\times d}` are their Jacobians; an eNTK block is V x V. For N inputs of a model
with one output, :math:`X \in R^{N\times d}` holds their tangents as rows (the inputs themselves if it is linear); an
NZK is N x N.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from zonb.directions import Law, Pair, gaussian
from zonb.streams import gaussian_rows
from zonb.tangents import in_span

__all__ = ["alignment", "cka", "entk", "estimate_alignment", "nzk", "prefix_kernels", "project", "projected_entk"]
__all__ += ["relative_error", "sampled_nzk"]


def entk(J_o: torch.Tensor, J_u: torch.Tensor) -> torch.Tensor:
    r"""The first-order eNTK block :math:`K(o,u) = J_o J_u^T`.

    Args:
        J_o: Jacobian at the observed input, (..., V, d).
        J_u: Jacobian at the update's input, (..., V, d).

    Returns:
        (..., V, V); leading dimensions broadcast.

    Source: paper A, after Eq. 3.

    >>> entk(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """
    _check_tangents(J_o, J_u)
    return J_o @ J_u.mT


def projected_entk(J_o: torch.Tensor, J_u: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    r"""The projected eNTK :math:`K(o,u;U) = J_o U U^T J_u^T = \frac1P\sum_p (J_o u_p)(J_u u_p)^T`.

    Args:
        J_o, J_u: Jacobians, (V, d).
        directions: :math:`u_1,\dots,u_P` as rows, (P, d); the factor :math:`1/\sqrt P` of :math:`U` is applied here.

    Returns:
        (V, V), of rank at most P; unbiased for `entk` when the directions have identity covariance.

    Raises:
        ValueError: ``directions`` is not of shape (P, d).

    Source: paper A, Eq. 4.

    >>> projected_entk(torch.eye(2), torch.eye(2), torch.tensor([[1.0, -1.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    _check_tangents(J_o, J_u)
    if directions.ndim != 2 or directions.shape[1] != J_o.shape[-1] or len(directions) == 0:
        raise ValueError(f"directions have shape {tuple(directions.shape)}; expected (P, {J_o.shape[-1]}) with P >= 1")
    return (J_o @ directions.T) @ (directions @ J_u.mT) / len(directions)


def project(J: torch.Tensor, law: Law, P: int, *, generator: torch.Generator, chunk: int = 64) -> torch.Tensor:
    r"""Projections :math:`J u_p` of tangents on ``P`` fresh directions, without storing the directions.

    Args:
        J: tangents, (..., d); all are projected on the same directions.
        law: the law of the directions.
        P: how many.
        generator: the source of randomness.
        chunk: directions alive at a time; memory is ``chunk * d`` numbers. Directions that depend on each other
            (orthonormal) are drawn at once, P x d numbers.

    Raises:
        ValueError: ``P`` or ``chunk`` below 1.

    Returns:
        (P, ...): the p-th slice is :math:`J u_p`; `prefix_kernels` makes every pair's kernel from them.

    >>> from zonb import directions
    >>> project(torch.ones(3, 2, 5), directions.gaussian, 7, generator=directions.generator(0)).shape
    torch.Size([7, 3, 2])
    """
    if P < 1 or chunk < 1:
        raise ValueError(f"P={P} and chunk={chunk} must both be at least 1")
    d = J.shape[-1]
    tangents = J.reshape(-1, d)
    step = min(chunk, P) if law.independent else P
    # Written in place: small results kept between large chunks would keep the allocator from using their room again.
    Y = tangents.new_empty(P, len(tangents))
    for start in range(0, P, step):
        size = min(step, P - start)
        Y[start : start + size] = law.sample(size, d, generator=generator, dtype=J.dtype) @ tangents.T
    return Y.view(P, *J.shape[:-1])


def prefix_kernels(Y_o: torch.Tensor, Y_u: torch.Tensor, at: Sequence[int]) -> torch.Tensor:
    r"""Projected eNTKs for several numbers of perturbations from one set of projections.

    The kernel at P uses the first P projections: :math:`\frac1P\sum_{p\le P} Y_o[p]\,Y_u[p]^T`.

    Args:
        Y_o, Y_u: projections from `project`, (P_max, ..., V); leading dimensions broadcast.
        at: the numbers of perturbations wanted, increasing, each in 1..P_max.

    Returns:
        (len(at), ..., V, V).

    Raises:
        ValueError: ``at`` is empty, not increasing or out of range.

    >>> Y = torch.tensor([[1.0], [2.0]])
    >>> prefix_kernels(Y, Y, [1, 2]).flatten()
    tensor([1.0000, 2.5000])
    """
    bounds = [0, *at]
    if len(at) == 0 or any(a >= b for a, b in pairwise(bounds)) or at[-1] > len(Y_o):
        raise ValueError(f"at={list(at)} must increase and stay within 1..{len(Y_o)}, the number of projections")
    if len(at) == at[-1]:  # at every number up to the last, a call for each would cost more than what it does
        sums = Y_o[: len(at)].unsqueeze(-1) * Y_u[: len(at)].unsqueeze(-2)
    else:
        parts = pairwise(bounds)
        sums = torch.stack([torch.einsum("p...i,p...j->...ij", Y_o[p:q], Y_u[p:q]) for p, q in parts])
    counts = torch.tensor(at, dtype=Y_o.dtype).view(-1, *[1] * (sums.ndim - 1))
    return sums.cumsum_(0).div_(counts)


def nzk(X: torch.Tensor, zeta: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    r"""The neural zeroth-order kernel of given directions, :math:`\frac1M\sum_m(\zeta_m^Tz_m)\,(X\zeta_m)(Xz_m)^T`.

    Entry (i, j) of one draw is :math:`\langle\langle\zeta,x_i\rangle\zeta,\;\langle z,x_j\rangle z\rangle`: the tangent
    at i estimated along :math:`\zeta`, that at j along z. A single draw has rank at most 1; unless it is zero, it is
    symmetric only if :math:`X\zeta` and :math:`Xz` are parallel. For :math:`\zeta=z` it is :math:`|z|^2` times the
    projected eNTK with P = 1.

    Args:
        X: tangents, (N, d).
        zeta, z: directions as rows, (M, d) each; used pairwise.

    Returns:
        (N, N), the mean over the M draws.

    Raises:
        ValueError: directions of another shape than (M, d).

    Source: paper B, Eq. 5 and 16, for models that are linear in their parameters, where the finite difference is exact.

    >>> nzk(torch.eye(2), torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 2.0]]))
    tensor([[3., 6.],
            [3., 6.]])
    """
    if X.ndim != 2 or zeta.ndim != 2 or zeta.shape != z.shape or zeta.shape[1] != X.shape[1] or len(z) == 0:
        raise ValueError(
            f"directions have shapes {tuple(zeta.shape)} and {tuple(z.shape)}, tangents {tuple(X.shape)}; expected "
            "(M, d) twice and (N, d), with the same d and M at least 1"
        )
    return ((zeta @ X.T) * (zeta * z).sum(1, keepdim=True)).T @ (z @ X.T) / len(z)


def sampled_nzk(
    X: torch.Tensor, pair: Pair, draws: int, *, generator: torch.Generator, chunk: int = 1024
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""The mean of `nzk` over fresh draws of a pair of directions, with its standard error, entry by entry.

    Sums and sums of squares are matrix products over chunks of draws; memory is ``chunk * (2 d + 2 N)`` numbers and
    a few N x N matrices, whatever ``draws`` is. `zonb.theory.expected_nzk` is its expectation, of the same arguments.
    More than N draws of Gaussian directions of mean 0 are made in the span of the tangents where N is below d: N
    numbers each in place of d, from a stream, which is faster. What the rest of the d dimensions adds to
    :math:`\zeta^Tz` is drawn from its own law, so that the law of the kernels is the same. They then take the memory of
    N dimensions and of a copy of ``X``, and the draws of one seed are others for other ``X``.

    Args:
        X: tangents, (N, d).
        pair: the law of the two directions.
        draws: how many, at least 2.
        generator: the source of randomness.
        chunk: draws alive at a time.

    Returns:
        Mean and standard error, (N, N) each.

    Raises:
        ValueError: ``draws`` below 2 or ``chunk`` below 1.

    Source: paper B, Section 4 (10,000 draws). Deviation: the paper draws in all dimensions; for the span see chapter 10
    of the book, "What a Gaussian draw needs to know".

    >>> from zonb import directions
    >>> pair = directions.Pair(law=directions.gaussian, shared=1.0)
    >>> mean, sem = sampled_nzk(torch.eye(2), pair, 20_000, generator=directions.generator(0))
    >>> bool((abs(mean - 4 * torch.eye(2)) < 5 * sem).all())  # d + 2 = 4
    True
    """
    if draws < 2 or chunk < 1:
        raise ValueError(f"draws={draws} must be at least 2, for a standard error, and chunk={chunk} at least 1")
    N, d = X.shape
    isotropic = pair.law == gaussian and pair.mean_z == pair.mean_zeta == 0
    beyond = max(0, d - N) if isotropic and N < draws else 0  # for fewer draws the span does not pay
    if beyond:
        X = in_span(X)
    total, squares = X.new_zeros(N, N), X.new_zeros(N, N)
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        if beyond:
            u = gaussian_rows(size, N, generator, X.dtype)
            zeta, z = pair.mix(u, u if pair.shared == 1 else gaussian_rows(size, N, generator, X.dtype))
            inner = (zeta * z).sum(1) + _inner_products(pair, size, beyond, generator).to(X.dtype)
        else:
            zeta, z = pair.sample(size, d, generator=generator, dtype=X.dtype)
            inner = (zeta * z).sum(1)
        left, right = (zeta @ X.T).mul_(inner.unsqueeze(1)), z @ X.T
        total.addmm_(left.T, right)
        squares.addmm_(left.square_().T, right.square_())
    mean = total / draws
    return mean, ((squares / draws - mean.square()).clamp_min(0) / (draws - 1)).sqrt()


def alignment(J_o: torch.Tensor, J_u: torch.Tensor) -> torch.Tensor:
    r"""Alignment of two sets of tangents, :math:`\rho = \|J_o J_u^T\|_F / (\|J_o\|_F\|J_u\|_F) \in [0,1]`.

    Args:
        J_o, J_u: (..., V, d); leading dimensions broadcast.

    Returns:
        (...).

    Raises:
        ValueError: a Jacobian is zero, where the alignment is undefined.

    >>> alignment(torch.eye(2), torch.eye(2)).item()  # V orthonormal tangents: 1/sqrt(V)
    0.7071...
    """
    size = torch.linalg.matrix_norm(J_o) * torch.linalg.matrix_norm(J_u)
    if (size == 0).any():
        raise ValueError("a Jacobian is zero; its alignment with another is undefined")
    return torch.linalg.matrix_norm(entk(J_o, J_u)) / size


def estimate_alignment(Y_o: torch.Tensor, Y_u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Squared alignment :math:`\rho^2` from projections alone, with its standard error.

    With :math:`y_p = J_o u_p` and :math:`w_p = J_u u_p`, the mean over :math:`p\ne q` of
    :math:`(y_p^T y_q)(w_p^T w_q)` is unbiased for :math:`\|K\|_F^2`, and the means of :math:`\|y_p\|^2` and
    :math:`\|w_p\|^2` are for :math:`\|J_o\|_F^2` and :math:`\|J_u\|_F^2`. The estimate is the first over the product
    of the others; leaving out one direction at a time (jackknife) removes the ratio's bias of order 1/P and gives the
    error. A projection costs forward passes only (`differences.central_difference`), so :math:`\rho` can be known where
    no Jacobian fits.

    Assumes independent directions with identity covariance. The estimate may fall outside [0, 1] where P is too
    small to see :math:`\rho`; its standard error then says so. The error is unreliable only where the estimate hardly
    varies, for tangents that are all orthogonal and of one length.

    Args:
        Y_o, Y_u: projections from `project` on the same directions, (P, ..., V); leading dimensions broadcast.

    Returns:
        The estimate of :math:`\rho^2` and its standard error, (...) each.

    Raises:
        ValueError: fewer than three directions, not as many for both, or projections that are all zero.

    Source: new.

    >>> from zonb import directions
    >>> J = torch.eye(2, 40)  # two orthonormal tangents: rho^2 = 1/2
    >>> Y = project(J, directions.gaussian, 1000, generator=directions.generator(0))
    >>> square, sem = estimate_alignment(Y, Y)
    >>> bool(abs(square - 0.5) < 4 * sem), bool(sem < 0.05)
    (True, True)
    """
    P = len(Y_o)
    if P < 3 or len(Y_u) != P:
        raise ValueError(f"{P} and {len(Y_u)} projections; give the same number of both, at least 3")
    Y_o, Y_u = Y_o.double().movedim(0, -2), Y_u.double().movedim(0, -2)  # (..., P, V)
    size_o, size_u = Y_o.square().sum(-1), Y_u.square().sum(-1)
    if (size_o.sum(-1) == 0).any() or (size_u.sum(-1) == 0).any():
        raise ValueError("all projections of an input are zero; its alignment with another is undefined")
    # The pairs that p takes part in: y_p^T (sum_q y_q w_q^T) w_p, less q = p.
    row = ((Y_o @ (Y_o.mT @ Y_u)) * Y_u).sum(-1) - size_o * size_u

    def ratio(pairs: torch.Tensor, o: torch.Tensor, u: torch.Tensor, n: int) -> torch.Tensor:
        return (pairs / (n * (n - 1))) / ((o / n) * (u / n))

    total, sum_o, sum_u = (value.sum(-1, keepdim=True) for value in (row, size_o, size_u))
    left_out = ratio(total - 2 * row, sum_o - size_o, sum_u - size_u, P - 1)
    sem = torch.sqrt((P - 1) * left_out.var(-1, correction=0))
    return P * ratio(total, sum_o, sum_u, P).squeeze(-1) - (P - 1) * left_out.mean(-1), sem


def relative_error(estimate: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    r"""Relative Frobenius error :math:`\|\hat K - K\|_F/\|K\|_F`.

    Args:
        estimate: (..., V, V).
        exact: (..., V, V), broadcast against ``estimate``.

    Returns:
        (...).

    Source: paper A, Section E.1 and the caption of Fig. 1.

    >>> relative_error(torch.tensor([[3.0]]), torch.tensor([[2.0]])).item()
    0.5
    """
    return torch.linalg.matrix_norm(estimate - exact) / torch.linalg.matrix_norm(exact)


def cka(A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    r"""Centred kernel alignment, the cosine of the angle between two kernels after double centring.

    :math:`\langle HAH, HBH\rangle_F/(\|HAH\|_F\|HBH\|_F)` with :math:`H = I - \mathbf 1\mathbf 1^T/V`: blind to
    scale and to anything that is constant along rows or columns.

    Args:
        A, B: (..., V, V); leading dimensions broadcast.

    Returns:
        (...), in [-1, 1].

    Raises:
        ValueError: a kernel is zero after centring.

    Source: Kornblith et al. (2019), for kernel blocks as paper A's conference version uses it.

    >>> K = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    >>> cka(K, 5 * K + 7).item()
    1.0
    """
    centred = []
    for K in (A, B):
        C = K - K.mean(-1, keepdim=True) - K.mean(-2, keepdim=True) + K.mean((-2, -1), keepdim=True)
        rounding = 16 * torch.finfo(K.dtype).eps * torch.linalg.matrix_norm(K)
        if (torch.linalg.matrix_norm(C) <= rounding).any():
            raise ValueError("a kernel is zero after centring; its angle with another is undefined")
        centred.append(C / torch.linalg.matrix_norm(C)[..., None, None])
    return (centred[0] * centred[1]).sum((-2, -1)).clamp(-1, 1)


def _inner_products(pair: Pair, M: int, d: int, generator: torch.Generator) -> torch.Tensor:
    r""":math:`\zeta^Tz` of ``M`` Gaussian pairs of mean 0 in d dimensions, from two numbers each."""
    rng = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=generator)))
    square = torch.from_numpy(rng.chisquare(d, M))  # |u|^2; given u, v^T u / |u| is N(0, 1)
    across = square.sqrt() * torch.randn(M, generator=generator, dtype=torch.float64)
    return pair.sigma_zeta * pair.sigma_z * (pair.shared * square + math.sqrt(1 - pair.shared**2) * across)


def _check_tangents(J_o: torch.Tensor, J_u: torch.Tensor) -> None:
    if J_o.ndim < 2 or J_u.ndim < 2 or J_o.shape[-1] != J_u.shape[-1]:
        raise ValueError(f"Jacobians have shapes {tuple(J_o.shape)} and {tuple(J_u.shape)}; expected (..., V, d) twice")
