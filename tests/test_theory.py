import copy
import dataclasses
import math
import pickle

import pytest
import reference
import torch
from scipy.stats import chi2
from sklearn.random_projection import johnson_lindenstrauss_min_dim
from test_kernels import J_o, J_u, d

from zonb import directions as D
from zonb import theory
from zonb.kernels import alignment, entk, sampled_nzk

LOGITS = torch.tensor([0.3, -1.2, 2.0, 0.1], dtype=torch.float64)


def test_a_is_the_derivative_of_log_softmax_and_a_projection():
    A = theory.log_softmax_jacobian(LOGITS)
    torch.testing.assert_close(A, reference.log_softmax_jacobian(LOGITS))
    torch.testing.assert_close(A @ A, A)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_norm_of_a_is_root_v_times_norm_of_pi(scale):
    pi = torch.softmax(scale * LOGITS, -1)
    norm = torch.linalg.matrix_norm(theory.log_softmax_jacobian(scale * LOGITS), ord=2)
    torch.testing.assert_close(norm, 2 * pi.norm())
    assert norm <= 1 + 1e-12 if scale == 0 else norm > 1.1  # the paper's "at most 1" holds for uniform pi only


def test_batched_a_is_a_of_each():
    torch.testing.assert_close(
        theory.log_softmax_jacobian(torch.stack([LOGITS, 2 * LOGITS]))[1], theory.log_softmax_jacobian(2 * LOGITS)
    )


COPIES = [copy.deepcopy, lambda law: pickle.loads(pickle.dumps(law)), dataclasses.replace]


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle", "replace"])
@pytest.mark.parametrize("law", [D.gaussian, D.laplace, D.sphere, D.orthonormal], ids=str)
def test_a_copied_law_has_the_same_formulas(law, copied):
    other = copied(law)
    assert other is not law and other == law
    torch.testing.assert_close(theory.error_law(J_o, J_u, 3, other), theory.error_law(J_o, J_u, 3, law))
    assert theory.gradient_second_moment(9, 3, other) == theory.gradient_second_moment(9, 3, law)
    if law != D.orthonormal:
        C = torch.outer(F0 - Y, F0 - Y)
        after = [theory.second_moment_step(C, X, 0.1, 2, one) for one in (law, other)]
        assert torch.equal(*after)


@pytest.mark.parametrize("label", range(4))
def test_g_is_the_gradient_of_the_cross_entropy(label):
    z = LOGITS.clone().requires_grad_()
    torch.nn.functional.cross_entropy(z, torch.tensor(label)).backward()
    torch.testing.assert_close(theory.cross_entropy_gradient(LOGITS, label), z.grad)


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_out_of_range_are_refused(label):
    with pytest.raises(ValueError, match=r"must be in 0\.\.3"):
        theory.cross_entropy_gradient(LOGITS, label)


@pytest.mark.parametrize("law", [D.gaussian, D.rademacher, D.uniform, D.laplace], ids=lambda law: law.name)
@pytest.mark.parametrize("P", [1, 4])
def test_error_law_equals_the_sum_over_index_quadruples(law, P):
    torch.testing.assert_close(theory.error_law(J_o, J_u, P, law), reference.error_law(J_o, J_u, P, law.kappa))


def test_error_law_of_orthonormal_directions_vanishes_at_full_dimension():
    assert abs(theory.error_law(J_o, J_u, d, D.orthonormal)) < 1e-9 * entk(J_o, J_u).square().sum()
    assert theory.error_law(J_o, J_u, d - 1, D.orthonormal) > 0


def test_one_orthonormal_direction_is_one_on_the_sphere():
    torch.testing.assert_close(theory.error_law(J_o, J_u, 1, D.orthonormal), theory.error_law(J_o, J_u, 1, D.sphere))


def test_relative_error_is_the_gaussian_law_over_the_kernel():
    law = theory.error_law(J_o, J_u, 7, D.gaussian).sqrt() / entk(J_o, J_u).norm()
    torch.testing.assert_close(theory.relative_rms_error(alignment(J_o, J_u), torch.tensor(7)), law)


