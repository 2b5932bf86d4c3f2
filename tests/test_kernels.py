import copy

import pytest
import reference
import torch
from conftest import extra_memory, linux_only
from scipy import stats

from zonb import directions as D
from zonb import kernels as K
from zonb import theory
from zonb.tangents import in_span

V, d = 3, 8


def tangents(seed, rows=V, columns=d):
    """Tangents with unequal lengths and a mean, so that no formula hides behind symmetry."""
    g = D.gaussian.sample(rows, columns, generator=D.generator(seed), dtype=torch.float64)
    return g * torch.arange(1, columns + 1) ** 0.5 + 0.3


J_o, J_u = tangents(0), tangents(1, rows=V + 1)


def test_projected_kernel_equals_the_twin_entry_by_entry():
    us = D.rademacher.sample(5, d, generator=D.generator(2), dtype=torch.float64)
    ours = K.projected_entk(J_o, J_u, us)
    torch.testing.assert_close(ours, reference.projected_entk(J_o, J_u, us))
    for i in range(V):
        for j in range(V + 1):
            assert ours[i, j].item() == pytest.approx(reference.projected_entry(J_o, J_u, us, i, j).item())


def test_orthonormal_directions_recover_the_kernel_at_full_dimension():
    us = D.orthonormal.sample(d, d, generator=D.generator(2), dtype=torch.float64)
    torch.testing.assert_close(K.projected_entk(J_o, J_u, us), K.entk(J_o, J_u))


@pytest.mark.parametrize("P", [1, 2, 7])
def test_rank_is_at_most_the_number_of_perturbations(P):
    us = D.gaussian.sample(P, d, generator=D.generator(2), dtype=torch.float64)
    assert torch.linalg.matrix_rank(K.projected_entk(J_o, J_u, us)) == min(P, V)


@pytest.mark.parametrize("law", [D.gaussian, D.rademacher, D.orthonormal], ids=lambda law: law.name)
def test_projections_and_prefixes_equal_the_direct_kernel(law):
    P, both = 6, torch.stack([J_o, tangents(3)])
    Y = K.project(both, law, P, generator=D.generator(5), chunk=P)
    us = law.sample(P, d, generator=D.generator(5), dtype=torch.float64)
    torch.testing.assert_close(Y, torch.einsum("nvd,pd->pnv", both, us))
    for numbers in ([1, 4, 6], [1, 2, 3, 4]):
        prefixes = K.prefix_kernels(Y[:, 0], Y[:, 1], numbers)
        for kernel, at in zip(prefixes, numbers, strict=True):
            torch.testing.assert_close(kernel, reference.projected_entk(both[0], both[1], us[:at]))


def test_chunks_change_the_memory_and_not_the_law():
    n = 4000
    for chunk in (1, 7, 64):
        Y = K.project(J_o, D.gaussian, n, generator=D.generator(6), chunk=chunk)
        covariance = Y.T @ Y / n
        exact = K.entk(J_o, J_o)
        sem = ((exact.diag()[:, None] * exact.diag()[None] + exact**2) / n) ** 0.5
        assert ((covariance - exact).abs() < 5 * sem).all()
        assert ((covariance - 1.2 * exact).abs() > 5 * sem).any()


@linux_only
def test_memory_of_projections_is_that_of_one_chunk():
    setup = "import torch; from zonb import directions as D, kernels as K; J = torch.ones(100, 30_000)"
    needed = extra_memory(setup, "K.project(J, D.gaussian, 6400, generator=D.generator(0))")
    assert 7 < needed < 16  # MiB; a chunk takes 7.3, the directions at once would take 732


@pytest.mark.parametrize(
    "law",
    [D.gaussian, D.rademacher, D.uniform, D.laplace, D.student_t(12), D.sphere, D.orthonormal],
    ids=lambda law: law.name,
)
@pytest.mark.parametrize("P", [1, 3])
def test_squared_error_follows_the_law_and_no_other(law, P):
    n = 40_000
    generator = D.generator(7, P)
    exact = K.entk(J_o, J_u)
    if law.independent:
        us = law.sample(n * P, d, generator=generator, dtype=torch.float64).view(n, P, d)
    else:
        us = torch.stack([law.sample(P, d, generator=generator, dtype=torch.float64) for _ in range(n)])
    estimates = torch.einsum("npi,npj->nij", us @ J_o.T, us @ J_u.T) / P
    errors = (estimates - exact).square().sum((1, 2))
    mean, sem = errors.mean(), errors.std() / n**0.5
    assert abs(mean - theory.error_law(J_o, J_u, P, law)) < 5 * sem
    others = {D.gaussian, D.rademacher, D.laplace} - {law}
    for wrong in others:
        assert abs(mean - theory.error_law(J_o, J_u, P, wrong)) > 5 * sem, wrong.name


