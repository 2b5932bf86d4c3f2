r"""Tangents of a network: Jacobians, their Gram matrices, and directional derivatives.

Everywhere :math:`\theta \in R^d` is the vector of all parameters in the order of ``model.parameters()``.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from zonb.directions import check_direction

__all__ = ["Function", "as_function", "gram", "in_span", "jacobian", "jvp", "parameter_vector"]

Function = Callable[[torch.Tensor], torch.Tensor]

_TOGETHER = 32  # inputs whose graph is alive at a time
_NUMBERS = 1 << 16  # entries that they have in all, unless there is one


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
    r"""The Jacobian :math:`J(x) = \partial z(x)/\partial\theta`.

    One backward pass an output serves up to 32 inputs. A linear or convolutional layer whose parameters are read once
    gives its inputs and the back-signals at its output, whose products are its tangents; the tangents of any other
    parameter, and of those in half precision, take a backward pass for each input and output.

    Args:
        model: a module whose outputs for different inputs of a batch do not influence each other
            (no batch normalisation in training mode).
        x: a batch of inputs, (N, ...).

    Returns:
        (N, V, d) for a model with outputs (N, V); in general the output's shape with d appended.

    Raises:
        ValueError: an empty batch, or outputs that do not have the batch as their first dimension.

    Paper A writes :math:`\nabla_\theta z` for the transpose, d x V.

    >>> jacobian(nn.Linear(2, 1), torch.tensor([[3.0, 4.0]]))
    tensor([[[3., 4., 1.]]])
    """
    start = 0
    for part in _parts(x):
        shape, pieces = _by_parameter(model, part)
        rows = torch.cat([piece.rows() for piece in pieces], -1)
        if start == 0:
            J = rows if len(part) == len(x) else rows.new_empty(len(x), *rows.shape[1:])
        if J is not rows:
            J[start : start + len(part)] = rows
        start += len(part)
    return J.view(len(x), *shape, -1)


def gram(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    r"""The eNTK of every pair of inputs, :math:`K(n,m) = J_nJ_m^T`, without the Jacobians of linear layers.

    A linear layer's tangents are products of its input a and the back-signal s of an output, so that their inner
    products are :math:`(a_n^Ta_m)(s_{ni}^Ts_{mj})`: neither the time nor the memory of its weights is needed. The
    tangents of other parameters are formed, (N, V, size).

    Args:
        model: as in `jacobian`, with outputs (N, V).
        x: a batch of inputs, (N, ...).

    Returns:
        (N, N, V, V): block (n, m) is `zonb.kernels.entk` of the inputs' Jacobians.

    Raises:
        ValueError: as `jacobian`.

    >>> gram(nn.Linear(2, 1), torch.tensor([[3.0, 4.0], [1.0, 0.0]])).squeeze()
    tensor([[26.,  4.],
            [ 4.,  2.]])
    """
    parts = [_by_parameter(model, part)[1] for part in _parts(x)]
    N, V = len(x), parts[0][0].signals.shape[1]
    kind = functools.reduce(torch.promote_types, (piece.signals.dtype for piece in parts[0]))
    formed, factors = [], []
    for same in zip(*parts, strict=True):
        inputs = [piece.inputs for piece in same if piece.inputs is not None]
        if len(inputs) == len(parts):
            factors.append((torch.cat([piece.signals for piece in same]).flatten(0, 1), torch.cat(inputs)))
        else:
            formed.append(torch.cat([piece.rows() for piece in same]).flatten(0, 1).to(kind))
    K = parts[0][0].signals.new_empty(N * V, N * V, dtype=kind)
    for start in range(0, N, _TOGETHER):  # some rows up to the diagonal, K being symmetric
        stop = min(start + _TOGETHER, N)
        a, b = start * V, stop * V
        block = K.new_zeros(b - a, b)
        for rows in formed:
            block.addmm_(rows[a:b], rows[:b].T)
        for signals, seen in factors:
            products = (signals[a:b] @ signals[:b].T).view(-1, V, stop, V)
            block.view_as(products).addcmul_(products, (seen[start:stop] @ seen[:stop].T).view(-1, 1, stop, 1))
        K[a:b, :b] = block
        K[:a, a:b] = block[:, :a].T
    return K.view(N, V, N, V).transpose(1, 2)


def in_span(J: torch.Tensor) -> torch.Tensor:
    r"""Tangents with the same Gram matrix in as many dimensions as there are tangents.

    The rows of :math:`R^T` where :math:`J^T = QR`. The law of projections on Gaussian directions depends on the Gram
    matrix alone. So these tangents may stand for ``J``, at a cost that does not grow with d. For no other law may they.

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
    n, d = math.prod(J.shape[:-1]), J.shape[-1]
    columns = J.reshape(n, d).T.to(torch.promote_types(J.dtype, torch.float32))  # no half precision in LAPACK
    return torch.linalg.qr(columns).R.T.reshape(*J.shape[:-1], min(n, d)).to(J.dtype)


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
    check_direction(theta, u)
    with warnings.catch_warnings():
        # torch's own first use of forward mode warns about torch.jit.script.
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.script")
        return torch.func.jvp(as_function(model, x), (theta,), (u,))[1].detach()


