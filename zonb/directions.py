r"""Laws of a perturbation direction, normalised by contract: :math:`E[u] = 0`, :math:`E[u u^T] = I_d`.

Because every law has identity covariance, no estimator built on one carries a scale factor.
What tells the laws apart is the fourth moment :math:`\kappa = E[u_k^4]` (Gaussian 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

__all__ = ["Law", "Pair", "check_direction", "gaussian", "generator", "laplace", "orthonormal", "rademacher"]
__all__ += ["sphere", "student_t", "subseed", "uniform", "unit_vectors"]

_Draw = Callable[[int, int, torch.Generator, torch.dtype], torch.Tensor]
_SIGNS = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)  # of a byte's bits


@dataclass(frozen=True)
class Law:
    r"""A law of directions in :math:`R^d` with zero mean and identity covariance.

    Attributes:
        name: what figures and messages call it.
        kappa: :math:`E[u_k^4]` if the entries are independent and identically distributed, else None.
        independent: whether the directions of one sample are independent of each other.
    """

    name: str
    kappa: float | None
    independent: bool
    _draw: _Draw = field(repr=False)

    def sample(self, P: int, d: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Draw ``P`` directions, shape (P, d), one a row.

        Raises:
            ValueError: ``P`` or ``d`` below 1, or more orthonormal directions than dimensions.

        >>> gaussian.sample(2, 3, generator=generator(0)).shape
        torch.Size([2, 3])
        """
        if P < 1 or d < 1:
            raise ValueError(f"P={P} and d={d} must both be at least 1")
        return self._draw(P, d, generator, dtype)