def test_alignment_is_one_for_parallel_tangents_and_zero_for_orthogonal_ones():
    row = torch.tensor([[1.0, 2.0, 0.0]])
    assert K.alignment(row, 3 * row).item() == pytest.approx(1)
    assert K.alignment(row, torch.tensor([[0.0, 0.0, 1.0]])).item() == 0
    assert 0 < K.alignment(J_o, J_u) < 1


def test_alignment_ignores_scale_and_rotation():
    q = D.orthonormal.sample(d, d, generator=D.generator(8), dtype=torch.float64) / d**0.5
    torch.testing.assert_close(K.alignment(2 * J_o @ q, 5 * J_u @ q), K.alignment(J_o, J_u))


def test_estimated_alignment_equals_the_twin_pair_by_pair():
    us = D.gaussian.sample(6, d, generator=D.generator(8), dtype=torch.float64)
    Y_o, Y_u = us @ J_o.T, us @ J_u.T
    square, sem = K.estimate_alignment(Y_o, Y_u)
    left_out = torch.stack(
        [reference.estimated_alignment(*(torch.cat([Y[:p], Y[p + 1 :]]) for Y in (Y_o, Y_u))) for p in range(6)]
    )
    torch.testing.assert_close(square, 6 * reference.estimated_alignment(Y_o, Y_u) - 5 * left_out.mean())
    torch.testing.assert_close(sem, (5 / 6 * (left_out - left_out.mean()).square().sum()).sqrt())


def test_estimated_alignment_is_right_on_average_and_its_error_honest():
    P, n = 200, 2000
    Y = K.project(torch.cat([J_o, J_u]), D.gaussian, P * n, generator=D.generator(9), chunk=4000)
    square, sem = K.estimate_alignment(Y.view(P, n, -1)[..., :V], Y.view(P, n, -1)[..., V:])
    exact = K.alignment(J_o, J_u).square()
    assert abs(square.mean() - exact) / (square.std() / n**0.5) < 5
    assert 0.9 < sem.mean() / square.std() < 1.1
    few = Y.view(P, n, -1)[:20]
    naive = K.prefix_kernels(few[..., :V], few[..., V:], [20])[0]
    sizes = [few[..., part].square().sum(-1).mean(0) for part in (slice(V), slice(V, None))]
    own = naive.square().sum((-2, -1)) / (sizes[0] * sizes[1])
    assert (own.mean() - exact) / (own.std() / n**0.5) > 5  # with the terms p = q it is not


def test_estimated_alignment_of_parallel_tangents_is_not_biased_beyond_its_error():
    J = torch.full((1, 20), 20**-0.5, dtype=torch.float64)
    Y = K.project(J, D.gaussian, 1000 * 200, generator=D.generator(10), chunk=10000).view(1000, 200, 1)
    square, sem = K.estimate_alignment(Y, Y)
    assert ((square - 1) / sem).abs().max() < 5 and (square - 1).abs().max() < 1e-4


def test_estimated_alignment_works_on_batches_of_pairs():
    us = D.gaussian.sample(10, d, generator=D.generator(8), dtype=torch.float64)
    Y_o, Y_u = us @ J_o.T, us @ J_u.T
    together = K.estimate_alignment(torch.stack([Y_o, 2 * Y_o], 1), torch.stack([Y_u, Y_u], 1))
    for value, single in zip(together, K.estimate_alignment(Y_o, Y_u), strict=True):
        torch.testing.assert_close(value, single.expand(2))


