"""A model's parameters seen moved along a direction, while the stored ones are not touched.

Each operation that reads a parameter is handed its moved values. They are made for that operation, in memory that the
next one uses again. A linear layer is given some rows at a time, and an embedding only the rows that it looks up.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from zonb.streams import BLOCK, Stream, visible

__all__ = ["Perturbed"]

# Questions about a tensor that do not read its values.
_PROPERTIES = ("device", "dtype", "grad", "grad_fn", "is_cpu", "is_cuda", "is_leaf", "layout", "ndim", "requires_grad")
_METHODS = ("dim", "is_contiguous", "is_floating_point", "numel", "requires_grad_", "size", "stride")
_METADATA = {getattr(torch.Tensor, name).__get__ for name in (*_PROPERTIES, "shape")}
_METADATA |= {getattr(torch.Tensor, name) for name in _METHODS} | {torch.is_floating_point, torch.numel}
_NESTED = (list, tuple, dict)
_SMALL = 1 << 20  # bytes
_ROWS = 1 << 20  # entries of a weight that a linear layer reads at a time
_LINE = 64  # bytes that processors and libraries like tensors to be aligned to


class Perturbed(TorchFunctionMode):
    r"""While active, torch operations see parameters moved along a direction; the stored ones are not touched.

    Args:
        stream: the directions.
        numbered: the number of each parameter in the stream, by its ``id``.
        parameters: the parameters.

    Attributes:
        changed: of the ``entries`` that operations have read moved, how many differ from the stored ones.
        entries: that number.
        read: ``id`` of each parameter that an operation has read.

    >>> from zonb import directions
    >>> w = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    >>> view = Perturbed(Stream(directions.rademacher, seed=0, step=0), {id(w): 0}, [w])
    >>> with view.along(0, 0.5):
    ...     moved = w + 0
    >>> (moved - w).abs()
    tensor([0.5000, 0.5000], grad_fn=<AbsBackward0>)
    """

    def __init__(self, stream: Stream, numbered: dict[int, int], parameters: Sequence[torch.Tensor]) -> None:
        """Nothing is moved before `along`."""
        super().__init__()
        self.stream, self.numbered = stream, numbered
        self.small = _Small(stream, numbered, parameters)
        self.place = _Place()
        self.rows = torch.empty(0, dtype=torch.bool, device="cpu")
        self.changed = self.entries = 0
        self.read: set[int] = set()

    def along(self, p: int, radius: float) -> Perturbed:
        """The same view, at ``radius`` times direction ``p`` from the stored parameters."""
        self.p, self.radius = p, radius
        self.small.move(p, radius)
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation with the moved parameters."""
        kwargs = kwargs or {}
        parameters = None if func in _METADATA else self._among((*args, *kwargs.values()))
        if not parameters:
            return func(*args, **kwargs)
        self.read.update(parameters)
        if len(args) > 1 and self._is_large_matrix(args[1]):
            if func is torch.nn.functional.embedding and kwargs.get("max_norm") is None:
                return self._embedding(*args[:2])
            if func is torch.nn.functional.linear and self._by_rows(*args, **kwargs):
                return self._linear(*args, **kwargs)
        moved = self._moved(parameters)
        args, kwargs = self._replaced((args, kwargs), moved)
        del moved  # so that no more than the operation holds the values
        return func(*args, **kwargs)

    def _is_large_matrix(self, value: Any) -> bool:
        return id(value) in self.numbered and id(value) not in self.small.values and value.ndim == 2

    def _by_rows(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
        """Whether a linear layer may be done by rows: nothing of them is kept for a derivative, and they fit."""
        plain = x.layout is torch.strided and not x.is_nested and id(x) not in self.numbered
        plain &= bias is None or bias.shape == weight.shape[:1]
        return plain and not torch.is_grad_enabled() and 0 < len(weight) and 0 < _unit(weight) <= _ROWS

    def _embedding(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Of the rows looked up alone."""
        if self.radius == 0:
            return torch.nn.functional.embedding(x, weight.detach())
        rows, places = x.unique(return_inverse=True)
        if rows.numel() and not 0 <= rows[0] <= rows[-1] < len(weight):
            raise IndexError("index out of range in self")
        table, changed = self.stream.add_to_rows(
            weight, rows, self.radius, first=self.p, parameter=self.numbered[id(weight)]
        )
        self._count(changed, table)
        return torch.nn.functional.embedding(places, table)

    def _linear(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """By rows of the weight, as many as stay in the processor's cache until they are multiplied."""
        if bias is not None and id(bias) in self.numbered:
            bias = self._moved({id(bias): bias})[id(bias)]
        if (self.rows.dtype, self.rows.device) != (weight.dtype, weight.device):
            with torch.inference_mode(False):
                self.rows = weight.new_empty(_ROWS)
        width = weight.shape[1]
        step = _ROWS // _unit(weight) * _unit(weight) // width
        out: torch.Tensor | None = None
        for start in range(0, len(weight), step):
            base, part = weight.detach()[start : start + step], slice(start, start + step)
            if self.radius == 0:
                rows = base.contiguous()
            else:
                rows = self.rows[: base.numel()].view(base.shape)
                how = {"first": self.p, "parameter": self.numbered[id(weight)], "start": start * width}
                self._count(self.stream.add(rows, base, [self.radius], **how), rows)
            piece = torch.nn.functional.linear(x, rows, None if bias is None else bias[part])
            if len(rows) == len(weight):
                return piece
            out = piece.new_empty(*piece.shape[:-1], len(weight)) if out is None else out
            out[..., part] = piece
            del piece  # so that the next does not come beside it
        assert out is not None  # a weight has rows
        return out

    def _moved(self, parameters: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        moved = {}
        for key in parameters:
            value = self.small.values.get(key)
            if value is not None:
                moved[key] = value
                self._count(self.small.changed[key], value)
        large = [parameter for key, parameter in parameters.items() if key not in moved]
        for base, out in zip(large, self.place.like(large) if large else (), strict=True):
            moved[id(base)] = out
            if self.radius == 0:  # the stored values, safe from operations in place
                out.copy_(base.detach())
            else:
                number = self.numbered[id(base)]
                changed = self.stream.add(out, base, [self.radius], first=self.p, parameter=number)
                self._count(changed, out)
        return moved

    def _among(self, values: Iterable[Any]) -> dict[int, torch.Tensor]:
        """The optimiser's parameters in nested arguments."""
        found = {}
        for value in values:
            if id(value) in self.numbered:
                found[id(value)] = value
            elif isinstance(value, _NESTED):
                found |= self._among(value.values() if isinstance(value, dict) else value)
        return found

    def _replaced(self, values: Iterable[Any], moved: dict[int, torch.Tensor]) -> Iterator[Any]:
        for value in values:
            if id(value) in moved:
                yield moved[id(value)]
            elif not isinstance(value, _NESTED):
                yield value
            elif isinstance(value, dict):
                yield dict(zip(value, self._replaced(value.values(), moved), strict=True))
            else:
                items = self._replaced(value, moved)
                yield type(value)(*items) if hasattr(value, "_fields") else type(value)(items)

    def _count(self, changed: int, moved: torch.Tensor) -> None:
        if self.radius != 0:
            self.changed += changed
            self.entries += moved.numel()


def _unit(weight: torch.Tensor) -> int:
    """Entries after which a row of a matrix begins, and random numbers that are made together."""
    return math.lcm(weight.shape[1], BLOCK)


class _Small:
    """Small parameters of one type, at most a MiB in all, moved together before the model runs.

    Moving each in a call of its own would take longer for the calls than for the numbers.
    """

    def __init__(self, stream: Stream, numbered: dict[int, int], parameters: Sequence[torch.Tensor]) -> None:
        self.stream = stream
        self.members: list[torch.Tensor] = []
        room = _SMALL
        for parameter in parameters:
            alike = type(parameter) in (torch.Tensor, torch.nn.Parameter) and visible(parameter)
            alike &= not self.members or parameter.dtype == self.members[0].dtype
            if alike and parameter.nbytes <= room:
                self.members.append(parameter)
                room -= parameter.nbytes
        self.sizes = [parameter.numel() for parameter in self.members]
        self.numbers = [numbered[id(parameter)] for parameter in self.members]
        none = torch.empty(0, dtype=torch.float32, device="cpu")
        self.base = torch.cat([parameter.detach().reshape(-1) for parameter in self.members] or [none])
        self.out = torch.empty_like(self.base)
        pieces = zip(self.members, self.out.split(self.sizes), strict=True)
        self.values = {id(parameter): piece.view(parameter.shape) for parameter, piece in pieces}
        self.changed: dict[int, int] = {}

    def move(self, p: int, radius: float) -> None:
        """Fill ``values`` along direction p; ``changed`` entries of each differ from the stored ones."""
        if radius == 0:
            self.out.copy_(self.base)
            self.changed = dict.fromkeys(self.values, 0)
            return
        counts = self.stream.add_to_each(self.out, self.base, self.sizes, radius, first=p, parameters=self.numbers)
        self.changed = dict(zip(self.values, counts, strict=True))


class _Place:
    """Memory for the values of one operation after the other, as large as the largest of them.

    It is used again because new memory costs more time than the directions do. Values go behind those of the operation
    before, since writing where another core has just read is slow as well. Numpy's views tell whether a piece is still
    in use: if the result of an operation is a view of it (a transposed weight), new memory is taken.
    """

    def __init__(self) -> None:
        self.memory, self.end = _aligned(0), 0
        self.lent: Callable[[], np.ndarray | None] = lambda: None

    def like(self, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Contiguous tensors of these shapes and types, with arbitrary values."""
        ends = list(itertools.accumulate(map(_room, parameters), initial=0))
        if self.lent() is not None or ends[-1] > len(self.memory):
            size = max(len(self.memory), ends[-1])
            self.memory = _aligned(0)  # gone before its successor comes
            self.memory, self.end = _aligned(size), 0
        start = self.end if self.end + ends[-1] <= len(self.memory) else 0
        self.end = start + ends[-1]
        piece = self.memory[start : self.end]
        self.lent = weakref.ref(piece)
        whole = torch.from_numpy(piece)
        return [
            whole[start : start + q.nbytes].view(q.dtype).view(q.shape)
            if _room(q)
            else torch.empty_like(q, memory_format=torch.contiguous_format)
            for q, start in zip(parameters, ends[:-1], strict=True)
        ]


def _room(parameter: torch.Tensor) -> int:
    """Bytes that values like the parameter's take in a place: whole lines, nothing on other devices."""
    return -(-parameter.nbytes // _LINE) * _LINE if parameter.device.type == "cpu" else 0


def _aligned(size: int) -> np.ndarray:
    """Bytes for tensors; numpy asks for huge pages where there are any, which come at less cost."""
    memory = np.empty(size + _LINE, np.uint8)
    return memory[-memory.ctypes.data % _LINE :][:size]
