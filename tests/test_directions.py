import pytest
import torch

from zonb import directions as D

LAWS = [D.gaussian, D.rademacher, D.uniform, D.laplace, D.student_t(12), D.sphere, D.orthonormal]
d = 6


def sample(law, n, seed=0):
    """n directions; dependent ones in blocks of 3, so that their dependence is in the sample."""
    generator = D.generator(seed)
    if law.independent:
        return law.sample(n, d, generator=generator, dtype=torch.float64)
    return torch.cat([law.sample(3, d, generator=generator, dtype=torch.float64) for _ in range(n // 3)])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_mean_is_zero_and_covariance_is_identity(law):
    n = 60_000
    u = sample(law, n)
    products = u[:, :, None] * u[:, None, :]
    # Dependent directions come in blocks of 3; their blocks are independent.
    blocks = products.view(-1, 1 if law.independent else 3, d, d).mean(1)
    mean, sem = blocks.mean(0), blocks.std(0) / len(blocks) ** 0.5 + 1e-12
    z = ((mean - torch.eye(d)) / sem).abs()
    assert z.max() < 5
    assert (((mean - 1.1 * torch.eye(d)) / sem).abs()).max() > 5  # a covariance 10 % too large is seen
    assert (u.mean(0).abs() * n**0.5 / u.std(0)).max() < 5


@pytest.mark.parametrize("law", [law for law in LAWS if law.kappa is not None], ids=lambda law: law.name)
def test_fourth_moment_is_kappa(law):
    fourth = sample(law, 200_000, seed=1) ** 4
    mean, sem = fourth.mean(), fourth.std() / fourth.numel() ** 0.5 + 1e-12
    assert abs(mean - law.kappa) < 5 * sem
    for other in {3.0, 1.0, 9 / 5, 6.0} - {law.kappa}:
        assert abs(mean - other) > 5 * sem


def test_sphere_has_radius_root_d_and_orthonormal_directions_are_orthogonal():
    radii = D.sphere.sample(10, d, generator=D.generator(0), dtype=torch.float64).norm(dim=1)
    torch.testing.assert_close(radii, torch.full((10,), d**0.5, dtype=torch.float64))
    u = D.orthonormal.sample(d, d, generator=D.generator(0), dtype=torch.float64)
    torch.testing.assert_close(u @ u.T, d * torch.eye(d, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_signs_are_signs_whatever_the_size(dtype):
    for P, d in ((1, 1), (3, 21), (2, 64), (7, 100)):
        u = D.rademacher.sample(P, d, generator=D.generator(P, d), dtype=dtype)
        assert u.shape == (P, d) and u.dtype == dtype and set(u.flatten().tolist()) <= {-1.0, 1.0}
    # Neighbours come from one random word: no two of its 64 bits, nor bits of two words, go together.
    u = D.rademacher.sample(20_000, 128, generator=D.generator(5))
    products = (u.T @ u) / len(u) - torch.eye(128)
    assert products.abs().max() * len(u) ** 0.5 < 5
    assert (products + 0.05 * (1 - torch.eye(128))).abs().max() * len(u) ** 0.5 > 5  # a correlation of 0.05 is seen


def test_same_seed_same_directions_and_streams_differ():
    a, b, c = (
        D.gaussian.sample(4, d, generator=generator)
        for generator in (D.generator(3, 1), D.generator(3, 1), D.generator(1, 3))
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_seeds_split_and_generators_begin_at_them():
    seeds = {D.subseed(seed, *path) for seed in range(20) for path in ((), (0,), (1,), (0, 1), (1, 0), (0, 0, 0))}
    assert len(seeds) == 120 and all(0 <= seed < 2**64 for seed in seeds) and max(seeds) > 2**60
    assert D.subseed(3, 1) == 18443715169928553612  # the same on every machine
    by_hand = torch.Generator().manual_seed(D.subseed(3, 1))
    assert torch.equal(torch.rand(3, generator=by_hand), torch.rand(3, generator=D.generator(3, 1)))


def test_unit_vectors_are_uniform_and_may_be_folded():
    g = D.generator(0)
    x = D.unit_vectors(20_000, 3, generator=g)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(20_000, dtype=torch.float64))
    second = (x[:, :, None] * x[:, None]).mean(0)
    assert (second - torch.eye(3) / 3).abs().max() < 5 * (4 / 45 / 20_000) ** 0.5 < (second - torch.eye(3)).abs().max()
    assert (D.unit_vectors(100, 2, generator=g, positive=True) >= 0).all() and (x < 0).any()
    with pytest.raises(ValueError, match="must both be at least 1"):
        D.unit_vectors(0, 2, generator=g)


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for law in LAWS:
        law.sample(2, d, generator=D.generator(0))
    assert torch.equal(before, torch.get_rng_state())


def test_laws_without_a_fourth_moment_are_refused():
    with pytest.raises(ValueError, match=r"nu=4 must exceed 4.*fourth moment"):
        D.student_t(4)


@pytest.mark.parametrize("P, dimension", [(0, 3), (3, 0)])
def test_empty_samples_are_refused(P, dimension):
    with pytest.raises(ValueError, match="at least 1"):
        D.gaussian.sample(P, dimension, generator=D.generator(0))


def test_more_orthonormal_directions_than_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"P=7 .* d=6"):
        D.orthonormal.sample(7, 6, generator=D.generator(0))


@pytest.mark.parametrize("shared", [0.0, 0.6, 1.0])
def test_a_pair_has_its_means_deviations_and_correlation(shared):
    pair = D.Pair(law=D.laplace, shared=shared, sigma_z=2.0, sigma_zeta=0.5, mean_z=0.7, mean_zeta=-1.1)
    zeta, z = pair.sample(40_000, 3, generator=D.generator(4), dtype=torch.float64)
    for rows, mean, sigma in ((zeta, -1.1, 0.5), (z, 0.7, 2.0)):
        sem = sigma / rows.numel() ** 0.5
        assert abs(rows.mean() - mean) < 5 * sem < abs(rows.mean())
        square = (rows - mean) ** 2
        error = square.std() / square.numel() ** 0.5
        assert abs(square.mean() - sigma**2) < 5 * error < abs(square.mean() - sigma)  # a deviation, no variance
    product = ((zeta + 1.1) * (z - 0.7)).flatten()
    error = product.std() / product.numel() ** 0.5
    assert abs(product.mean() - shared) < 5 * error
    assert abs(product.mean() - (shared**2 if 0 < shared < 1 else 0.5)) > 5 * error


@pytest.mark.parametrize(
    "given",
    [
        {"law": D.orthonormal},
        {"shared": 1.1},
        {"shared": -0.1},
        {"sigma_z": 0.0},
        {"sigma_zeta": -1.0},
        {"mean_z": float("nan")},
        {"sigma_z": float("inf")},
    ],
)
def test_impossible_pairs_are_refused(given):
    with pytest.raises(ValueError, match=r"must be|depend on each other"):
        D.Pair(**{"law": D.gaussian, **given})


@pytest.mark.parametrize("shared, mixed", [(0.0, (0.0, 1.0)), (0.6, (0.6, 0.8)), (1.0, (1.0, 0.0))])
def test_a_pair_is_made_of_two_draws_entry_by_entry(shared, mixed):
    pair = D.Pair(law=D.gaussian, shared=shared, sigma_z=2.0, sigma_zeta=0.5, mean_z=0.7, mean_zeta=-1.1)
    g = D.generator(6)
    u, v = (D.gaussian.sample(5, d, generator=g, dtype=torch.float64) for _ in range(2))
    zeta, z = pair.sample(5, d, generator=D.generator(6), dtype=torch.float64)
    torch.testing.assert_close(z, 0.7 + 2.0 * u)
    torch.testing.assert_close(zeta, -1.1 + 0.5 * (mixed[0] * u + mixed[1] * v))


def test_streams_differ_at_any_depth_of_their_path():
    paths = [(0,), (0, 1), (0, 1, 2), (0, 1, 3), (0, 2, 2), (1, 1, 2)]
    assert len({D.generator(*path).initial_seed() for path in paths}) == len(paths)