def test_error_law_is_refused_where_none_is_known():
    with pytest.raises(ValueError, match="at least 1"):
        theory.error_law(J_o, J_u, 0, D.gaussian)
    with pytest.raises(ValueError, match=f"P={d + 1} orthonormal directions do not fit"):
        theory.error_law(J_o, J_u, d + 1, D.orthonormal)
    with pytest.raises(ValueError, match="P=5 orthonormal directions do not fit"):
        theory.gradient_second_moment(4, 5, D.orthonormal)
    with pytest.raises(ValueError, match="one pair"):
        theory.error_law(J_o[None], J_u[None], 1, D.gaussian)
    with pytest.raises(ValueError, match="no second moment is known for odd"):
        theory.gradient_second_moment(4, 1, D.Law("odd", None, True, D.gaussian._draw))
    with pytest.raises(ValueError, match="no error law is known for odd"):
        theory.error_law(J_o, J_u, 1, D.Law("odd", None, True, D.gaussian._draw))


@pytest.mark.parametrize("rho, tol", [(1.0, 0.5), (0.274, 0.338), (0.03, 0.1)])
def test_perturbations_needed_is_the_least_number_that_reaches_the_tolerance(rho, tol):
    P = theory.perturbations_needed(rho, tol)
    reached = theory.relative_rms_error(torch.tensor(rho, dtype=torch.float64), torch.tensor([P, P - 1]))
    assert reached[0] <= tol * (1 + 1e-12) and reached[1] > tol


@pytest.mark.parametrize("n, eps, delta", [(20, 0.5, 0.1), (2, 0.99, 1), (100_544, 0.01, 1e-6)])
def test_jl_dimension_is_the_least_number_that_the_union_bound_allows(n, eps, delta):
    P = theory.jl_dimension(n, eps, delta)
    failures = [n**2 * math.exp(-count * theory.jl_exponent(eps)) for count in (P, P - 1)]
    assert failures[0] <= delta * (1 + 1e-9) and failures[1] > delta


@pytest.mark.parametrize("n, eps", [(20, 0.5), (1000, 0.1), (5, 0.9)])
def test_jl_dimension_without_a_margin_is_scikit_learns(n, eps):
    theirs = int(johnson_lindenstrauss_min_dim(n, eps=eps))  # rounded down
    assert theory.jl_dimension(n, eps, 1) in (theirs, theirs + 1)


@pytest.mark.parametrize("P", [130, 500, 10**6, 10**12])
def test_jl_epsilon_inverts_the_dimension(P):
    eps = theory.jl_epsilon(P, 20, 0.1)
    assert theory.jl_dimension(20, eps * 1.0001, 0.1) <= P < theory.jl_dimension(20, eps * 0.99, 0.1)


def test_jl_epsilon_is_infinite_where_the_lemma_grants_nothing():
    least = theory.jl_dimension(20, 1 - 1e-9, 0.1)
    assert theory.jl_epsilon(least + 1, 20, 0.1) < 1 and theory.jl_epsilon(least - 1, 20, 0.1) == math.inf


@pytest.mark.parametrize("eps, P", [(0.9, 100), (0.5, 400), (0.1, 100_000)])
def test_jl_exponent_bounds_the_exact_tail_and_a_quarter_of_eps_squared_does_not(eps, P):
    exact = chi2.sf(P * (1 + eps), P)
    assert math.exp(-P * eps**2 / 4) < exact <= math.exp(-P * theory.jl_exponent(eps))
    assert chi2.cdf(P * (1 - eps), P) <= math.exp(-P * theory.jl_exponent(eps))


@pytest.mark.parametrize("law", [D.gaussian, D.rademacher, D.uniform])
@pytest.mark.parametrize("upper", [True, False])
def test_jl_exponent_bounds_both_tails_of_each_law(law, upper):
    eps, P, n = 0.5, 10, 100_000
    w = torch.full((4,), 0.5)
    u = law.sample(n * P, 4, generator=D.generator(5))
    lengths = (u @ w).view(n, P).square().mean(1)
    share = (lengths >= 1 + eps if upper else lengths <= 1 - eps).double().mean().item()
    sem = max((share / n) ** 0.5, 1 / n)
    assert share <= math.exp(-P * theory.jl_exponent(eps)) + 5 * sem
    assert share > math.exp(-P * 8 * theory.jl_exponent(eps)) + 5 * sem


