"""The eNTK of every pair of images of the 29,624-parameter LeNet, and its random projections, beside other ways.

Usage: python benchmarks/entk.py [--repeats N] [--jax PYTHON]
PYTHON is the interpreter of an environment made from benchmarks/requirements-jax.txt; without it neural-tangents is
left out. All ways are seen to agree before any is timed.
"""

import argparse
import statistics
import subprocess
import tempfile
import warnings
from pathlib import Path

import harness
import numpy as np
import torch
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from zonb import directions, kernels, models, tangents

P = 1000
PASSES = "forward and ten backward passes alone"
CONVOLUTIONS = "the same, and the kernel of the convolutions' weights"
NAMES = {
    "JACOBIAN_CONTRACTION": "neural-tangents, Jacobian contraction",
    "NTK_VECTOR_PRODUCTS": "neural-tangents, NTK-vector products",
    "STRUCTURED_DERIVATIVES": "neural-tangents, structured derivatives",
}
MODEL = models.lenet(seed=0)
WEIGHTS = {name: value.detach() for name, value in MODEL.named_parameters()}


def images(N: int) -> torch.Tensor:
    return torch.rand(N, 1, 28, 28, generator=directions.generator(0))


def one(weights, x):
    return functional_call(MODEL, weights, (x.unsqueeze(0),)).squeeze(0)


def blocks(x: torch.Tensor) -> list[torch.Tensor]:
    """As in torch.func's tutorial on neural tangent kernels."""
    return [block.flatten(2) for block in vmap(jacrev(one), (None, 0))(WEIGHTS, x).values()]


def contraction(x: torch.Tensor) -> torch.Tensor:
    return sum(torch.einsum("Naf,Mbf->NMab", block, block) for block in blocks(x))


def vector_products(x: torch.Tensor) -> torch.Tensor:
    def pair(x_o, x_u):
        _, back = vjp(lambda weights: one(weights, x_u), WEIGHTS)

        def column(vector):
            return jvp(lambda weights: one(weights, x_o), (WEIGHTS,), back(vector))[1]

        return vmap(column, out_dims=1)(torch.eye(10))

    return vmap(vmap(pair, (None, 0)), (0, None))(x, x)


def loops(x: torch.Tensor) -> torch.Tensor:
    """A gradient for every input and output."""
    parameters = list(MODEL.parameters())
    rows = []
    for image in x:
        for logit in MODEL(image.unsqueeze(0))[0]:
            gradients = torch.autograd.grad(logit, parameters, retain_graph=True)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    J = torch.stack(rows)
    return (J @ J.T).view(len(x), 10, len(x), 10).transpose(1, 2)