@dataclass(frozen=True)
class _Piece:
    """Tangents of one parameter: ``signals`` (N, V, size), or their products with ``inputs`` (N, in) if given."""

    signals: torch.Tensor
    inputs: torch.Tensor | None = None

    def rows(self) -> torch.Tensor:
        if self.inputs is None:
            return self.signals
        return (self.signals.unsqueeze(-1) * self.inputs[:, None, None]).flatten(2)

    def weighted(self, weights: torch.Tensor) -> torch.Tensor:
        """The sum over inputs and outputs with weights (N, V), flat."""
        if self.inputs is None:
            return torch.einsum("nv,nvp->p", weights, self.signals)
        return torch.einsum("nv,nvo,ni->oi", weights, self.signals, self.inputs).flatten()

    def length(self) -> torch.Tensor:
        squares = self.signals.square().sum((1, 2))
        return (squares if self.inputs is None else squares * self.inputs.square().sum(1)).sum().sqrt()


@dataclass(frozen=True)
class _Call:
    """A linear or convolutional layer at work: what it was given, and where the graph holds its output."""

    layer: nn.Linear | nn.Conv2d
    inputs: torch.Tensor
    edge: torch.autograd.graph.GradientEdge
    dtype: torch.dtype

    def factors(self, uses: Mapping[torch.Tensor, int], dtype: torch.dtype) -> bool:
        """Whether its tangents are products of inputs and back-signals, in this type."""
        layer, parameters = self.layer, list(self.layer.parameters(recurse=False))
        plain = isinstance(layer, nn.Linear) or (
            layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        )
        same = all(q.dtype == self.dtype == self.inputs.dtype == dtype for q in parameters)
        return plain and same and all(uses.get(q) == 1 for q in parameters)

    def matrix(self) -> torch.Tensor | None:
        """What the layer's weights see, (N, places, in); None for one place, where nothing has to be summed."""
        if isinstance(self.layer, nn.Conv2d):
            how = self.layer.kernel_size, self.layer.dilation, self.layer.padding, self.layer.stride
            return nn.functional.unfold(self.inputs, *how).mT  # type: ignore[arg-type]  # no padding is a name here
        return None if self.inputs.ndim == 2 else self.inputs.flatten(1, -2)

    def by_place(self, signal: torch.Tensor) -> torch.Tensor:
        """A back-signal as (N, out, places); (N, out) for one place."""
        if isinstance(self.layer, nn.Conv2d):
            return signal.flatten(2)
        return signal if signal.ndim == 2 else signal.flatten(1, -2).mT