def test_eq15_asks_for_more_than_the_law_from_three_outputs_on():
    for V in (3, 10, 50_272):
        for rho in (0.01, 0.3, 1.0):
            assert theory.eq15_perturbations(V, rho, 0.1) > theory.perturbations_needed(rho, 0.1)
    assert theory.eq15_perturbations(2, 1, 0.1) < theory.perturbations_needed(1, 0.1)


def test_error_law_is_never_negative():
    J = torch.tensor([[0.1], [0.7]], dtype=torch.float32)
    for scale in torch.linspace(0.1, 3, 200):
        for law in (D.rademacher, D.sphere):
            assert theory.error_law(J, scale * J, 1, law) >= 0


@pytest.mark.parametrize("law", [D.gaussian, D.rademacher, D.uniform, D.laplace, D.sphere, D.orthonormal])
@pytest.mark.parametrize("P", [1, 3])
def test_second_moment_of_the_gradient_is_the_formulas_and_no_neighbours(law, P):
    n, g = 20_000, torch.tensor([1.0, -2.0, 0.5, 0.3], dtype=torch.float64)
    generator = D.generator(6, P)
    if law.independent:
        u = law.sample(n * P, 4, generator=generator, dtype=torch.float64).view(n, P, 4)
    else:
        u = torch.stack([law.sample(P, 4, generator=generator, dtype=torch.float64) for _ in range(n)])
    square = torch.einsum("np,npk->nk", u @ g, u).div(P).square().sum(1) / g.square().sum()
    sem = max(square.std().item() / n**0.5, 1e-12)
    expected = theory.gradient_second_moment(4, P, law)
    assert abs(square.mean() - expected) < 5 * sem
    wrong = {1.5 * expected, 4 / P, 1 + 3 / P} - {expected}
    for value in wrong if P > 1 else {1.5 * expected}:
        assert abs(square.mean() - value) > 5 * sem


@pytest.mark.parametrize(
    "call",
    [
        lambda: theory.perturbations_needed(0, 0.1),
        lambda: theory.perturbations_needed(1.1, 0.1),
        lambda: theory.perturbations_needed(0.5, 0),
        lambda: theory.jl_exponent(1),
        lambda: theory.jl_dimension(1, 0.5, 0.1),
        lambda: theory.jl_dimension(20, 0.5, 0),
        lambda: theory.jl_epsilon(0, 20, 0.1),
        lambda: theory.eq15_perturbations(1, 0.5, 0.1),
        lambda: theory.eq15_perturbations(10, 0.5, -1),
        lambda: theory.gradient_second_moment(0, 1, D.gaussian),
        lambda: theory.perturbations_needed(math.nan, 0.1),
        lambda: theory.perturbations_needed(0.5, math.inf),
        lambda: theory.jl_exponent(math.nan),
        lambda: theory.jl_dimension(math.nan, 0.5, 0.1),
        lambda: theory.jl_epsilon(100, 20, math.nan),
        lambda: theory.eq15_perturbations(10, math.nan, 0.1),
        lambda: theory.gradient_second_moment(4, 1.5, D.gaussian),
    ],
)
def test_arguments_out_of_range_are_refused_with_the_range(call):
    with pytest.raises(ValueError, match="must be"):
        call()


X = torch.cat([J_u, J_o[:2] - 0.5])[:, :4]  # (6, 4): more inputs than dimensions, so that kernels are singular
N = len(X)
PAIRS = [
    D.Pair(law=D.gaussian, sigma_z=1.3, sigma_zeta=0.7, mean_z=0.4, mean_zeta=-0.6),
    D.Pair(law=D.laplace, shared=1.0, sigma_z=1.3, sigma_zeta=1.3),
    D.Pair(law=D.rademacher, shared=1.0, sigma_z=0.8, sigma_zeta=1.2, mean_z=0.4, mean_zeta=0.9),
    D.Pair(law=D.sphere, shared=0.6, mean_z=0.5),
    D.Pair(law=D.uniform, shared=0.3, sigma_z=2.0, mean_zeta=0.5),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.law.name}-{pair.shared}")