def exact_ways(N: int) -> dict:
    x = images(N)

    def forward():
        calls = []
        layers = [layer for layer in MODEL if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
        hooks = [
            layer.register_forward_hook(lambda *call: calls.append((call[0], *call[1], call[2]))) for layer in layers
        ]
        z = MODEL(x)
        for hook in hooks:
            hook.remove()
        return z, calls

    def backward(z, calls):
        for one in torch.eye(10):
            yield torch.autograd.grad(z, [output for *_, output in calls], one.expand_as(z), retain_graph=True)

    def passes():
        for _ in backward(*forward()):
            pass

    def convolutions():
        z, calls = forward()
        seen = [
            torch.nn.functional.unfold(given.detach(), layer.kernel_size, padding=layer.padding).mT
            for layer, given, _ in calls
            if isinstance(layer, torch.nn.Conv2d)
        ]
        rows = []
        for signals in backward(z, calls):
            tangents_of_weights = [(s.flatten(2) @ a).flatten(1) for s, a in zip(signals, seen, strict=False)]
            rows.append(torch.cat(tangents_of_weights, 1))
        J = torch.cat(rows)
        return [J[max(0, stop - 320) : stop] @ J[:stop].T for stop in range(len(J), 0, -320)]  # blocks, last first

    work = {
        "zonb, tangents.gram": lambda: tangents.gram(MODEL, x),
        PASSES: passes,
        CONVOLUTIONS: convolutions,
        "torch.func, Jacobian contraction": lambda: contraction(x),
        "autograd, a loop": lambda: loops(x),
    }
    if N <= 10:  # pair by pair: at N = 100 a matter of minutes
        work["torch.func, NTK-vector products"] = lambda: vector_products(x)
    return work


def projected_ways(N: int = 10) -> dict:
    """Kernels at every P up to 1,000, for all pairs."""
    x, g = images(N), directions.generator(1)
    every = range(1, P + 1)

    def with_zonb(law):
        Y = kernels.project(tangents.jacobian(MODEL, x), law, P, generator=g)
        return kernels.prefix_kernels(Y[:, :, None], Y[:, None], every)

    def plain(draw):
        J = torch.cat(blocks(x), -1).flatten(0, 1)
        Y = (draw(P, J.shape[1]) @ J.T).view(P, N, 10)
        sums = (Y[:, :, None, :, None] * Y[:, None, :, None, :]).cumsum(0)
        return sums / torch.arange(1, P + 1).view(-1, 1, 1, 1, 1)

    def signs(P, d):
        return torch.randint(2, (P, d), generator=g).float() * 2 - 1

    U, J = torch.randn(P, 29624), tangents.jacobian(MODEL, x).flatten(0, 1)

    def products():
        Y = (U @ J.T).view(P, N, 10)
        return kernels.prefix_kernels(Y[:, :, None], Y[:, None], every)

    return {
        "zonb, Rademacher": lambda: with_zonb(directions.rademacher),
        "zonb, Gaussian": lambda: with_zonb(directions.gaussian),
        "torch.func, randn, matrix product": lambda: plain(lambda P, d: torch.randn(P, d, generator=g)),
        "torch.func, randint, matrix product": lambda: plain(signs),
        "matrix products alone": products,
    }


class Worker:
    """neural-tangents in a process of its own, which evaluates when asked."""

    def __init__(self, python: str, folder: Path, N: int) -> None:
        self.input, self.output = folder / f"input-{N}.npz", folder / f"output-{N}.npz"
        np.savez(self.input, x=images(N).numpy(), **{f"w{k}": w.numpy() for k, w in enumerate(WEIGHTS.values())})
        script = str(Path(__file__).parent / "peer_neural_tangents.py")
        self.process = subprocess.Popen(
            [python, script, str(self.input), str(self.output)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        if self.process.stdout.readline() != "done\n":
            raise RuntimeError("neural-tangents stopped; is --jax made from benchmarks/requirements-jax.txt?")

    def results(self) -> dict[str, np.ndarray]:
        self.ask("save")
        return dict(np.load(self.output))


def main() -> None:
    parser = harness.parser(repeats=7)
    parser.add_argument("--jax")
    parser.add_argument("--inputs", type=int, default=10, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="There is a performance drop")
    warnings.filterwarnings("ignore", category=FutureWarning)
    if options.memory:
        print(harness.extra_memory((exact_ways(options.inputs) | projected_ways())[options.memory]))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for N in (10, 100):
            rows += exact(N, options, Path(name))
    notes = [
        "Blocks of 10 x 10 for all N x N pairs, float32; every way was seen to agree to 1e-5 of the largest entry. The",
        "passes alone, to the layers' outputs, and these with the tangents of the convolutions and their products, are",
        "floors of a way that takes them with torch's own operations; linear layers, biases and checks come on top.",
    ]
    title = "eNTK of all pairs of N images, LeNet with 29,624 parameters"
    harness.publish("entk", title, rows, notes, versions=jax_versions(options.jax) if options.jax else {})
    projections(options)


def exact(N: int, options: argparse.Namespace, folder: Path) -> list[dict]:
    work = exact_ways(N)
    expected = loops(images(N))
    for name, do in work.items():
        if name == CONVOLUTIONS:
            assert_of_the_convolutions(do(), images(N))
        elif name != PASSES:
            assert (do() - expected).abs().max() < 1e-5 * expected.abs().max(), name
    memory = {name: harness.peak_memory(__file__, name, "--inputs", str(N)) for name in work}
    if options.jax:
        worker = Worker(options.jax, folder, N)
        for way, K in worker.results().items():
            assert abs(K - expected.numpy()).max() < 1e-5 * expected.abs().max(), way
            if N <= 10 or way != "NTK_VECTOR_PRODUCTS":
                work[NAMES[way]] = lambda way=way: worker.ask(way)
                script = str(Path(__file__).parent / "peer_neural_tangents.py")
                memory[NAMES[way]] = harness.peak_memory(script, way, str(worker.input), python=options.jax)
    seconds = harness.alternate(work, options.repeats)
    ours = seconds["zonb, tangents.gram"]
    columns = {"of zonb's": lambda name: f"{harness.ratio(seconds[name], ours):.1f} times"}
    return [{"N": N, **row} for row in harness.table(by_time(seconds), memory.get, columns)]


def assert_of_the_convolutions(rows: list[torch.Tensor], x: torch.Tensor) -> None:
    """The floor's blocks of rows, last first, are the kernel of the convolutions' weights: outputs, then inputs."""
    filters = [block for weight, block in zip(WEIGHTS.values(), blocks(x), strict=True) if weight.ndim == 4]
    J = torch.cat(filters, -1).transpose(0, 1).flatten(0, 1)
    expected = J @ J.T
    for row in rows:
        stop = row.shape[1]
        error = row - expected[stop - len(row) : stop, :stop]
        assert error.abs().max() < 1e-5 * expected.abs().max(), CONVOLUTIONS


def by_time(seconds: dict[str, list[float]]) -> dict[str, list[float]]:
    return dict(sorted(seconds.items(), key=lambda item: statistics.median(item[1])))


def jax_versions(python: str) -> dict[str, str]:
    script = "from importlib.metadata import version; print(version('jax'), version('neural-tangents'))"
    said = subprocess.run([python, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(zip(("jax", "neural-tangents"), said.split(), strict=True))


def agree(work: dict) -> None:
    """Every way's kernel at the last P has the error that the law expects, within a factor 2 on the mean over pairs."""
    exact = contraction(images(10))
    sizes = torch.einsum("nnii->n", exact)
    law = (exact.square().sum((-2, -1)) + torch.outer(sizes, sizes)) / P
    for name, do in work.items():
        K = do()[-1]
        errors = [((factor * K - exact).square().sum((-2, -1)) / law).mean().item() for factor in (1, 2)]
        assert 0.5 < errors[0] < 2 < errors[1], (name, errors)


def projections(options: argparse.Namespace) -> None:
    work = projected_ways()
    agree(work)
    seconds = harness.alternate(work, options.repeats)
    peer, products = seconds["torch.func, randn, matrix product"], seconds["matrix products alone"]
    columns = {
        "of matrix products alone": lambda name: f"{harness.ratio(seconds[name], products):.2f}",
        "torch.func, randn takes": lambda name: f"{harness.ratio(peer, seconds[name]):.1f} times as long",
    }
    rows = harness.table(by_time(seconds), lambda name: harness.peak_memory(__file__, name), columns)
    notes = [
        "Ten images, 100 pairs, kernels at each P from 1 to 1,000. The matrix products alone are given directions and",
        "Jacobian. Every way's kernel at the last P was seen to have the error that the law expects.",
    ]
    harness.publish("projected_entk", "Projected eNTK, P = 1,000, LeNet with 29,624 parameters", rows, notes)


if __name__ == "__main__":
    main()
