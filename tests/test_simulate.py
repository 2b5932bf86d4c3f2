import pytest
import reference
import torch

from zonb import directions as D
from zonb import simulate, theory
from zonb.directions import Law
from zonb.simulate import losses, zo_sgd

N, d, ETA = 6, 3, 0.3
X = D.unit_vectors(N, d, generator=D.generator(0)) * torch.tensor([2.0, 1.0, 0.5])
THETA, Y = torch.tensor([0.5, -1.0, 1.0]).double(), X @ torch.tensor([2.0, 1.0, -1.0]).double() + 0.1


def drawn(law, n, P, generator):
    """What a step draws for n runs, (n, P, d)."""
    if law.independent:
        return law.sample(n * P, d, generator=generator, dtype=torch.float64).view(n, P, d)
    return torch.stack([law.sample(P, d, generator=generator, dtype=torch.float64) for _ in range(n)])


@pytest.mark.parametrize("alone", [False, True], ids=["runs together", "each alone"])
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("law", [D.gaussian, D.laplace, D.sphere, D.orthonormal], ids=str)
def test_runs_equal_the_naive_twin_of_finite_differences(law, batch, alone, monkeypatch):
    if alone:
        monkeypatch.setattr(simulate, "_NUMBERS", 1)
    steps, runs, P = 4, 3, 2
    path = torch.stack(
        [*zo_sgd(X, Y, THETA, ETA, steps=steps, runs=runs, P=P, law=law, batch=batch, generator=D.generator(1))]
    )
    generator, us, rows = D.generator(1), torch.empty(runs, steps, P, d).double(), [[] for _ in range(runs)]
    for t in range(steps):
        for part in torch.arange(runs).split(1 if alone else runs):
            us[part, t] = drawn(law, len(part), P, generator)
            random = None if batch is None else torch.rand(len(part), N, generator=generator)
            for k, run in enumerate(part.tolist()):
                rows[run].append(range(N) if random is None else random[k].topk(batch).indices.tolist())
    for run in range(runs):
        twin = reference.zo_sgd(X, Y, THETA, ETA, us[run], rows[run], mu=0.5)
        torch.testing.assert_close(path[:, run], twin, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shared", [0.0, 0.6, 1.0])
def test_the_step_of_a_pair_is_that_of_paper_bs_kernel(shared):
    pair = D.Pair(law=D.rademacher, shared=shared, sigma_z=0.7, sigma_zeta=1.3, mean_z=0.2)
    _, after = zo_sgd(X, Y, THETA, ETA, steps=1, runs=4, P=2, law=pair, generator=D.generator(2))
    zeta, z = pair.sample(8, d, generator=D.generator(2), dtype=torch.float64)
    gradient = X.T @ (X @ THETA - Y) / N
    for run in range(4):
        S = sum(torch.outer(zeta[k], z[k]) * (zeta[k] @ z[k]) for k in (2 * run, 2 * run + 1)) / 2
        torch.testing.assert_close(after[run], THETA - ETA * S @ gradient)


def moments(law, P, steps, runs=40_000):
    """Mean of the residuals' second moment and of the loss after some steps, with their standard errors."""
    *_, last = zo_sgd(X, Y, THETA, 0.1, steps=steps, runs=runs, P=P, law=law, generator=D.generator(3))
    r = last @ X.T - Y
    products, loss = r[:, :, None] * r[:, None], losses(X, Y, [last])[0]
    return products.mean(0), products.std(0) / runs**0.5, loss.mean(), loss.std() / runs**0.5


def scaled(law):
    return Law("variance 1.1", None, True, lambda P, d, g, t: 1.1**0.5 * law.sample(P, d, generator=g, dtype=t))


def twice(law):
    def draw(P, d, generator, dtype):
        return law.sample(P // 2, d, generator=generator, dtype=dtype).repeat_interleave(2, 0)

    return Law("each direction twice", None, True, draw)


def again(law):
    kept = []

    def draw(P, d, generator, dtype):
        if not kept:
            kept.append(law.sample(P, d, generator=generator, dtype=dtype))
            return kept[0]
        return kept.pop()

    return Law("in two steps", None, True, draw)


@pytest.mark.parametrize("law", [D.gaussian, D.laplace, D.sphere], ids=str)
def test_moments_over_runs_are_those_of_theory_and_planted_faults_are_seen(law):
    P, steps = 2, 5
    C = torch.outer(X @ THETA - Y, X @ THETA - Y)
    for _ in range(steps):
        C = theory.second_moment_step(C, X, 0.1, P, law)
    loss = C.trace() / (2 * N)
    if law == D.gaussian:
        torch.testing.assert_close(theory.mean_loss(X @ X.T, X @ THETA, Y, 0.1, P, [steps])[0], loss)
    C_found, C_sem, found, sem = moments(law, P, steps)
    assert ((C_found - C).abs() / C_sem).max() < 5 and abs(found - loss) < 5 * sem
    for wrong in (scaled(law), twice(law), again(law)):
        C_wrong, C_sem, found, sem = moments(wrong, P, steps)
        assert ((C_wrong - C).abs() / C_sem).max() > 5 < abs(found - loss) / sem, wrong.name
    first_order = theory.loss_of_mean(X @ X.T, X @ THETA, Y, 0.1, [steps])[0]
    found, sem = moments(law, P, steps)[2:]
    assert abs(found - first_order) > 5 * sem


def test_a_subset_is_uniform_and_without_replacement():
    runs = 100_000
    for batch in (1, 2):
        how = {"steps": 1, "runs": runs, "law": D.rademacher, "generator": D.generator(5)}
        _, after = zo_sgd(X, Y, THETA, ETA, batch=batch, **how)
        mean, second = reference.batch_moments_over_signs(X, Y, THETA, ETA, batch)
        products = after[:, :, None] * after[:, None]
        assert ((after.mean(0) - mean).abs() / after.std(0) * runs**0.5).max() < 5
        assert ((products.mean(0) - second).abs() / products.std(0) * runs**0.5).max() < 5
        for wrong in {1, 2, 3} - {batch}:
            second = reference.batch_moments_over_signs(X, Y, THETA, ETA, wrong)[1]
            assert ((products.mean(0) - second).abs() / products.std(0) * runs**0.5).max() > 5
    whole, plain = (
        [*zo_sgd(X, Y, THETA, ETA, steps=1, runs=5, batch=b, generator=D.generator(6))][1] for b in (N, None)
    )
    torch.testing.assert_close(whole, plain)  # the subset of all inputs is all inputs


def test_runs_start_where_they_are_told_and_a_second_call_goes_on():
    generator, how = D.generator(7), {"runs": 3, "P": 2}
    whole = [*zo_sgd(X, Y, THETA, ETA, steps=4, generator=D.generator(7), **how)]
    first = [*zo_sgd(X, Y, THETA, ETA, steps=2, generator=generator, **how)]
    rest = [*zo_sgd(X, Y, first[-1], ETA, steps=2, generator=generator, **how)]
    assert torch.equal(torch.stack(whole), torch.stack([*first, *rest[1:]]))
    assert torch.equal(whole[0], THETA.expand(3, d)) and whole[0].dtype == torch.float64
    torch.testing.assert_close(losses(X, Y, whole), torch.stack([((w @ X.T - Y) ** 2).sum(1) / (2 * N) for w in whole]))


def test_single_precision_is_raised_to_double():
    path = zo_sgd(X.float(), Y.float(), THETA.float(), ETA, steps=1, runs=2, generator=D.generator(8))
    assert {theta.dtype for theta in path} == {torch.float64}


@pytest.mark.parametrize(
    "given",
    [{"steps": -1}, {"runs": 0}, {"P": 0}, {"batch": 0}, {"batch": N + 1}, {"y": Y[:-1]}, {"theta": THETA[:2]}],
    ids=str,
)
def test_impossible_runs_are_refused_before_the_first_step(given):
    how = {"X": X, "y": Y, "theta": THETA, "eta": ETA, "steps": 1, "runs": 2, "generator": D.generator(9), **given}
    with pytest.raises(ValueError, match=r"must be at least|has shape"):
        zo_sgd(**how)
