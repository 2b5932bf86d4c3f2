r"""Directions that need not be stored: entry k of direction p of step t is a function of (seed, t, p, parameter, k).

Philox 4x32 with ten rounds, a counter-based generator, gives each entry its random bits, so that any piece of a
direction can be made at any time, in any order and on any number of threads, and is the same bit for bit. A sign is one
bit; a Gaussian pair is made of two 32-bit words by the Box-Muller transform in float32 (largest entry 6.76).

Source: Salmon, Moraes, Dror and Shaw (2011) for Philox; the logarithm, sine and cosine are minimax polynomials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import torch
from numba import njit, prange

from zonb import directions
from zonb.directions import Law

__all__ = ["BLOCK", "LAWS", "Stream", "gaussian_rows", "visible"]

_u32, _u64, _i32, _f32 = np.uint32, np.uint64, np.int32, np.float32
BLOCK = 1024  # entries made together; a power of two, so that a piece starts with a block
_SPAN = 1 << 16  # entries whose squares are summed together
_SHARED = 1 << 15  # with at least so many entries of directions, threads share the work
_STAGE = 1 << 18  # entries converted at a time where numpy cannot see a tensor (half precision, other devices)
LAWS = (directions.gaussian, directions.rademacher)


@dataclass(frozen=True)
class Stream:
    r"""The directions of one step of zeroth-order descent.

    Attributes:
        law: ``gaussian`` or ``rademacher``, whose entries are independent. (A direction on the sphere is a Gaussian one
            times :math:`\sqrt d/\|u\|`, and that factor needs all parameters: see `square_norm`.)
        seed: of the whole run, in [0, 2^64).
        step: number of the step, in [0, 2^32).

    Raises:
        ValueError: another law.

    >>> stream = Stream(directions.rademacher, seed=0, step=0)
    >>> out = torch.zeros(4)
    >>> stream.add(out, out, [0.5], first=0, parameter=0)
    4
    >>> out.abs()
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """

    law: Law
    seed: int
    step: int

    def __post_init__(self) -> None:
        """Refuse laws that have no stream."""
        if self.law not in LAWS:
            known = ", ".join(law.name for law in LAWS)
            raise ValueError(f"no stream of {self.law.name} directions; choose one of {known}")

    def add(
        self,
        out: torch.Tensor,
        base: torch.Tensor,
        coefficients: Sequence[float],
        *,
        first: int,
        parameter: int,
        start: int = 0,
        keep: float = 1.0,
    ) -> int:
        r"""Write :math:`(\text{keep})\,\theta+\sum_i c_i\,u_{\text{first}+i}` for one parameter tensor.

        Sums are made in float32 (float64 parameters: in float64) and rounded once to the type of ``out``.

        Args:
            out: where to write, of the shape and type of ``base``; may be ``base`` itself. Contiguous.
            base: the parameter :math:`\theta`, any shape.
            coefficients: :math:`c_i`, one for each direction from number ``first`` on.
            first: number of the first direction.
            parameter: number of the parameter tensor.
            start: entry of the parameter that ``base`` begins with, a multiple of ``BLOCK``.
            keep: factor on the parameter.

        Returns:
            How many entries of ``out`` differ from ``base`` as it was.
        """
        if visible(out) and visible(base):
            flat, source = out.detach().numpy().reshape(-1), base.detach().numpy().reshape(-1)
            return self._add(flat, source, start, coefficients, first, parameter, keep)
        place, values = out.detach().view(-1), base.detach().reshape(-1)
        changed = 0
        for begin in range(0, place.numel(), _STAGE):
            piece = values[begin : begin + _STAGE]
            stage = piece.to("cpu", torch.float32, copy=True)
            self._add(stage.numpy(), stage.numpy(), start + begin, coefficients, first, parameter, keep)
            rounded = stage.to(piece.dtype).to(piece.device)
            changed += int(torch.count_nonzero(rounded != piece))
            place[begin : begin + _STAGE] = rounded
        return changed

    def add_to_each(
        self,
        out: torch.Tensor,
        base: torch.Tensor,
        sizes: Sequence[int],
        coefficient: float,
        *,
        first: int,
        parameters: Sequence[int],
    ) -> list[int]:
        """Several parameters laid end to end, each as `add` makes it, in one call; and how many entries changed.

        Args:
            out: where to write, (sum of ``sizes``,), float32 or float64 on the CPU, of the type of ``base``.
            base: the parameters' values in the same places.
            sizes: entries of each parameter.
            coefficient, first: as in `add`, for one direction.
            parameters: number of each parameter tensor.

        Returns:
            For each parameter, how many entries differ from ``base``.
        """
        flat = out.numpy()
        factors = np.array([coefficient], dtype=flat.dtype)
        signs, low, high, _, step, first = self._words(first, 0)
        numbers = np.array(parameters)
        changed = _add_each(flat, base.numpy(), np.array(sizes), factors, numbers, signs, low, high, step, first)
        return changed.tolist()

    def add_to_rows(
        self, table: torch.Tensor, rows: torch.Tensor, coefficient: float, *, first: int, parameter: int
    ) -> tuple[torch.Tensor, int]:
        """Some rows of a matrix of parameters as `add` makes them, without the others; and how many entries changed.

        Args:
            table: the parameter, (rows, width).
            rows: which rows, int64, increasing.
            coefficient, first, parameter: as in `add`, for one direction.

        Returns:
            The rows, (len(rows), width).
        """
        base = table.detach()[rows]
        stage = base if visible(base) else base.to("cpu", torch.float32)
        out = stage.numpy()
        words = self._words(first, parameter)
        changed = _add_rows(out, rows.cpu().numpy(), out.dtype.type(coefficient), *words)
        if stage is base:
            return base, changed
        result = stage.to(base.dtype).to(base.device)
        return result, int(torch.count_nonzero(result != base))

    def square_norm(self, size: int, *, first: int, parameter: int) -> float:
        """The squared length of a Gaussian direction's part that belongs to a parameter of ``size`` entries."""
        spans = range(0, size, _SPAN)
        words = self._words(first, parameter)
        return math.fsum(_square_norm(start, min(start + _SPAN, size), *words) for start in spans)

    def _words(self, first: int, parameter: int) -> tuple[bool, int, int, int, int, int]:
        return *self._key, int(parameter), self.step, int(first)

    @cached_property
    def _key(self) -> tuple[bool, int, int]:
        return self.law == directions.rademacher, self.seed & 0xFFFFFFFF, self.seed >> 32

    def _add(
        self,
        out: np.ndarray,
        base: np.ndarray,
        offset: int,
        coefficients: Sequence[float],
        first: int,
        parameter: int,
        keep: float,
    ) -> int:
        words = self._words(first, parameter)
        factors = np.asarray(coefficients, dtype=out.dtype)
        threads = _threads() if len(out) * len(factors) >= _SHARED else 1
        if threads == 1:
            return _add(out, base, offset, factors, out.dtype.type(keep), *words)
        return _add_shared(out, base, offset, factors, out.dtype.type(keep), *words, threads)