def test_expected_nzk_is_the_mean_of_sampled_ones(pair):
    mean, sem = sampled_nzk(X, pair, 200_000, generator=D.generator(11))
    expected = theory.expected_nzk(X, pair)
    assert ((mean - expected).abs() / sem).max() < 5
    for wrong in (
        dataclasses.replace(pair, sigma_z=pair.sigma_z * 1.05),
        dataclasses.replace(pair, shared=abs(pair.shared - 0.1)),
        dataclasses.replace(pair, mean_zeta=pair.mean_zeta + 0.3, mean_z=pair.mean_z + 0.3),
    ):
        assert ((mean - theory.expected_nzk(X, wrong)).abs() / sem).max() > 5


def test_theorem_1_term_by_term():
    pair, K, s = PAIRS[0], X @ X.T, X.sum(1)
    a, b, m, n = 0.7**2, 1.3**2, (-0.6) ** 2, 0.4**2
    torch.testing.assert_close(
        theory.expected_nzk(X, pair), a * b * K + (a * n + m * b + 4 * m * n) * torch.outer(s, s)
    )


@pytest.mark.parametrize("law", [D.gaussian, D.rademacher, D.laplace, D.uniform, D.student_t(7)], ids=lambda x: x.name)
def test_corollary_2_is_the_variance_of_the_square_plus_d(law):
    pair = D.Pair(law=law, shared=1.0, sigma_z=1.5, sigma_zeta=1.5)
    variance = (law.kappa - 1) * 1.5**4
    torch.testing.assert_close(theory.expected_nzk(X, pair), (variance + 4 * 1.5**4) * (X @ X.T))


KERNEL, Y, F0 = X @ X.T, torch.linspace(-1, 2, N, dtype=torch.float64), torch.linspace(1, 0.5, N, dtype=torch.float64)
ETA = 0.9 * theory.stable_step(KERNEL, math.inf)


def test_evolution_is_the_loop_at_every_step():
    steps = [0, 1, 2, 7, 300]
    loop = reference.evolve(KERNEL, F0, Y, ETA, 300)[steps]
    torch.testing.assert_close(theory.evolve(KERNEL, F0, Y, ETA, steps), loop, rtol=1e-11, atol=1e-11)
    losses = (loop - Y).square().sum(1) / (2 * N)
    torch.testing.assert_close(theory.loss_of_mean(KERNEL, F0, Y, ETA, steps), losses, rtol=1e-10, atol=0)


def test_steps_compose_and_none_changes_nothing():
    half = theory.evolve(KERNEL, F0, Y, ETA, [50])[0]
    torch.testing.assert_close(
        theory.evolve(KERNEL, half, Y, ETA, [0, 50]), theory.evolve(KERNEL, F0, Y, ETA, [50, 100])
    )
    torch.testing.assert_close(theory.evolve(KERNEL, F0, Y, ETA, [0])[0], F0)


def test_the_limit_is_the_projection_on_the_range_and_not_the_target():
    Q = torch.linalg.qr(X).Q
    limit = theory.evolve(KERNEL, F0, Y, ETA, [10**7])[0]
    torch.testing.assert_close(limit, Y + (F0 - Y) - Q @ (Q.T @ (F0 - Y)), rtol=1e-6, atol=1e-6)
    assert (limit - Y).norm() > 0.1


def test_beyond_two_it_grows_although_one_minus_is_below_one():
    grown = theory.loss_of_mean(KERNEL, F0, Y, theory.stable_step(KERNEL, math.inf) * 1.1, [0, 400])
    assert grown[1] > 10 * grown[0]


@pytest.mark.parametrize("P", [1, 2])
def test_second_moment_step_equals_the_enumeration_over_signs(P):
    C = torch.outer(F0 - Y, F0 - Y) + 0.3 * KERNEL
    exact = reference.second_moment_over_signs(C, X, 0.3, P)
    torch.testing.assert_close(theory.second_moment_step(C, X, 0.3, P, D.rademacher), exact)
    assert not torch.allclose(theory.second_moment_step(C, X, 0.3, P, D.gaussian), exact, rtol=1e-2)