@dataclass(frozen=True, kw_only=True)
class Pair:
    r"""The two directions of a neural zeroth-order kernel, :math:`\zeta` and z, which may share their randomness.

    .. math:: z = m_z\mathbf 1 + \sigma_z u, \qquad
        \zeta = m_\zeta\mathbf 1 + \sigma_\zeta\left(r\,u + \sqrt{1-r^2}\,v\right)

    with u and v independent, both of law ``law`` (mean 0, covariance I).

    Attributes:
        law: the law of u and v.
        shared: the correlation r, in [0, 1]; 0: independent, 1: :math:`\zeta` has the randomness of z.
        sigma_z, sigma_zeta: standard deviations of the entries, positive.
        mean_z, mean_zeta: the means :math:`m_z` and :math:`m_\zeta`.

    Raises:
        ValueError: a number out of range, or a law whose directions depend on each other.

    Source: paper B, Theorem 1 (r = 0) and Corollary 2 (r = 1). Deviation: an r in between is ours; the paper writes
    :math:`\mu` for the means, which is the smoothing radius here.

    >>> zeta, z = Pair(law=gaussian, shared=1.0).sample(4, 3, generator=generator(0))
    >>> bool((zeta == z).all())
    True
    """

    law: Law
    shared: float = 0.0
    sigma_z: float = 1.0
    sigma_zeta: float = 1.0
    mean_z: float = 0.0
    mean_zeta: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.law.independent:
            raise ValueError(f"{self.law.name} directions depend on each other; a pair needs a law of single ones")
        if not 0 <= self.shared <= 1:
            raise ValueError(f"shared={self.shared} must be in [0, 1]: 0 for independent, 1 for identical randomness")
        for name in ("sigma_z", "sigma_zeta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a standard deviation, positive and finite")
        if not (math.isfinite(self.mean_z) and math.isfinite(self.mean_zeta)):
            raise ValueError(f"mean_z={self.mean_z} and mean_zeta={self.mean_zeta} must be finite")

    def sample(
        self, M: int, d: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Draw ``M`` pairs: :math:`\zeta` and z, (M, d) each.

        >>> [tuple(rows.shape) for rows in Pair(law=gaussian).sample(2, 3, generator=generator(0))]
        [(2, 3), (2, 3)]
        """
        u = self.law.sample(M, d, generator=generator, dtype=dtype)
        v = u if self.shared == 1 else self.law.sample(M, d, generator=generator, dtype=dtype)
        return self.mix(u, v)

    def mix(self, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        r""":math:`\zeta` and z of given u and v, (M, d) each; v does not matter for ``shared=1``.

        >>> Pair(law=gaussian, shared=0.6, sigma_z=2.0).mix(torch.ones(1, 1), torch.zeros(1, 1))
        (tensor([[0.6000]]), tensor([[2.]]))
        """
        zeta = v
        if self.shared > 0:
            zeta = u.clone() if self.shared == 1 else self.shared * u + math.sqrt(1 - self.shared**2) * v
        return _scaled(zeta, self.mean_zeta, self.sigma_zeta), _scaled(u, self.mean_z, self.sigma_z)


def _scaled(u: torch.Tensor, mean: float, sigma: float) -> torch.Tensor:
    return u if (mean, sigma) == (0, 1) else mean + sigma * u


def subseed(seed: int, *path: int) -> int:
    """A seed of its own for the stream ``path`` of ``seed``, in 0..2^64 - 1, for what takes an integer.

    It comes from numpy's splittable seed sequence: ``subseed(0, 1)`` and ``subseed(1, 0)`` are unrelated, which
    ``seed + 1`` and the like are not.

    Args:
        seed: at least 0.
        path: whole numbers of at least 0 that name the stream; none for ``seed``'s own.

    >>> subseed(0, 1) == subseed(0, 1), len({subseed(a, b) for a in range(50) for b in range(50)})
    (True, 2500)
    """
    return int(np.random.SeedSequence(entropy=seed, spawn_key=path).generate_state(1, np.uint64)[0])


def generator(seed: int, *path: int) -> torch.Generator:
    """A random generator for the stream ``path`` of ``seed``, which is `subseed` of both.

    >>> a, b = (torch.rand(1, generator=generator(0, stream)) for stream in (0, 1))
    >>> bool(a == b)
    False
    """
    return torch.Generator().manual_seed(subseed(seed, *path))


def unit_vectors(n: int, d: int, *, generator: torch.Generator, positive: bool = False) -> torch.Tensor:
    r"""Points drawn uniformly on the unit sphere of :math:`R^d` (for d = 2: the circle), float64.

    Args:
        n: number of points.
        d: their dimension.
        generator: the source of randomness.
        positive: fold them into the part where all coordinates are positive.

    Returns:
        (n, d), rows of length 1.

    Raises:
        ValueError: ``n`` or ``d`` below 1.

    Source: paper B, Section 4. Deviation: the paper calls the circle S^2; its published code draws the positive
    quadrant only, its text the whole circle.

    >>> unit_vectors(3, 2, generator=generator(0)).norm(dim=1).tolist()
    [1.0..., 1.0..., 1.0...]
    """
    if n < 1 or d < 1:
        raise ValueError(f"n={n} and d={d} must both be at least 1")
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    x = x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x.abs() if positive else x


def check_direction(theta: torch.Tensor, u: torch.Tensor) -> None:
    """Refuse a direction whose shape is not that of the parameters.

    Broadcasting (1, d) against (d, 1) runs silently, and moves along the vector of ones.

    Raises:
        ValueError: ``u`` has another shape than ``theta``.

    >>> check_direction(torch.zeros(3), torch.zeros(1, 3))
    Traceback (most recent call last):
    ValueError: the direction has shape (1, 3), the parameters have (3,)
    """
    if u.shape != theta.shape:
        raise ValueError(f"the direction has shape {tuple(u.shape)}, the parameters have {tuple(theta.shape)}")


def student_t(nu: float) -> Law:
    r"""Independent Student-t entries with ``nu`` degrees of freedom, scaled to variance 1.

    :math:`\kappa = 3(\nu-2)/(\nu-4)`.

    Raises:
        ValueError: ``nu <= 4``, where the fourth moment, and with it every error law here, is infinite.

    >>> student_t(10).kappa
    4.0
    """
    if not nu > 4:
        raise ValueError(f"nu={nu} must exceed 4: below, the fourth moment is infinite and no error law exists")

    def draw(P: int, d: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        # Bailey's polar form (1994): exact, from two uniforms an entry; float64 keeps the tail.
        v, angle = torch.rand(2, P, d, generator=generator, dtype=torch.float64)
        t = torch.sqrt(nu * ((1 - v) ** (-2 / nu) - 1)) * torch.cos(2 * torch.pi * angle)
        return (t * ((nu - 2) / nu) ** 0.5).to(dtype)

    return Law(f"Student-t ({nu:g})", 3 * (nu - 2) / (nu - 4), True, draw)


def _gaussian(P: int, d: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(P, d, generator=generator, dtype=dtype)


def _rademacher(P: int, d: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    words = torch.empty(-(-P * d // 64), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    signs = np.take(_SIGNS, words.numpy().view(np.uint8), axis=0)  # several times as fast as torch's own indexing
    return torch.from_numpy(signs).view(-1)[: P * d].view(P, d).to(dtype)


def _uniform(P: int, d: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    return torch.rand(P, d, generator=generator, dtype=dtype).mul_(2).sub_(1).mul_(3**0.5)


def _laplace(P: int, d: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    size = torch.empty(P, d, dtype=dtype).exponential_(generator=generator)
    return size.mul_(_rademacher(P, d, generator, dtype)).div_(2**0.5)


def _sphere(P: int, d: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    u = _gaussian(P, d, generator, dtype)
    return u.mul_(d**0.5 / torch.linalg.vector_norm(u, dim=1, keepdim=True))


def _orthonormal(P: int, d: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    if P > d:
        raise ValueError(f"P={P} orthonormal directions do not fit into d={d} dimensions; choose P <= {d}")
    q, r = torch.linalg.qr(_gaussian(d, P, generator, dtype))
    # QR alone is not uniform over orthonormal frames: its signs must be those of r's diagonal.
    return (q * torch.sign(torch.diagonal(r))).T.mul(d**0.5)


gaussian = Law("Gaussian", 3.0, True, _gaussian)
rademacher = Law("Rademacher", 1.0, True, _rademacher)
uniform = Law("uniform", 9 / 5, True, _uniform)
laplace = Law("Laplace", 6.0, True, _laplace)
sphere = Law("sphere", None, True, _sphere)
orthonormal = Law("orthonormal", None, False, _orthonormal)