@torch.enable_grad()
def _by_parameter(model: nn.Module, x: torch.Tensor) -> tuple[torch.Size, list[_Piece]]:
    """The shape of an output, and each parameter's tangents in the order of ``model.parameters()``."""
    calls: list[_Call] = []

    def note(layer: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if args and args[0].ndim > 1 and len(args[0]) == len(output) == len(x) and output.requires_grad:
            calls.append(_Call(layer, args[0].detach(), torch.autograd.graph.get_gradient_edge(output), output.dtype))

    hooks = [layer.register_forward_hook(note) for layer in model.modules() if type(layer) in (nn.Linear, nn.Conv2d)]
    try:
        output = model(x)
    finally:
        for hook in hooks:
            hook.remove()
    if output.ndim == 0 or len(output) != len(x):
        raise ValueError(f"{len(x)} inputs, outputs {tuple(output.shape)}: the first dimension must be the batch's")
    z = output.reshape(len(x), -1)
    parameters = list(model.parameters())
    found = _of_layers(calls, z) if z.dtype in (torch.float32, torch.float64) else {}

    # A hook, say, may make a layer act otherwise than its type does. One gradient of all outputs shows it.
    weights = torch.arange(z.numel(), dtype=z.dtype, device=z.device).cos().view_as(z)
    gradients = _gradients(z, parameters, weights) if found else [None] * len(parameters)
    tolerance = 64 * torch.finfo(z.dtype).eps * weights.norm()

    def right(parameter: torch.Tensor, gradient: torch.Tensor | None) -> bool:
        if gradient is None or parameter not in found:
            return False
        off = found[parameter].weighted(weights) - gradient.flatten()
        return bool(off.norm() <= tolerance * found[parameter].length())

    others = [q for q, gradient in zip(parameters, gradients, strict=True) if not right(q, gradient)]
    rest = iter(_one_by_one(model, x, others).split([q.numel() for q in others], -1) if others else ())
    skipped = set(others)
    return output.shape[1:], [_Piece(next(rest)) if q in skipped else found[q] for q in parameters]


def _of_layers(calls: Sequence[_Call], z: torch.Tensor) -> dict[torch.Tensor, _Piece]:
    """Tangents of the parameters of layers that factor."""
    uses = _uses(z)
    calls = [call for call in calls if call.factors(uses, z.dtype)]
    matrices = [call.matrix() for call in calls]
    found: dict[torch.Tensor, _Piece] = {}
    for call, matrix in zip(calls, matrices, strict=True):
        weight, bias = call.layer.weight, call.layer.bias
        size = len(weight) if matrix is None else weight.numel()
        found[weight] = _Piece(z.new_zeros(*z.shape, size), call.inputs if matrix is None else None)
        if bias is not None:
            found[bias] = _Piece(z.new_zeros(*z.shape, len(bias)))
    for v in range(z.shape[1] if calls else 0):
        unit = torch.zeros_like(z)
        unit[:, v] = 1
        signals = _gradients(z, [call.edge for call in calls], unit)
        for call, matrix, signal in zip(calls, matrices, signals, strict=True):
            if signal is None:
                continue
            signal = call.by_place(signal)
            found[call.layer.weight].signals[:, v] = signal if matrix is None else (signal @ matrix).flatten(1)
            if call.layer.bias is not None:
                found[call.layer.bias].signals[:, v] = signal if matrix is None else signal.sum(2)
    return found


def _uses(z: torch.Tensor) -> dict[torch.Tensor, int]:
    """How often the graph of ``z`` reads each parameter."""
    counts: Counter[torch.Tensor] = Counter()
    seen, waiting = {z.grad_fn}, [z.grad_fn]
    while waiting:
        for node, _ in getattr(waiting.pop(), "next_functions", ()):
            if hasattr(node, "variable"):
                counts[node.variable] += 1
            elif node is not None and node not in seen:
                seen.add(node)
                waiting.append(node)
    return counts


def _one_by_one(model: nn.Module, x: torch.Tensor, parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    """Tangents of some parameters, (N, V, size), by a backward pass for each input and output."""
    blocks = []
    for n in range(len(x)):
        z = model(x[n : n + 1])[0].flatten()
        rows = [
            torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
            for one in z
        ]
        blocks.append(torch.stack([parameters_to_vector(row) for row in rows]))
    return torch.stack(blocks)


def _gradients(z: torch.Tensor, to: Sequence[Any], weights: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Gradients of the sum of outputs (N, V) with weights."""
    return torch.autograd.grad(z, to, weights, retain_graph=True, allow_unused=True)


def _parts(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if len(x) == 0:
        raise ValueError("x holds no input; give at least one, shape (N, ...)")
    return x.split(max(1, min(_TOGETHER, _NUMBERS // max(1, x[0].numel()))))
