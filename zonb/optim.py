r"""Zeroth-order stochastic gradient descent as a torch optimiser, in the memory of inference.

A step evaluates the loss at :math:`\theta\pm\mu u_p` for P directions and never at a stored copy: while the model runs,
each operation that reads a parameter is handed its perturbed values, made for that operation in a place that the next
one uses again; a linear layer is given some rows at a time, an embedding the rows it looks up. The stored parameters
change in the update alone, so that nothing drifts and a step that fails before it leaves no trace.
"""

from __future__ import annotations

import itertools
import math
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.overrides import TorchFunctionMode

from zonb import directions
from zonb.differences import default_mu
from zonb.directions import Law
from zonb.streams import BLOCK, LAWS, Stream, visible

# Questions about a tensor that do not read its values.
_PROPERTIES = ("device", "dtype", "grad", "grad_fn", "is_cpu", "is_cuda", "is_leaf", "layout", "ndim", "requires_grad")
_METHODS = ("dim", "is_contiguous", "is_floating_point", "numel", "requires_grad_", "size", "stride")
_METADATA = {getattr(torch.Tensor, name).__get__ for name in (*_PROPERTIES, "shape")}
_METADATA |= {getattr(torch.Tensor, name) for name in _METHODS} | {torch.is_floating_point, torch.numel}
_SETTINGS = ("seed", "steps", "mu", "P", "two_sided", "moved", "updated", "_square")
_NESTED = (list, tuple, dict)
_SMALL = 1 << 20  # bytes
_ROWS = 1 << 20  # entries of a weight that a linear layer reads at a time
_LINE = 64  # bytes that processors and libraries like tensors to be aligned to


