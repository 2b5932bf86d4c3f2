"""The neural zeroth-order kernel of 200 images in 711 dimensions by Monte Carlo, and its 16,000 losses.

Usage: python benchmarks/nzk.py [--repeats N]
Beside the plain loops that paper B's figures were made with, written from their description: a kernel for each of
10,000 draws, stacked and averaged; outputs stepped 16,000 times in function space. Results are seen to agree first.
"""

import harness
import torch

from zonb import data, directions, kernels, models, streams, tangents, theory

DRAWS, ETA, STEPS = 10_000, 1e-3, 16_000
OURS = "zonb, kernels.sampled_nzk"
SIGNS = "zonb, Rademacher directions, in all d dimensions"
LOOP = "a kernel for each draw, stacked"


def setting(dtype: torch.dtype):
    """MNIST 3 against 5, 8 x 8 grey, and the first 64-10-5-1 network whose last hidden layer is not dead."""
    images, targets = data.binary(data.load("mnist"), ["3"], ["5"], per_class=100)
    x = data.grey_8x8(images, dtype=dtype)
    networks = (models.mlp(seed=seed).to(dtype) for seed in range(1000))
    model = next(net for net in networks if (net[:4](x) > 0).any(1).double().mean() > 0.5)
    with torch.no_grad():
        return tangents.jacobian(model, x)[:, 0], model(x)[:, 0], torch.from_numpy(targets).to(dtype)


def estimates() -> dict:
    X, _, _ = setting(torch.float32)
    N, d = X.shape
    g = directions.generator(1)

    def with_zonb(law):
        pair = directions.Pair(law=law)
        return lambda: kernels.sampled_nzk(X, pair, DRAWS, generator=g)

    def loop():
        found = []
        for _ in range(DRAWS):
            z, zeta = torch.randn(d, generator=g), torch.randn(d, generator=g)
            found.append(((X @ zeta)[:, None] * zeta) @ ((X @ z)[:, None] * z).T)
        return torch.stack(found).mean(0)

    def floor(size):
        z, S, projected, K = torch.randn(1000, size), torch.randn(N, size), torch.randn(1000, N), torch.zeros(N, N)

        def work():
            for _ in range(0, DRAWS, len(z)):
                for _ in range(2):
                    streams.gaussian_rows(len(z), size, g)
                    z @ S.T
                    K.addmm_(projected.T, projected)

        return work

    return {
        OURS: with_zonb(directions.gaussian),
        "its random numbers and matrix products alone": floor(N),
        "the same for directions in all d dimensions": floor(d),
        SIGNS: with_zonb(directions.rademacher),
        LOOP: loop,
    }


def curves() -> dict:
    X, f_0, y = setting(torch.float64)
    K = X @ X.T

    def loop():
        f, losses = f_0.clone(), []
        for _ in range(STEPS):
            losses.append((f - y).square().sum() / (2 * len(y)))
            f = f - ETA / len(y) * (K @ (f - y))
        return torch.stack(losses)

    return {
        "zonb, theory.loss_of_mean": lambda: theory.loss_of_mean(K, f_0, y, ETA, torch.arange(STEPS)),
        "a step in function space, 16,000 times": loop,
        "one eigendecomposition alone": lambda: torch.linalg.eigh(K),
    }


def main() -> None:
    parser = harness.parser(repeats=5)
    options = parser.parse_args()
    if options.memory:
        print(harness.extra_memory((estimates() | curves())[options.memory]))
        return
    titles = {
        "nzk": "NZK of N = 200 images in d = 711, mean of 10,000 draws, float32",
        "function_space": "16,000 losses in function space, N = 200, float64",
    }
    notes = {
        "nzk": [
            "Gaussian directions are drawn in the span of the 200 tangents, with the law that they have there (chapter",
            "10); Rademacher directions cannot be. zonb's time includes a standard error for each entry; all means are",
            "the expected kernel within it.",
        ],
        "function_space": ["All 16,000 losses agree to a relative 1e-10."],
    }
    # Curves first: what takes milliseconds takes longer where the published loop has filled 3 GiB before.
    for key, work, agree in (("function_space", curves(), curves_agree), ("nzk", estimates(), estimates_agree)):
        agree(work)
        seconds = harness.alternate(work, options.repeats)
        ours = seconds[next(iter(work))]
        columns = {"of zonb's": lambda name, all=seconds, ours=ours: f"{harness.ratio(all[name], ours):.1f} times"}
        rows = harness.table(seconds, lambda name: harness.peak_memory(__file__, name), columns)
        harness.publish(key, titles[key], rows, notes[key])


def estimates_agree(work: dict) -> None:
    mean, sem = work[OURS]()
    X, _, _ = setting(torch.float32)
    expected = theory.expected_nzk(X, directions.Pair(law=directions.gaussian))
    for estimate in (mean, work[SIGNS]()[0], work[LOOP]()):
        assert ((estimate - expected).abs() < 6 * sem).all(), "an estimate is not that of the expected kernel"
        identical = (X.shape[1] + 2) * expected  # the kernel of directions that are one and the same
        assert ((estimate - identical).abs() > 6 * sem).any(), "the check cannot tell two kernels apart"


def curves_agree(work: dict) -> None:
    quick, slow, _ = (do() for do in work.values())
    assert ((quick - slow).abs() / slow).max() < 1e-10, "the losses differ"


if __name__ == "__main__":
    main()