def test_cka_ignores_scale_and_constants_along_rows_and_columns():
    A = J_o @ J_o.T
    B = 3 * A + torch.arange(V)[:, None] - 2 * torch.arange(V)
    torch.testing.assert_close(K.cka(A, B), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(K.cka(A, -A), torch.tensor(-1.0, dtype=torch.float64))
    H = torch.eye(V, dtype=torch.float64) - 1 / V
    C = tangents(3, rows=V, columns=V)
    left, right = H @ A @ H, H @ C @ H
    torch.testing.assert_close(K.cka(A, C), (left * right).sum() / (left.norm() * right.norm()))
    assert K.cka(A, C) < 0.99


def test_relative_error_broadcasts_over_draws():
    exact = K.entk(J_o, J_u)
    assert K.relative_error(torch.stack([exact, 2 * exact, 0 * exact]), exact).tolist() == pytest.approx([0, 1, 1])


def test_misuse_is_refused_by_name():
    with pytest.raises(ValueError, match=r"expected \(\.\.\., V, d\) twice"):
        K.entk(J_o, J_u[:, 1:])
    with pytest.raises(ValueError, match=r"expected \(P, 8\)"):
        K.projected_entk(J_o, J_u, torch.zeros(8))
    with pytest.raises(ValueError, match="must increase"):
        K.prefix_kernels(torch.zeros(4, V), torch.zeros(4, V), [2, 1])
    with pytest.raises(ValueError, match=r"within 1\.\.4"):
        K.prefix_kernels(torch.zeros(4, V), torch.zeros(4, V), [5])
    with pytest.raises(ValueError, match="chunk=0 must"):
        K.project(J_o, D.gaussian, 3, generator=D.generator(0), chunk=0)
    with pytest.raises(ValueError, match="Jacobian is zero"):
        K.alignment(J_o, 0 * J_u)


def test_estimates_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 3"):
        K.estimate_alignment(J_o[:2], J_o[:2])
    with pytest.raises(ValueError, match="same number"):
        K.estimate_alignment(J_o, J_u)
    with pytest.raises(ValueError, match="all projections of an input are zero"):
        K.estimate_alignment(0 * J_o, J_o)
    for constant in (torch.full((3, 3), 0.1), 0.1 * torch.arange(3.0)[:, None] + 0.7 * torch.arange(3.0)):
        with pytest.raises(ValueError, match="zero after centring"):
            K.cka(constant, torch.eye(3))


X = tangents(4, rows=5, columns=4)


def test_nzk_equals_the_finite_differences_of_the_paper():
    pair = D.Pair(law=D.uniform, shared=0.4, sigma_z=1.7, sigma_zeta=0.6, mean_z=0.3, mean_zeta=-0.8)
    zeta, z = pair.sample(3, 4, generator=D.generator(7), dtype=torch.float64)
    torch.testing.assert_close(K.nzk(X, zeta, z), reference.nzk(X, zeta, z))


def test_a_single_draw_has_rank_one_and_is_symmetric_only_if_shared():
    for shared in (0.0, 1.0):
        kernel = K.nzk(X, *D.Pair(law=D.gaussian, shared=shared).sample(1, 4, generator=D.generator(8), dtype=X.dtype))
        assert torch.linalg.matrix_rank(kernel) == 1
        assert torch.allclose(kernel, kernel.T) == (shared == 1)


def test_identical_directions_give_the_projected_kernel_times_their_length():
    z = D.gaussian.sample(1, 4, generator=D.generator(9), dtype=X.dtype)
    torch.testing.assert_close(K.nzk(X, z, z), z.square().sum() * K.projected_entk(X, X, z))


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_sampled_nzk_is_the_mean_and_its_standard_error_over_draws(chunk):
    pair = D.Pair(law=D.rademacher, shared=0.5, mean_z=0.2)
    if chunk == 1000:  # one chunk: the same draws
        zeta, z = pair.sample(50, 4, generator=D.generator(3), dtype=X.dtype)
        each = torch.stack([K.nzk(X, a[None], b[None]) for a, b in zip(zeta, z, strict=True)])
        mean, sem = K.sampled_nzk(X, pair, 50, generator=D.generator(3), chunk=chunk)
        torch.testing.assert_close(mean, each.mean(0))
        torch.testing.assert_close(sem, each.std(0) / 50**0.5)
    mean, sem = K.sampled_nzk(X, pair, 4000, generator=D.generator(5), chunk=chunk)
    assert ((mean - theory.expected_nzk(X, pair)).abs() < 5 * sem).all()


@pytest.mark.parametrize("shared", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("rows", [2, 7])
def test_gaussian_draws_in_the_span_have_the_law_that_they_have_in_all_dimensions(rows, shared):
    pair = D.Pair(law=D.gaussian, shared=shared, sigma_z=0.7, sigma_zeta=1.3)
    X = tangents(11, rows=rows)
    n = 200_000
    zeta, z = pair.sample(n, d, generator=D.generator(12), dtype=X.dtype)
    inner = (zeta * z).sum(1)
    # The standard error gives back the second moments of one draw's entries.
    mean, sem = K.sampled_nzk(X, pair, n, generator=D.generator(13))
    square = sem.square() * (n - 1) + mean.square()
    draws = ((zeta @ X.T) * inner[:, None])[:, :, None] * (z @ X.T)[:, None]
    for found, samples in ((mean, draws), (square, draws.square())):
        spread = samples.std(0) * (2 / n) ** 0.5  # both are sampled
        assert ((found - samples.mean(0)).abs() < 5 * spread).all()
    # Without what lies beyond the span the second moments are too small to pass.
    zeta, z = pair.sample(n, rows, generator=D.generator(14), dtype=X.dtype)
    S = in_span(X)
    short = (((zeta @ S.T) * (zeta * z).sum(1, keepdim=True)).square().T @ (z @ S.T).square()) / n
    assert ((short - square) < -5 * spread).any()


def test_inner_products_beyond_the_span_are_those_of_gaussian_pairs():
    for shared, k in ((0.0, 1), (0.6, 3), (1.0, 40)):
        pair = D.Pair(law=D.gaussian, shared=shared, sigma_z=2.0, sigma_zeta=0.5)
        zeta, z = pair.sample(20_000, k, generator=D.generator(15), dtype=torch.float64)
        plain = (zeta * z).sum(1).numpy()
        ours = K._inner_products(pair, 20_000, k, D.generator(16)).numpy()
        assert stats.ks_2samp(ours, plain).pvalue > 1e-4
        wrong = K._inner_products(pair, 20_000, k + 1, D.generator(16)).numpy()
        assert stats.ks_2samp(wrong, plain).pvalue < 1e-4


def test_a_hundred_thousand_kernels_in_a_million_dimensions_are_drawn_in_the_span_and_reproducible():
    X = torch.zeros(3, 1_000_000)
    X[:, :3] = tangents(17, columns=3)
    pair = D.Pair(law=D.gaussian, shared=1.0)
    mean, sem = K.sampled_nzk(X, pair, 100_000, generator=D.generator(18))  # in all dimensions: 400 GB of numbers
    assert ((mean - theory.expected_nzk(X, pair)).abs() < 5 * sem).all()
    again, _ = K.sampled_nzk(X, copy.deepcopy(pair), 100_000, generator=D.generator(18))
    assert (mean == again).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("columns", [1, 2, 5])  # fewer than tangents, as many, more
def test_sampled_nzk_is_of_the_type_of_its_tangents(dtype, columns):
    few = torch.tensor([[1.0, 0.5, 0.2, 0.3, 0.1], [0.2, 1.0, -0.5, 0.1, 0.4]])[:, :columns].to(dtype)
    mean, sem = K.sampled_nzk(few, D.Pair(law=D.gaussian), 500, generator=D.generator(19))
    assert mean.dtype == sem.dtype == dtype
    assert ((mean.double() - few.double() @ few.double().T).abs() < 6 * sem.double()).all()


@linux_only
@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_sampled_nzk_needs_the_memory_of_a_chunk_only(law):
    setup = "import torch; from zonb import directions as D, kernels as K; X = torch.ones(200, 711)"
    work = f"K.sampled_nzk(X, D.Pair(law=D.{law}), 20_000, generator=D.generator(0))"
    assert extra_memory(setup, work) < 30  # MiB; the draws at once would take 109


def test_nzk_refuses_what_does_not_fit():
    rows = torch.ones(2, 4)
    for zeta, z in ((rows, rows[:1]), (rows[:, :3], rows[:, :3]), (rows[0], rows[0]), (rows[:0], rows[:0])):
        with pytest.raises(ValueError, match=r"expected \(M, d\) twice"):
            K.nzk(X.float(), zeta, z)
    with pytest.raises(ValueError, match="at least 2, for a standard error"):
        K.sampled_nzk(X, D.Pair(law=D.gaussian), 1, generator=D.generator(0))


def test_alignment_and_relative_error_have_the_values_of_a_hand_computation():
    assert K.alignment(torch.eye(4), torch.eye(4)).item() == pytest.approx(0.5)  # 2 / (2 * 2)
    left, right = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    assert K.alignment(left, right).item() == pytest.approx(0.6)
    exact = torch.tensor([[3.0, 0.0], [0.0, 4.0]])  # of norm 5
    estimates = torch.stack([3 * exact, exact + torch.tensor([[0.0, 1.0], [0.0, 0.0]])])
    assert K.relative_error(estimates, exact).tolist() == pytest.approx([2.0, 0.2])


def test_cka_of_two_kernels_is_that_of_their_centred_parts_by_hand():
    # Centred, [[a, b], [c, d]] is (a - b - c + d)/4 times [[1, -1], [-1, 1]], whatever the four are.
    A, B, C = (
        torch.tensor(rows, dtype=torch.float64) for rows in ([[5, 1], [0, 2]], [[9, 8], [2, 3]], [[1, 5], [7, 0]])
    )
    assert K.cka(A, B).item() == pytest.approx(1) and K.cka(A, C).item() == pytest.approx(-1)