@pytest.mark.parametrize("law", [D.gaussian, D.laplace, D.sphere], ids=lambda law: law.name)
def test_second_moment_step_agrees_with_simulation(law):
    n, P, eta = 100_000, 3, 0.2
    U = law.sample(n * P, 4, generator=D.generator(12), dtype=torch.float64).view(n, P, 4) @ X.T  # X u
    r = F0 - Y
    after = r - eta / N * torch.einsum("npi,npj,j->ni", U, U, r) / P
    products = after[:, :, None] * after[:, None]
    mean, sem = products.mean(0), products.std(0) / n**0.5
    C = torch.outer(r, r)
    assert ((mean - theory.second_moment_step(C, X, eta, P, law)).abs() / sem).max() < 5
    for wrong in (theory.second_moment_step(C, X, eta, P, D.rademacher), theory.second_moment_step(C, X, eta, 4, law)):
        assert ((mean - wrong).abs() / sem).max() > 5


def test_mean_loss_is_the_trace_of_the_recursion():
    C, eta, P = torch.outer(F0 - Y, F0 - Y), 0.05, 2
    losses = [C.trace() / (2 * N)]
    for _ in range(40):
        C = theory.second_moment_step(C, X, eta, P, D.gaussian)
        losses.append(C.trace() / (2 * N))
    torch.testing.assert_close(theory.mean_loss(KERNEL, F0, Y, eta, P, range(41)), torch.stack(losses))


def test_many_directions_make_the_mean_loss_the_loss_of_the_mean():
    steps = [0, 10, 1000]
    many = theory.mean_loss(KERNEL, F0, Y, 0.05, 10**9, steps)
    torch.testing.assert_close(many, theory.loss_of_mean(KERNEL, F0, Y, 0.05, steps), rtol=1e-6, atol=0)
    assert theory.mean_loss(KERNEL, F0, Y, 0.05, 1, [10]) > 1.02 * many[1]


@pytest.mark.parametrize("P", [1, 3, 50])
def test_the_stable_step_divides_shrinking_from_growing(P):
    edge, reached = theory.stable_step(KERNEL, P), X @ torch.ones(4, dtype=torch.float64)
    for factor, grows in ((0.99, False), (1.01, True)):
        late = theory.mean_loss(KERNEL, reached, torch.zeros(N), factor * edge, P, [1000, 2000])
        assert bool(late[1] > late[0]) == grows
    values = torch.linalg.eigvalsh(KERNEL / N)
    bound = 2 / (values.max() * (1 + 1 / P) + values.sum() / P)
    assert bound < edge < theory.stable_step(KERNEL, math.inf)


def test_the_bound_on_the_stable_step_is_met_by_equal_eigenvalues():
    for P in (1, 7):
        assert theory.stable_step(torch.eye(5), P) == pytest.approx(5 * 2 / (1 + 1 / P + 5 / P))


@pytest.mark.parametrize("P", [1, 2.5, 10, 1000, 10**9, 1e18])
def test_the_stable_step_is_the_root_that_bisection_finds(P):
    generator = D.generator(13)
    spectra = [torch.ones(5), torch.tensor([1.0]), torch.tensor([1.0, 1 - 1e-15, 1e-9]), 1 / torch.arange(1, 41) ** 2]
    spectra += [
        torch.ones(3000),
        torch.tensor([3e200, 1e200], dtype=torch.float64),
        torch.rand(30, generator=generator) ** 4,
    ]
    for values in spectra:
        values = values.double()
        kernel = len(values) * torch.diag(values)
        assert theory.stable_step(kernel, P) == pytest.approx(reference.stable_step(values, P), rel=1e-12)
    assert theory.stable_step(KERNEL, 1.001) != pytest.approx(theory.stable_step(KERNEL, 1), rel=1e-6)
    assert theory.stable_step(KERNEL, P) < theory.stable_step(KERNEL, math.inf) or P == 1e18


