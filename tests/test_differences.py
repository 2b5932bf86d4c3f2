import pytest
import reference
import torch

from zonb import directions as D
from zonb import models, tangents
from zonb.differences import central_difference, default_mu, forward_difference, spsa_gradient


class NoBackward(torch.autograd.Function):
    """A function whose derivative raises: whoever asks for it is found out."""

    @staticmethod
    def forward(ctx, x):
        return x.square().sum()

    @staticmethod
    def backward(ctx, gradient):
        raise AssertionError("a derivative was used")


def test_finite_differences_are_exact_on_the_polynomials_they_should_be():
    theta, u = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([0.5, 3.0], dtype=torch.float64)
    linear, quadratic = (lambda t: t @ u), (lambda t: t @ t)
    assert forward_difference(linear, theta, u, 0.3).item() == pytest.approx((u @ u).item())
    assert central_difference(quadratic, theta, u, 0.3).item() == pytest.approx(2 * (theta @ u).item())
    assert forward_difference(quadratic, theta, u, 0.3).item() != pytest.approx(2 * (theta @ u).item())


def test_spsa_equals_the_twin_and_uses_no_derivative():
    theta = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    us = D.gaussian.sample(4, 3, generator=D.generator(0), dtype=torch.float64)
    ours = spsa_gradient(NoBackward.apply, theta.detach(), us, 1e-3)
    torch.testing.assert_close(ours, reference.spsa_gradient(lambda t: t.square().sum(), theta.detach(), us, 1e-3))
    with pytest.raises(AssertionError, match="a derivative was used"):
        NoBackward.apply(theta).backward()


def test_spsa_takes_the_difference_that_it_is_given():
    theta, u = torch.tensor([1.0, 2.0]).double(), torch.tensor([[1.0, -1.0]]).double()
    one_sided = spsa_gradient(lambda t: t @ t, theta, u, 0.5, difference=forward_difference)
    torch.testing.assert_close(one_sided, (2 * (theta @ u[0]) + 0.5 * 2) * u[0])  # mu |u|^2 more than the slope


def test_default_mu_is_that_of_the_coarsest_type():
    fine, coarse = torch.ones(3), torch.ones(3).bfloat16()
    assert default_mu([fine, coarse]) == default_mu([coarse, coarse]) > 10 * default_mu([fine, fine])


def test_spsa_is_unbiased_with_second_moment_of_the_law():
    theta = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    gradient, d, P, n = 2 * theta, 4, 2, 20_000
    us = D.gaussian.sample(n * P, d, generator=D.generator(1), dtype=torch.float64).view(n, P, d)
    estimates = torch.einsum("npi,npj,j->ni", us, us, gradient) / P
    torch.testing.assert_close(spsa_gradient(lambda t: t @ t, theta, us[0], 1e-3), estimates[0], rtol=1e-8, atol=1e-8)
    sem = estimates.std(0) / n**0.5
    assert ((estimates.mean(0) - gradient).abs() < 5 * sem).all()
    squares = estimates.square().sum(1) / gradient.square().sum()
    law, wrong = (P + d + 1) / P, (P + d) / P
    assert abs(squares.mean() - law) < 5 * squares.std() / n**0.5 < abs(squares.mean() - wrong)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("two_sided", [True, False])
def test_default_mu_is_within_ten_times_of_the_best(dtype, two_sided):
    model = models.lenet(seed=3).double()
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64, generator=D.generator(0))
    difference = central_difference if two_sided else forward_difference
    theta = tangents.parameter_vector(model)
    f = tangents.as_function(models.lenet(seed=3).to(dtype), x[:1].to(dtype))
    us = D.gaussian.sample(8, theta.numel(), generator=D.generator(4), dtype=torch.float64)
    exact = torch.stack([tangents.jvp(model, x[:1], u) for u in us])

    def error(mu):
        found = torch.stack([difference(f, theta.to(dtype), u.to(dtype), mu) for u in us])
        return (found.double() - exact).norm()

    with torch.no_grad():
        best = min(error(10.0**e) for e in torch.arange(-12, 0, 0.5).tolist())
        assert error(default_mu(theta.to(dtype), two_sided=two_sided)) < 10 * best
        assert error(1e-1) > 10 * best


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (4,), ()])
def test_directions_of_another_shape_are_refused(shape):
    theta, u = torch.zeros(3), torch.zeros(shape)
    for difference in (central_difference, forward_difference):
        with pytest.raises(ValueError, match="the direction has shape"):
            difference(lambda t: t.sum(), theta, u, 0.1)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (2, 1)])
def test_sets_of_directions_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="direction"):
        spsa_gradient(lambda t: t.sum(), torch.zeros(3), torch.zeros(shape), 0.1)


@pytest.mark.parametrize("mu", [0.0, -1e-3, float("nan")])
def test_a_radius_that_is_not_positive_is_refused(mu):
    with pytest.raises(ValueError, match=r"mu=.* must be above 0"):
        central_difference(lambda t: t.sum(), torch.zeros(2), torch.zeros(2), mu)


def test_parameters_that_are_all_zero_set_no_radius():
    with pytest.raises(ValueError, match="sets no scale"):
        default_mu(torch.zeros(3))