class ZOSGD(torch.optim.Optimizer):
    r"""Zeroth-order SGD: two losses a direction instead of a backward pass.

    .. math:: \theta \leftarrow (1-\eta\lambda)\,\theta - \frac\eta P\sum_{p=1}^P c_p\,u_p, \qquad
        c_p = \frac{L(\theta+\mu u_p)-L(\theta-\mu u_p)}{2\mu}
        \quad\text{or}\quad \frac{L(\theta+\mu u_p)-L(\theta)}{\mu}\ \text{(one-sided)}

    Unbiased for the gradient of L up to :math:`O(\mu^2)` (one-sided: :math:`O(\mu)`), in every entry. Memory beyond
    that of the closure's forward pass: a few MiB where linear layers and embeddings read the large parameters, since
    they are perturbed some rows at a time; otherwise the size of the largest set that another operation reads (or a
    linear layer with gradients enabled). Directions follow from ``seed``, the number of the step and
    of the direction (`zonb.streams`). They do not depend on threads, nor on how parameters are grouped if these are
    given by name (otherwise on their order), nor on any global random state, which is not touched.

    Args:
        params: parameters, named parameters or groups of either, as for any torch optimiser; a subset of a model's
            will do. Groups may have their own ``lr`` and ``weight_decay``. Float32, float64, float16 or bfloat16.
        lr: the step :math:`\eta`, at least 0.
        mu: the smoothing radius :math:`\mu`, in units of the parameters; `zonb.differences.default_mu` if not given.
        P: number of directions a step.
        law: `gaussian`, `rademacher` or `sphere` of `zonb.directions`.
        two_sided: central differences, 2P losses a step; otherwise one-sided ones, P + 1 losses.
        weight_decay: :math:`\lambda`, at least 0, decoupled from the differences.
        seed: of the directions, in 0..2^64 - 1.
        group: a process group of ``torch.distributed`` whose ranks share the P directions of a step. Rank r takes
            numbers r, r + n, r + 2n, ...; ranks exchange P float64 numbers a step and nothing else, and stay equal bit
            for bit if they began so and compute alike. Give all ranks the same batch for the result of one process.

    Attributes:
        steps: steps done.
        moved: share of the entries read that the last step's perturbations changed after rounding.
        updated: share of all entries that the last update changed after rounding.

    Raises:
        ValueError: a number out of range, no parameters, one that is not floating point or given twice, a law
            without a stream.

    Source: paper A, Eq. 1 and the rule for several perturbations before Eq. 4; Malladi et al. (2023) for directions
    that follow from a seed. Deviation: they perturb the stored parameters in place and walk back, which rounds; here
    the stored parameters are left alone.

    >>> w = torch.nn.Parameter(torch.tensor([3.0, -2.0]))
    >>> optimizer = ZOSGD([w], lr=0.1, mu=1e-2, P=64, law=directions.rademacher)
    >>> losses = [float(optimizer.step(lambda: w.square().sum())) for _ in range(40)]
    >>> losses[-1] < 1e-3 * losses[0]
    True
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        mu: float | None = None,
        P: int = 1,
        law: Law = directions.gaussian,
        two_sided: bool = True,
        weight_decay: float = 0.0,
        seed: int = 0,
        group: torch.distributed.ProcessGroup | None = None,
    ) -> None:
        """Check the settings; nothing is evaluated."""
        if law not in LAWS:
            raise ValueError(f"no stream of {law.name} directions; choose one of {', '.join(one.name for one in LAWS)}")
        if not 1 <= P < 2**32 or P != int(P):
            raise ValueError(f"P={P} must be a whole number of directions, at least 1")
        if not 0 <= seed < 2**64 or seed != int(seed):
            raise ValueError(f"seed={seed} must be a whole number in 0..2^64 - 1")
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self._check_groups()
        self._numbered = self._number()
        if mu is None:
            mu = default_mu(self._parameters(), two_sided=two_sided)
        self.mu = mu
        if not 0 < self.mu < math.inf:
            raise ValueError(f"mu={self.mu} must be positive and finite")
        self.P, self.law, self.two_sided, self.seed, self.group = int(P), law, two_sided, int(seed), group
        self.steps, self.moved, self.updated = 0, math.nan, math.nan
        self._square = math.nan  # of recent differences of two losses

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> float:  # type: ignore[override]  # never without a closure
        r"""One step of zeroth-order descent.

        Args:
            closure: evaluates the loss on the step's batch and returns it, a number or a tensor with one entry; called
                2P times (one-sided: P + 1 times) without gradients. It must be deterministic: evaluation mode, no
                dropout. The model must read its parameters through torch operations in the calling thread (compiled
                or scripted modules, and torch.func transforms of a parameter, do not).

        Returns:
            The mean of the losses at :math:`\theta\pm\mu u_p` (one-sided: the loss at :math:`\theta`) of this process;
            NaN on a rank without directions.

        Raises:
            FloatingPointError: a loss is NaN or infinite; parameters and ``steps`` are as before.
            RuntimeError: the closure reads none of the parameters.

        Warns:
            UserWarning: the perturbation changes fewer than half of the entries it meets, two losses differ by less
                than they are rounded to, a parameter is not read, or the closure draws from torch's CPU generator.
        """
        stream = Stream(self.law, self.seed, self.steps)
        rank, ranks = 0, 1
        if self.group is not None:
            rank, ranks = torch.distributed.get_rank(self.group), torch.distributed.get_world_size(self.group)
        view = _Perturbed(stream, self._numbered, self._parameters())
        slopes = torch.zeros(self.P, dtype=torch.float64)
        losses: list[float] = []  # all that are evaluated
        resolution, base, state = 0.0, math.nan, torch.get_rng_state()
        if not self.two_sided:
            with view.along(0, 0.0):
                base = _number_of(closure())[0]
            losses.append(base)
        for p in range(rank, self.P, ranks):
            radius = self._radius(stream, p)
            signs = (1, -1) if self.two_sided else (1,)
            ends = []
            for sign in signs:
                with view.along(p, sign * self.mu * radius):
                    ends.append(_number_of(closure()))
            if not view.read:
                raise RuntimeError(
                    "the closure read none of the optimiser's parameters through a torch operation; give the "
                    "parameters of the model it runs, neither compiled nor scripted"
                )
            (plus, resolution), (minus, _) = ends[0], ends[-1] if self.two_sided else (base, 0.0)
            slopes[p] = (plus - minus) / (self.mu * len(signs)) * radius
            losses += [loss for loss, _ in ends]
        if self.group is not None:
            shared = slopes.to(self.param_groups[0]["params"][0].device)  # where the group's backend expects it
            torch.distributed.all_reduce(shared, group=self.group)
            slopes = shared.cpu()
        if not slopes.isfinite().all():
            raise FloatingPointError(
                f"a loss of step {self.steps} is not finite (losses here: {', '.join(f'{x:g}' for x in losses)}); "
                "parameters are as before. Take a smaller lr or mu, or check the batch"
            )
        self._square = self._recent(slopes[rank::ranks])
        self.moved = view.changed / view.entries if view.entries else math.nan
        self._warn(not torch.equal(state, torch.get_rng_state()), len(view.read), resolution)
        self._update(stream, slopes)
        self.steps += 1
        return math.fsum(losses) / len(losses) if self.two_sided and losses else base

    def state_dict(self) -> dict[str, Any]:
        """The state of any torch optimiser, and under ``"zo"`` what the directions follow from."""
        return super().state_dict() | {"zo": self._settings()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume: the next step is bit for bit the one that would have followed.

        Raises:
            ValueError: the state of another kind of optimiser.
        """
        if "zo" not in state_dict:
            raise ValueError(f"no entry 'zo' among {', '.join(map(repr, state_dict))}: not the state of a ZOSGD")
        super().load_state_dict({name: value for name, value in state_dict.items() if name != "zo"})
        self._resume(state_dict["zo"])

    def __getstate__(self) -> dict[str, Any]:
        """For copies, in memory or on disk: everything but the process group."""
        return super().__getstate__() | {"zo": self._settings(), "group": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Number the copied parameters as those they were copied from."""
        settings = state.pop("zo", None)
        super().__setstate__(state)
        if settings is not None:
            self._resume(settings)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group as for any torch optimiser; directions of parameters without names keep their numbers."""
        super().add_param_group(param_group)
        if hasattr(self, "_numbered"):
            try:
                self._check_groups()
            except ValueError:
                self.param_groups.pop()
                raise
            self._numbered = self._number()

    def _settings(self) -> dict[str, Any]:
        """What the next step follows from, besides the parameters and their groups."""
        numbers = [self._numbered[id(parameter)] for parameter in self._parameters()]
        return {name: getattr(self, name) for name in _SETTINGS} | {"law": self.law.name, "numbers": numbers}

    def _resume(self, settings: dict[str, Any]) -> None:
        for name in _SETTINGS:
            setattr(self, name, settings[name])
        self.law = {law.name: law for law in LAWS}[settings["law"]]
        numbers = zip(self._parameters(), settings["numbers"], strict=True)
        self._numbered = {id(parameter): number for parameter, number in numbers}

    def _parameters(self) -> list[torch.Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _update(self, stream: Stream, slopes: torch.Tensor) -> None:
        changed = total = 0
        for group in self.param_groups:
            lr = float(group["lr"])
            factors = (-lr / self.P * slopes).tolist()
            keep = 1 - lr * group["weight_decay"]
            for parameter in group["params"]:
                target = parameter.detach()
                moved = target.contiguous()
                number = self._numbered[id(parameter)]
                changed += stream.add(moved, moved, factors, first=0, parameter=number, keep=keep)
                if moved is not target:
                    target.copy_(moved)
                torch.autograd.graph.increment_version(parameter)
                total += parameter.numel()
        self.updated = changed / total

    def _warn(self, drew: bool, read: int, resolution: float) -> None:
        """Say what makes the slopes of a step worth less than they look."""
        messages = []
        if drew:
            messages.append("the closure draws random numbers, and two losses differ by them; call model.eval()")
        if 0 < read < len(self._numbered):
            messages.append(
                f"the closure read {read} of {len(self._numbered)} parameter tensors; the others move by noise alone. "
                "Leave them out, or run the model neither compiled nor scripted"
            )
        difference = math.sqrt(self._square)
        if difference < resolution:
            messages.append(
                f"two losses differ by {difference:.1e}, less than the {resolution:.1e} they are rounded to: take a "
                f"larger mu than {self.mu:g}, or compute the loss in higher precision"
            )
        if self.moved < 0.5:
            messages.append(
                f"mu={self.mu:g} changes {self.moved:.1%} of the parameters it meets, the others are rounded back: "
                "take a larger mu, or parameters in higher precision"
            )
        for message in messages:
            warnings.warn(message, UserWarning, stacklevel=5)  # the caller of step, above torch's own wrappers

    def _recent(self, slopes: torch.Tensor) -> float:
        """Mean square of two losses' difference over the last steps or so: a single one may be small by chance."""
        square = (slopes * self.mu * (1 + self.two_sided)).square().mean().item()
        return square if math.isnan(self._square) else 0.9 * self._square + 0.1 * square

    def _radius(self, stream: Stream, p: int) -> float:
        """What a Gaussian direction is multiplied by, so that it is of the law."""
        if self.law != directions.sphere:
            return 1.0
        numbered = [(q, self._numbered[id(q)]) for q in self._parameters()]
        squares = [stream.square_norm(q.numel(), first=p, parameter=number) for q, number in numbered]
        return math.sqrt(sum(q.numel() for q, _ in numbered) / math.fsum(squares))

    def _check_groups(self) -> None:
        if len({id(parameter) for parameter in self._parameters()}) < len(self._parameters()):
            raise ValueError("a parameter is given twice; list tied parameters once")
        for group in self.param_groups:
            for name in ("lr", "weight_decay"):
                if not 0 <= group[name] < math.inf:
                    raise ValueError(f"{name}={group[name]} must be finite and at least 0")
            for parameter in group["params"]:
                if not parameter.is_floating_point():
                    raise ValueError(f"a parameter of type {parameter.dtype} has no directions; give floating point")

    def _number(self) -> dict[int, int]:
        """Each parameter's number: its rank by name, so that grouping does not matter, or its place."""
        everything = self._parameters()
        names = [name for group in self.param_groups for name in group.get("param_names", [])]
        if names:
            everything = [parameter for _, parameter in sorted(zip(names, everything, strict=True), key=lambda x: x[0])]
        return {id(parameter): number for number, parameter in enumerate(everything)}


class _Perturbed(TorchFunctionMode):
    """While active, torch operations see parameters moved along a direction; the stored ones are not touched."""

    def __init__(self, stream: Stream, numbered: dict[int, int], parameters: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.stream, self.numbered = stream, numbered
        self.small = _Small(stream, numbered, parameters)
        self.place = _Place()
        self.rows = torch.empty(0, dtype=torch.bool, device="cpu")
        self.changed = self.entries = 0
        self.read: set[int] = set()

    def along(self, p: int, radius: float) -> _Perturbed:
        self.p, self.radius = p, radius
        self.small.move(p, radius)
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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

    A call for each would cost more than what it does.
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
    """Memory in which the values for one operation follow those for the one before, as large as the largest need.

    Fresh pages cost more than the directions, and so does writing to what another core has just read. Numpy's views
    tell who still uses a piece: if an operation's result does (a transposed weight), another place is taken.
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


def _number_of(loss: Any) -> tuple[float, float]:
    """A loss as a number, and what it is rounded to."""
    if not isinstance(loss, torch.Tensor):
        return float(loss), math.ulp(float(loss)) if math.isfinite(loss) else math.nan
    if loss.numel() != 1:
        raise ValueError(f"the closure returned a tensor of shape {tuple(loss.shape)}; a loss has one entry")
    return loss.item(), torch.finfo(loss.dtype).eps * abs(loss.item()) / 2