def gaussian_rows(P: int, d: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Gaussian directions as rows, stored: the first ``P`` of a stream whose seed the generator draws.

    The law of `zonb.directions.gaussian`, several times as fast as from the generator alone. Float64 entries have the
    resolution of float32.

    Args:
        P: number of directions.
        d: their dimension.
        generator: the source of randomness; one number is taken from it.
        dtype: float32 or float64.

    Returns:
        (P, d).

    >>> gaussian_rows(2, 3, directions.generator(0)).shape
    torch.Size([2, 3])
    """
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    rows = torch.zeros(P, d, dtype=dtype)
    Stream(directions.gaussian, seed, step=0).add(rows, rows, [1.0], first=0, parameter=0)
    return rows


def visible(tensor: torch.Tensor) -> bool:
    """Whether numpy sees the tensor's memory as it is."""
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)


def _threads() -> int:
    """How many threads share the work of one call: as many as torch would use."""
    threads = torch.get_num_threads()
    if threads > 1:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        if torch.get_num_threads() != threads:  # the first of these calls sets OpenMP's own number
            torch.set_num_threads(threads)
    return threads


@njit(inline="always")
def _philox(c0, c1, c2, c3, k0, k1):
    # 32-bit words in 64-bit lanes: the compiler's vectors then need no packing between rounds.
    low = _u64(0xFFFFFFFF)
    for _ in range(10):
        p, q = _u64(0xD2511F53) * c0, _u64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (q >> _u64(32)) ^ c1 ^ k0, q & low, (p >> _u64(32)) ^ c3 ^ k1, p & low
        k0, k1 = (k0 + _u64(0x9E3779B9)) & low, (k1 + _u64(0xBB67AE85)) & low
    return c0, c1, c2, c3


