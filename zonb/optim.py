r"""Zeroth-order stochastic gradient descent as a torch optimiser, in the memory of inference.

A step evaluates the loss at :math:`\theta\pm\mu u_p` for P directions without a copy of the parameters: while the model
runs it reads them moved along a direction (`zonb.perturbed`). The stored ones change in the update alone. So nothing
drifts, and a step that fails before its update leaves no trace.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed

from zonb import directions, streams
from zonb.differences import default_mu
from zonb.directions import Law
from zonb.perturbed import Perturbed
from zonb.streams import Stream

__all__ = ["ZOSGD"]

_LAWS = {law.name: law for law in (*streams.LAWS, directions.sphere)}
_SETTINGS = ("seed", "steps", "mu", "P", "two_sided", "moved", "updated", "_square")


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
        if law not in _LAWS.values():
            raise ValueError(f"no stream of {law.name} directions; choose one of {', '.join(_LAWS)}")
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
        # A direction on the sphere is a Gaussian one, made longer or shorter.
        law = directions.gaussian if self.law == directions.sphere else self.law
        stream = Stream(law, self.seed, self.steps)
        rank, ranks = 0, 1
        if self.group is not None:
            rank, ranks = torch.distributed.get_rank(self.group), torch.distributed.get_world_size(self.group)
        view = Perturbed(stream, self._numbered, self._parameters())
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
        self.law = _LAWS[settings["law"]]
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
        """What a direction of the stream is multiplied by, so that it is of the law."""
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


def _number_of(loss: Any) -> tuple[float, float]:
    """A loss as a number, and what it is rounded to."""
    if not isinstance(loss, torch.Tensor):
        return float(loss), math.ulp(float(loss)) if math.isfinite(loss) else math.nan
    if loss.numel() != 1:
        raise ValueError(f"the closure returned a tensor of shape {tuple(loss.shape)}; a loss has one entry")
    return loss.item(), torch.finfo(loss.dtype).eps * abs(loss.item()) / 2