def test_the_secular_step_makes_the_largest_eigenvalue_of_the_recursion_one():
    values = torch.tensor([1.0, 0.4, 0.1, 0.0]).double()
    for alpha, beta in ((1.5, 0.5), (2.0, 1.0), (1.0, 3.0)):
        a = theory.secular_step(values, alpha, beta)

        def largest(a, alpha=alpha, beta=beta):
            lam = values[:3]
            own = torch.diag(1 - 2 * a * lam + alpha * a**2 * lam**2)
            return torch.linalg.eigvalsh(own + beta * a**2 * torch.outer(lam, lam))[-1].item()

        assert largest(a) == pytest.approx(1, abs=1e-12) and largest(0.99 * a) < 1 < largest(1.01 * a)
    assert theory.secular_step(values, 1.5, 0.0) == 2 / 1.5


def test_effective_rank_lies_between_one_and_the_rank():
    assert theory.effective_rank(torch.outer(Y, Y)) == pytest.approx(1)
    assert 1 < theory.effective_rank(KERNEL) < 4
    assert theory.effective_rank(torch.eye(7)) == pytest.approx(7)


def test_function_space_refuses_what_it_cannot_do():
    lopsided = KERNEL.clone()
    lopsided[0, 1] += 1
    with pytest.raises(ValueError, match="K is not symmetric"):
        theory.evolve(lopsided, F0, Y, 0.1, [1])
    with pytest.raises(ValueError, match=r"expected \(N, N\)"):
        theory.effective_rank(KERNEL[:2])
    for steps in ([], [-1], [[1]]):
        with pytest.raises(ValueError, match="whole numbers of at least 0"):
            theory.evolve(KERNEL, F0, Y, 0.1, steps)
    with pytest.raises(ValueError, match="no second-moment recursion is known for orthonormal"):
        theory.second_moment_step(KERNEL, X, 0.1, 2, D.orthonormal)
    with pytest.raises(ValueError, match=r"P=0\.5 must be at least 1"):
        theory.stable_step(KERNEL, 0.5)
    for function in (
        lambda: theory.stable_step(torch.zeros(2, 2), 1),
        lambda: theory.effective_rank(torch.zeros(2, 2)),
    ):
        with pytest.raises(ValueError, match="no positive eigenvalue"):
            function()


def test_sums_of_powers_are_those_of_a_loop_for_any_steps():
    K, f, y = torch.diag(torch.tensor([2.0, 6.0])).double(), torch.tensor([1.0, 0.5]).double(), torch.zeros(2).double()
    for eta in (0.1, 0.5):  # a base of either sign
        for steps in ([700, 3, 3, 0, 255, 256, 257], torch.tensor([1, 100], dtype=torch.uint8)):
            naive = [sum(((1 - eta * k / 2) ** int(t) * c) ** 2 for k, c in ((2, 1.0), (6, 0.5))) / 4 for t in steps]
            found = theory.loss_of_mean(K, f, y, eta, steps)
            torch.testing.assert_close(found, torch.tensor(naive, dtype=torch.float64), rtol=1e-12, atol=0)
    huge = theory.loss_of_mean(K, f, y, 1e-9, torch.tensor([1_500_000_000], dtype=torch.int32)).item()
    assert huge == pytest.approx((math.exp(-3) + 0.25 * math.exp(-9)) / 4, rel=1e-6)


def test_a_mode_that_diverges_unseen_adds_nothing():
    K, f = torch.diag(torch.tensor([2.0, 6.0])).double(), torch.tensor([1.0, 0.0]).double()
    assert theory.loss_of_mean(K, f, 0 * f, 1.1, [800, 2000]).tolist() == pytest.approx([0, 0], abs=1e-300)


@pytest.mark.parametrize("steps", [[0.5], [-1], [], [[1]], [float("inf")]])
def test_steps_that_are_no_whole_numbers_are_refused(steps):
    with pytest.raises(ValueError, match="whole numbers"):
        theory.loss_of_mean(torch.eye(2), torch.ones(2), torch.zeros(2), 0.1, steps)


CIRCLE = 2**0.5 * torch.stack(
    [torch.tensor([math.cos(a), math.sin(a)]).double() for a in math.pi / 4 * torch.arange(8)]
)