@njit(nogil=True, cache=True, error_model="numpy")
def _bits(bits, block, k0, k1, c1, c2, c3):
    quarter = len(bits) // 4
    for j in range(quarter):
        c0 = _u64(block * quarter + j) & _u64(0xFFFFFFFF)
        a, b, c, d = _philox(c0, _u64(c1), _u64(c2), _u64(c3), _u64(k0), _u64(k1))
        bits[j], bits[quarter + j], bits[2 * quarter + j], bits[3 * quarter + j] = _u32(a), _u32(b), _u32(c), _u32(d)


@njit(nogil=True, cache=True, error_model="numpy")
def _signs(u, bits):
    whole, words = u.view(np.int32), len(bits)
    for shift in range(32):
        for j in range(words):  # the float 1.0 with the bit as its sign
            whole[words * shift + j] = (_i32(bits[j] << _u32(31 - shift)) & _i32(-(2**31))) | _i32(0x3F800000)


@njit(nogil=True, cache=True, error_model="numpy")
def _normals(u, bits):
    half = len(bits) // 2
    whole = u.view(np.int32)
    for j in range(half):
        u[j] = (_f32(bits[j]) + _f32(0.5)) * _f32(2.0**-32)
    for j in range(half):  # u = 2^e m with m in [sqrt(1/2), sqrt(2))
        exponent = (whole[j] - _i32(0x3F3504F3)) >> _i32(23)
        whole[j] -= exponent << _i32(23)
        u[half + j] = _f32(exponent)
    for j in range(half):
        x = u[j] - _f32(1)
        y = _f32(7.0376836e-2)
        y = y * x - _f32(1.15146103e-1)
        y = y * x + _f32(1.16769987e-1)
        y = y * x - _f32(1.24201408e-1)
        y = y * x + _f32(1.42493228e-1)
        y = y * x - _f32(1.66680577e-1)
        y = y * x + _f32(2.00007148e-1)
        y = y * x - _f32(2.49999940e-1)
        y = y * x + _f32(3.33333312e-1)
        log = x - _f32(0.5) * x * x + x * x * x * y + _f32(math.log(2)) * u[half + j]
        radius = math.sqrt(max(-log, _f32(0)))  # of a Gaussian pair, divided by sqrt(2)
        word = bits[half + j]
        # An angle in (-pi/4, pi/4), turned by pi/4 into the first quadrant; two more bits choose the quadrant.
        t = (_f32(_i32(word & _u32(0x3FFFFFFF))) - _f32(2.0**29 - 0.5)) * _f32(math.pi * 2.0**-31)
        tt = t * t
        sine = t + t * tt * (_f32(-1.6666654611e-1) + tt * (_f32(8.3321608736e-3) - tt * _f32(1.9515295891e-4)))
        cosine = _f32(4.166664568e-2) + tt * (_f32(-1.388731625e-3) + tt * _f32(2.443315712e-5))
        cosine = _f32(1) - _f32(0.5) * tt + tt * tt * cosine
        u[j] = radius * (cosine - sine) * (_f32(1) - _f32(2) * _f32(_i32(word >> _u32(31))))
        u[half + j] = radius * (cosine + sine) * (_f32(1) - _f32(2) * _f32(_i32((word >> _u32(30)) & _u32(1))))


