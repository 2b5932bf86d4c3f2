"""A zeroth-order step of the LeNet on 64 images with P = 125 directions, beside its 250 forward passes and other ways.

Usage: python benchmarks/zo_lenet.py [--repeats N]
Every way is seen to take the same step along given directions, or to restore the parameters, before it is timed.
"""

import argparse
import copy

import harness
import torch
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.overrides import TorchFunctionMode

from zonb import data, directions, models
from zonb.optim import ZOSGD
from zonb.streams import Stream

P, LR, MU = 125, 1e-4, 1e-3


class Seen(TorchFunctionMode):
    """Every operation passes through here and is done as it is."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


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


def four_draws(model, closure, seeds) -> None:
    """Perturb by +mu, -2 mu, +mu, and update: each direction is drawn four times (Malladi et al. 2023)."""

    def move(seed: int, scale: float) -> None:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            z = torch.normal(mean=0, std=1, size=parameter.shape)
            parameter.data = parameter.data + scale * z

    slopes = {}
    for seed in seeds:
        move(seed, MU)
        plus = closure().item()
        move(seed, -2 * MU)
        minus = closure().item()
        move(seed, MU)
        slopes[seed] = (plus - minus) / (2 * MU)
    for seed, slope in slopes.items():
        move(seed, -LR / P * slope)


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
        with Seen():
            forward()

    def four():
        first = next(seeds)
        four_draws(model, closure, range(first, first + P))

    work = {
        "250 forward passes": forward,
        "the same, each operation seen by torch's function mode": seen,
        "zonb.optim.ZOSGD, Rademacher": lambda: signs.step(closure),
        "zonb.optim.ZOSGD, Gaussian": lambda: gaussian.step(closure),
        "in place, a matrix of directions": lambda: in_place(model, closure, torch.randn(P, d, generator=g)),
        "published: each direction drawn four times": four,
        "vmap over directions": lambda: batched(model, x, y, torch.randn(P, d, generator=g)),
    }
    return {name: torch.no_grad()(do) for name, do in work.items()}


@torch.no_grad()
def agree() -> None:
    model, x, y = setting()
    U = torch.zeros(P, sum(q.numel() for q in model.parameters()))
    numbers = {name: k for k, name in enumerate(sorted(name for name, _ in model.named_parameters()))}
    stream = Stream(directions.gaussian, 0, 0)
    for p, row in enumerate(U):
        pieces = row.split([q.numel() for q in model.parameters()])
        for (name, _), piece in zip(model.named_parameters(), pieces, strict=True):
            stream.add(piece, piece, [1.0], first=p, parameter=numbers[name])
    ends = []
    for way in ("zonb", "in place", "vmap"):
        net = copy.deepcopy(model)

        def closure(net=net):
            return cross_entropy(net(x), y)

        if way == "zonb":
            ZOSGD(net.named_parameters(), LR, mu=MU, P=P).step(closure)
        elif way == "in place":
            in_place(net, closure, U)
        else:
            batched(net, x, y, U)
        ends.append(parameters_to_vector(net.parameters()) - parameters_to_vector(model.parameters()))
    for end in ends[1:]:
        assert (end - ends[0]).norm() < 1e-2 * ends[0].norm(), (end - ends[0]).norm() / ends[0].norm()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work = ways()
    if options.memory:
        print(harness.extra_memory(work[options.memory]))
        return
    agree()
    seconds = harness.alternate(work, options.repeats)
    rows = []
    for name in work:
        memory = harness.peak_memory(__file__, name)
        published = harness.ratio(seconds["published: each direction drawn four times"], seconds[name])
        rows.append(
            {
                "way": name,
                "time": harness.spread(seconds[name]),
                "of its forward passes": f"{harness.ratio(seconds[name], seconds['250 forward passes']):.2f}",
                "published takes": f"{published:.2f} times as long",
                "extra memory, MiB": None if memory is None else f"{memory:.1f}",
            }
        )
    notes = [
        "Batch of 64 MNIST images, two-sided differences, float32. The second row is the floor of any way that leaves",
        "the stored parameters alone and knows no more of the model than its operations.",
    ]
    harness.publish("zo_lenet", "Zeroth-order step of the LeNet, 29,624 parameters, P = 125", rows, notes)


if __name__ == "__main__":
    main()
