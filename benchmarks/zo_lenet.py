"""A zeroth-order step of the LeNet on 64 images with P = 125 directions, beside its 250 forward passes and other ways.

Usage: python benchmarks/zo_lenet.py [--repeats N]
Every way is seen to take the same step along the same directions before it is timed.
"""

import copy

import harness
import torch
from published import four_draws
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.overrides import TorchFunctionMode

from zonb import data, directions, models
from zonb.optim import ZOSGD
from zonb.streams import Stream

P, LR, MU = 125, 1e-4, 1e-3


class Handed(TorchFunctionMode):
    """Operations are handed these tensors for those with these ids, and nothing else is looked at."""

    def __init__(self, values: dict[int, torch.Tensor]) -> None:
        super().__init__()
        self.values = values

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*[self.values.get(id(value), value) for value in args], **(kwargs or {}))


def setting():
    digits = data.load("mnist")
    return models.lenet(seed=0), data.mnist_inputs(digits.images[:64]), torch.from_numpy(digits.labels[:64]).long()


def in_place(model, closure, U: torch.Tensor) -> None:
    """One vector of all parameters, moved along the rows of a stored matrix and back."""
    theta = parameters_to_vector(model.parameters())
    slopes = []
    for u in U:
        losses = []
        for sign in (1, -1):
            vector_to_parameters(theta + sign * MU * u, model.parameters())
            losses.append(closure())
        slopes.append((losses[0] - losses[1]) / (2 * MU))
    vector_to_parameters(theta - LR / len(U) * torch.stack(slopes) @ U, model.parameters())


def bare(model, closure, law: directions.Law) -> None:
    """The least that a way can do which leaves the stored parameters alone: made, added, handed over, no check."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    base, sizes = parameters_to_vector(parameters), [q.numel() for q in parameters]
    out, stream = torch.empty_like(base), Stream(law, 0, 0)
    handed = Handed({id(q): piece.view_as(q) for q, piece in zip(parameters, out.split(sizes), strict=True)})
    numbers, slopes = [sorted(names).index(name) for name in names], []
    for p in range(P):
        losses = []
        for sign in (1, -1):
            stream.add_to_each(out, base, sizes, sign * MU, first=p, parameters=numbers)
            with handed:
                losses.append(closure().item())
        slopes.append((losses[0] - losses[1]) / (2 * MU))
    for q, number in zip(parameters, numbers, strict=True):
        stream.add(q, q, [-LR / P * slope for slope in slopes], first=0, parameter=number)


def batched(model, x, y, U: torch.Tensor) -> None:
    """All directions at once by vmap."""
    theta = parameters_to_vector(model.parameters())
    named = list(model.named_parameters())

    def loss(vector):
        pieces = vector.split([q.numel() for _, q in named])
        state = {name: piece.view_as(q) for (name, q), piece in zip(named, pieces, strict=True)}
        return cross_entropy(functional_call(model, state, (x,)), y)

    plus, minus = vmap(loss)(theta + MU * U), vmap(loss)(theta - MU * U)
    vector_to_parameters(theta - LR / len(U) * ((plus - minus) / (2 * MU)) @ U, model.parameters())


def ways() -> dict:
    model, x, y = setting()
    d = sum(q.numel() for q in model.parameters())
    g, seeds = directions.generator(1), iter(range(0, 10**9, P))
    gaussian, signs = (
        ZOSGD(model.named_parameters(), LR, mu=MU, P=P, law=law) for law in (directions.gaussian, directions.rademacher)
    )

    def closure():
        return cross_entropy(model(x), y)

    def forward():
        for _ in range(2 * P):
            closure()

    def seen():
        with Handed({}):
            forward()

    def four():
        first = next(seeds)
        four_draws(model, closure, range(first, first + P), lr=LR, mu=MU)

    work = {
        "250 forward passes": forward,
        "the same, each operation seen by torch's function mode": seen,
        "a step without any check, Rademacher": lambda: bare(model, closure, directions.rademacher),
        "a step without any check, Gaussian": lambda: bare(model, closure, directions.gaussian),
        "zonb.optim.ZOSGD, Rademacher": lambda: signs.step(closure),
        "zonb.optim.ZOSGD, Gaussian": lambda: gaussian.step(closure),
        "in place, a matrix of directions": lambda: in_place(model, closure, torch.randn(P, d, generator=g)),
        "published: each direction drawn four times": four,
        "vmap over directions": lambda: batched(model, x, y, torch.randn(P, d, generator=g)),
    }
    return {name: torch.no_grad()(do) for name, do in work.items()}


@torch.no_grad()
def agree() -> None:
    """In double precision: in single, rounding during the published walk over the parameters shows."""
    model, x, y = setting()
    model, x = model.double(), x.double()
    U = torch.zeros(P, sum(q.numel() for q in model.parameters()), dtype=torch.float64)
    numbers = {name: k for k, name in enumerate(sorted(name for name, _ in model.named_parameters()))}
    stream = Stream(directions.gaussian, 0, 0)
    for p, row in enumerate(U):
        pieces = row.split([q.numel() for q in model.parameters()])
        for (name, _), piece in zip(model.named_parameters(), pieces, strict=True):
            stream.add(piece, piece, [1.0], first=p, parameter=numbers[name])
    drawn = torch.empty_like(U)
    for seed, row in enumerate(drawn):
        torch.manual_seed(seed)
        row.copy_(
            parameters_to_vector(torch.normal(mean=0, std=1, size=q.shape, dtype=q.dtype) for q in model.parameters())
        )

    def moved(step) -> torch.Tensor:
        net = copy.deepcopy(model)
        step(net, lambda: cross_entropy(net(x), y))
        return parameters_to_vector(net.parameters()) - parameters_to_vector(model.parameters())

    def zonb(net, closure):
        ZOSGD(net.named_parameters(), LR, mu=MU, P=P).step(closure)

    plain, other = (moved(lambda net, closure, V=V: in_place(net, closure, V)) for V in (U, drawn))
    same = {
        "zonb": (moved(zonb), plain),
        "no check": (moved(lambda net, closure: bare(net, closure, directions.gaussian)), plain),
        "vmap": (moved(lambda net, closure: batched(net, x, y, U)), plain),
        "published": (moved(lambda net, closure: four_draws(net, closure, range(P), lr=LR, mu=MU)), other),
    }
    for name, (step, expected) in same.items():
        assert (step - expected).norm() < 1e-6 * expected.norm(), name
    assert (plain - other).norm() > 0.1 * plain.norm(), "the check cannot tell directions apart"


def main() -> None:
    parser = harness.parser(repeats=15)
    options = parser.parse_args()
    work = ways()
    if options.memory:
        print(harness.extra_memory(work[options.memory]))
        return
    agree()
    seconds = harness.alternate(work, options.repeats)
    published, passes = seconds["published: each direction drawn four times"], seconds["250 forward passes"]
    columns = {
        "of its forward passes": lambda name: f"{harness.ratio(seconds[name], passes):.2f}",
        "published takes": lambda name: f"{harness.ratio(published, seconds[name]):.2f} times as long",
    }
    rows = harness.table(seconds, lambda name: harness.peak_memory(__file__, name), columns)
    notes = [
        "Batch of 64 MNIST images, float32. The steps without any check are floors of a way that leaves the stored",
        "parameters alone and knows no more of the model than its operations: directions made, added, handed to the",
        "operations and used once more for the update. They look at plain arguments alone and count nothing.",
    ]
    harness.publish("zo_lenet", "Zeroth-order step of the LeNet, 29,624 parameters, P = 125", rows, notes)


if __name__ == "__main__":
    main()