def test_formulas_on_the_circle_are_means_over_eight_of_its_directions():
    # The mean of a polynomial of degree 4 over the circle is that over eight equal steps.
    A, B, C = J_o[:, :2], J_u[:, :2], torch.outer(F0 - Y, F0 - Y)
    errors = [(A @ torch.outer(u, u) @ B.T - A @ B.T).square().sum() for u in CIRCLE]
    torch.testing.assert_close(theory.error_law(A, B, 1, D.sphere), sum(errors) / 8)
    torch.testing.assert_close(theory.error_law(A, B, 5, D.sphere), sum(errors) / 40)
    g = A[0]
    lengths = [((u @ g) * u).square().sum() / g.square().sum() for u in CIRCLE]
    assert theory.gradient_second_moment(2, 1, D.sphere) == pytest.approx((sum(lengths) / 8).item())
    tangents = X[:, :2]
    steps = [torch.eye(N) - 0.3 / N * torch.outer(tangents @ u, tangents @ u) for u in CIRCLE]
    exact = sum(step @ C @ step.T for step in steps) / 8
    torch.testing.assert_close(theory.second_moment_step(C, tangents, 0.3, 1, D.sphere), exact)


def test_numbers_of_perturbations_are_those_of_a_hand_computation():
    assert theory.perturbations_needed(0.5, 0.5) == 20  # (1 + 4) * 4
    assert theory.eq15_perturbations(10, 0.25, 0.2) == 9211  # 23.02585 / 0.05^2 = 9210.3
    assert theory.eq15_perturbations(2, 1.0, 1.0) == 2  # 1.386
    assert theory.jl_exponent(0.6) == pytest.approx(0.09 - 0.036)


def test_effective_rank_is_the_trace_over_the_largest_eigenvalue_in_any_basis():
    Q = torch.linalg.qr(tangents_of(6)).Q
    for values, rank in (([4.0, 2.0, 2.0, 0.0, 0.0, 0.0], 2.0), ([5.0, 4.0, 3.0, 2.0, 1.0, 0.5], 3.1)):
        kernel = Q @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ Q.T
        assert theory.effective_rank((kernel + kernel.T) / 2) == pytest.approx(rank)


def tangents_of(n):
    return D.gaussian.sample(n, n, generator=D.generator(21), dtype=torch.float64)


def test_one_mode_shrinks_by_the_numbers_of_a_hand_computation():
    # K/N = 2 on one of two inputs, eta = 0.3, P = 4: a step keeps 1 - 0.6 of the residual,
    # and of its mean square (1 - 0.6)^2 + 2 * 0.6^2 / 4 = 0.34.
    K, f, y = torch.diag(torch.tensor([4.0, 0.0])).double(), torch.tensor([3.0, 1.0]).double(), torch.zeros(2).double()
    still = 1 / 4
    mean = [9 / 4 * 0.4 ** (2 * t) + still for t in range(4)]
    torch.testing.assert_close(theory.loss_of_mean(K, f, y, 0.3, range(4)), torch.tensor(mean).double())
    square = [9 / 4 * 0.34**t + still for t in range(4)]
    torch.testing.assert_close(theory.mean_loss(K, f, y, 0.3, 4, range(4)), torch.tensor(square).double())
    torch.testing.assert_close(theory.evolve(K, f, y, 0.3, [2])[0], torch.tensor([3 * 0.16, 1.0]).double())
    assert theory.stable_step(K, 4) == pytest.approx(2 / (2 * 1.5))  # (1 - x)^2 + x^2 / 2 = 1 at x = 4/3


def test_the_stable_step_of_two_modes_solves_its_equation():
    values, P = (3.0, 1.0), 2
    eta = theory.stable_step(2 * torch.diag(torch.tensor(values)).double(), P)
    # 1 = (eta/P) sum of l/(2 - 1.5 eta l), as a polynomial: of its two roots the smaller one.
    # (2 - 4.5 e)(2 - 1.5 e) = (e/2)(3(2 - 1.5 e) + (2 - 4.5 e)): 11.25 e^2 - 16 e + 4 = 0.
    assert eta == pytest.approx((16 - math.sqrt(256 - 180)) / 22.5)