@njit(nogil=True, cache=True, error_model="numpy")
def _block(u, bits, block, signs, k0, k1, c1, c2, c3):
    if signs:
        words = bits[: BLOCK // 32]
        _bits(words, block, k0, k1, c1, c2, c3)
        _signs(u, words)
    else:
        _bits(bits, block, k0, k1, c1, c2, c3)
        _normals(u, bits)


@njit(nogil=True, cache=True, error_model="numpy")
def _add(out, base, offset, factors, keep, signs, k0, k1, parameter, step, first):
    u, bits = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint32)
    total = np.empty(BLOCK, out.dtype)
    changed = 0
    for start in range(0, len(out), BLOCK):
        size = min(BLOCK, len(out) - start)
        for i in range(len(factors)):
            _block(u, bits, (offset + start) // BLOCK, signs, k0, k1, parameter, step, first + i)
            factor = factors[i]
            if i == 0:
                for k in range(BLOCK):
                    total[k] = factor * u[k]
            else:
                for k in range(BLOCK):
                    total[k] += factor * u[k]
        # Slices and a 32-bit count let the compiler use vectors.
        before, after, count = base[start : start + size], out[start : start + size], _i32(0)
        for k in range(size):
            value = keep * before[k] + total[k]
            count += _i32(value != before[k])
            after[k] = value
        changed += count
    return changed


@njit(parallel=True, nogil=True, cache=True, error_model="numpy")
def _add_shared(out, base, offset, factors, keep, signs, k0, k1, parameter, step, first, pieces):
    # Where numba and torch share one OpenMP, so do their threads; others would find the cores taken by torch's, which
    # wait for their next operation in a loop.
    span = -(-len(out) // (pieces * BLOCK)) * BLOCK
    changed = 0
    for i in prange(pieces):
        part = slice(min(i * span, len(out)), min((i + 1) * span, len(out)))
        changed += _add(out[part], base[part], offset + i * span, factors, keep, signs, k0, k1, parameter, step, first)
    return changed


@njit(nogil=True, cache=True, error_model="numpy")
def _add_each(out, base, sizes, factors, numbers, signs, k0, k1, step, first):
    changed = np.empty(len(sizes), np.int64)
    start, keep = 0, factors.dtype.type(1)
    for i in range(len(sizes)):
        stop = start + sizes[i]
        changed[i] = _add(out[start:stop], base[start:stop], 0, factors, keep, signs, k0, k1, numbers[i], step, first)
        start = stop
    return changed


@njit(nogil=True, cache=True, error_model="numpy")
def _add_rows(out, rows, factor, signs, k0, k1, parameter, step, first):
    u, bits = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint32)
    current, changed, width = -2, 0, out.shape[1]
    for r in range(len(rows)):
        for k in range(width):
            entry = rows[r] * width + k
            if entry // BLOCK != current:
                current = entry // BLOCK
                _block(u, bits, current, signs, k0, k1, parameter, step, first)
            value = out[r, k] + factor * u[entry % BLOCK]
            changed += value != out[r, k]
            out[r, k] = value
    return changed


@njit(nogil=True, cache=True, error_model="numpy")
def _square_norm(start, stop, signs, k0, k1, parameter, step, first):
    u, bits = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.uint32)
    total = 0.0
    for begin in range(start, stop, BLOCK):
        _block(u, bits, begin // BLOCK, signs, k0, k1, parameter, step, first)
        for k in range(min(BLOCK, stop - begin)):
            total += np.float64(u[k]) * np.float64(u[k])
    return total
