import copy
import math

import pytest
import reference
import torch
from conftest import extra_memory, linux_only
from torch import nn

from zonb import differences, models
from zonb import directions as D
from zonb import tangents as T


@pytest.fixture(scope="module")
def network():
    model = models.lenet(seed=3).double()
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64, generator=D.generator(0))
    return model, x


@pytest.mark.parametrize("shape", [(1, 2), (3, 4), (5, 1)])
def test_jacobian_equals_the_twin(shape):
    torch.manual_seed(0)
    N, V = shape
    model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, V)).double()
    x = torch.rand(N, 7, dtype=torch.float64, generator=D.generator(1))
    torch.testing.assert_close(T.jacobian(model, x), reference.jacobian(model, x))


def test_jacobian_of_the_lenet_equals_the_twin(network):
    torch.testing.assert_close(T.jacobian(*network), reference.jacobian(*network))


def test_unused_parameters_have_zero_tangents():
    model = nn.Linear(2, 1)
    model.unused = nn.Parameter(torch.ones(3))
    assert T.jacobian(model, torch.ones(1, 2))[0, 0].tolist() == [1, 1, 1, 0, 0, 0]


class Tied(nn.Module):
    """A layer whose weights are read once more, behind its back."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(torch.tanh(nn.functional.linear(self.first(x), self.first.weight)))


class Twice(Tied):
    """A layer that acts twice."""

    def forward(self, x):
        return self.last(torch.tanh(self.first(self.first(x))))


class Odd(Tied):
    """A layer called by keyword, and one that sees the batch in pieces."""

    def forward(self, x):
        halves = torch.tanh(self.first(input=x)).view(-1, 2)
        return nn.functional.relu(self.last(halves.repeat(1, 2))).view(len(x), -1)


class Faint(Tied):
    """A layer whose weights are read once more, so softly that their gradient hardly tells."""

    def forward(self, x):
        return self.last(self.first(x) + 1e-6 * nn.functional.linear(x.flip(1), self.first.weight**2))


class Constant(Tied):
    """A layer that sees the same for every input, once."""

    def forward(self, x):
        return torch.tanh(self.first(x))[:, :2] * self.last(torch.ones(1, 4, dtype=x.dtype))


class Precise(Tied):
    """A layer in single precision, and logits in double."""

    def forward(self, x):
        return self.last(torch.tanh(self.first(x))).double()


class Bare(Tied):
    """Weights without a module that is called, and an output without classes."""

    def forward(self, x):
        return nn.functional.linear(torch.sin(x), self.last.weight).prod(1)


def hooked():
    """A layer that sees twice its input and makes three times its output."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    model[2].register_forward_pre_hook(lambda layer, args: (2 * args[0],))
    model[0].register_forward_hook(lambda layer, args, output: 3 * output)
    return model


MODELS = {
    "layer twice": Twice(),
    "weights read elsewhere": Tied(),
    "weights read softly elsewhere": Faint(),
    "a constant's layer": Constant(),
    "no layer called": Bare(),
    "layers called oddly": Odd(),
    "hooks": hooked(),
    "change in place": nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)),
    "normalisation": nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3, bias=False)),
    "statistics kept": nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).eval(),
    "sequences": nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6, 2)),
    "strides and dilation": nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 4, 2, stride=2, padding=2, dilation=2, bias=False), nn.Flatten()
    ),
    "groups": nn.Sequential(nn.Unflatten(1, (2, 2, 1)), nn.Conv2d(2, 4, 1, groups=2), nn.Tanh(), nn.Flatten()),
    "reflected edges": nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten()
    ),
    "edges that go round": nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten()
    ),
    "scalar output": nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)),
}


@pytest.mark.parametrize("name", MODELS)
def test_jacobian_and_gram_of_any_model_equal_the_twin(name):
    model = MODELS[name].double()
    x = torch.rand(65, 4, dtype=torch.float64, generator=D.generator(4)) - 0.5  # twice as many as go together, and one
    exact = reference.jacobian(two_dimensional(model), x)
    torch.testing.assert_close(T.jacobian(model, x).view(exact.shape), exact)
    blocks = torch.einsum("nvd,mwd->nmvw", exact, exact)
    torch.testing.assert_close(T.gram(model, x), blocks)


def test_large_inputs_go_together_in_small_numbers():
    assert [len(part) for part in T._parts(torch.zeros(3, 3, 224, 224))] == [1, 1, 1]
    assert [len(part) for part in T._parts(torch.zeros(40, 1, 28, 28))] == [32, 8]


def test_jacobian_in_half_precision_is_that_of_one_input_at_a_time():
    model, x = Tied().bfloat16(), torch.rand(3, 4).bfloat16()
    for n in range(3):
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(z, list(model.parameters()), retain_graph=True)])
            for z in model(x[n : n + 1])[0]
        ]
        torch.testing.assert_close(T.jacobian(model, x)[n], torch.stack(rows))


def test_mixed_precision_is_that_of_the_parameters():
    model, x = Precise(), torch.rand(3, 4)
    exact = reference.jacobian(copy.deepcopy(model).double(), x.double())
    assert (T.jacobian(model, x) - exact).norm() < 1e-6 * exact.norm()
    blocks = torch.einsum("nvd,mwd->nmvw", exact, exact)
    assert (T.gram(model, x) - blocks).norm() < 1e-6 * blocks.norm()


@linux_only
def test_memory_of_a_jacobian_with_many_outputs_is_that_of_its_entries():
    setup = "import torch; from torch import nn; from zonb import tangents as T; x = torch.ones(1, 1, 64, 64)"
    setup += "; model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Flatten())"
    assert extra_memory(setup, "T.jacobian(model, x)") < 8  # MiB; one number a pair of outputs would take 64


def test_outputs_must_have_the_batch_first():
    with pytest.raises(ValueError, match="first dimension must be the batch's"):
        T.jacobian(nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)), torch.rand(2, 4))


def two_dimensional(model):
    return model if model(torch.rand(1, 4).double()).ndim == 2 else nn.Sequential(model, nn.Unflatten(0, (-1, 1)))


def test_layers_that_factor_need_no_pass_of_their_own(network, monkeypatch):
    def refuse(*args):
        raise AssertionError("one by one")

    monkeypatch.setattr(T, "_one_by_one", refuse)
    model, x = network
    torch.testing.assert_close(T.jacobian(model, x), reference.jacobian(model, x))
    with pytest.raises(AssertionError, match="one by one"):
        T.jacobian(MODELS["layer twice"].double(), torch.rand(1, 4).double())


def test_jacobian_in_low_precision_is_as_good_as_its_type(network):
    model, x = network
    exact = reference.jacobian(model, x)
    single = T.jacobian(copy.deepcopy(model).float(), x.float())
    assert single.dtype == torch.float32
    assert (single - exact).norm() < 1e-5 * exact.norm()


def test_jacobian_needs_no_gradient_mode():
    model, x = MODELS["layer twice"].double(), torch.rand(2, 4).double()
    expected = T.jacobian(model, x)
    with torch.no_grad():
        torch.testing.assert_close(T.jacobian(model, x), expected)


def test_gram_leaves_no_graph_and_no_hook(network):
    model, x = network
    assert not T.gram(model, x).requires_grad and not T.jacobian(model, x).requires_grad
    assert all(not layer._forward_hooks for layer in model.modules())


def test_jvp_is_the_jacobian_times_the_direction(network):
    model, x = network
    u = D.gaussian.sample(1, T.parameter_vector(model).numel(), generator=D.generator(2), dtype=torch.float64)[0]
    torch.testing.assert_close(T.jvp(model, x, u), reference.jacobian(model, x) @ u)


def test_as_function_is_the_model_and_leaves_it_unchanged(network):
    model, x = network
    theta = T.parameter_vector(model)
    f = T.as_function(model, x)
    torch.testing.assert_close(f(theta), model(x))
    f(theta + 1)
    assert torch.equal(theta, T.parameter_vector(model))


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (4,), ()])
def test_a_derivative_along_a_direction_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match="the direction has shape"):
        T.jvp(nn.Linear(2, 1), torch.ones(1, 2), torch.zeros(shape))


def test_other_misuse_is_refused():
    with pytest.raises(ValueError, match="theta has shape"):
        T.as_function(nn.Linear(2, 1), torch.ones(1, 2))(torch.zeros(4))
    with pytest.raises(ValueError, match="no input"):
        T.jacobian(nn.Linear(2, 1), torch.ones(0, 2))


@pytest.mark.parametrize("shape", [(2, 3, 40), (5, 4), (1, 7)])
def test_tangents_in_their_span_keep_the_gram_matrix_and_their_order(shape):
    J = D.gaussian.sample(1, math.prod(shape), generator=D.generator(0), dtype=torch.float64).view(shape)
    small = T.in_span(J)
    rows = math.prod(shape[:-1])
    assert small.shape == (*shape[:-1], min(rows, shape[-1]))
    flat, same = J.reshape(rows, -1), small.reshape(rows, -1)
    torch.testing.assert_close(same @ same.T, flat @ flat.T)


def test_a_layer_whose_hook_bends_its_output_is_found_out_and_taken_one_by_one(monkeypatch):
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    model[0].register_forward_hook(lambda layer, args, output: output.square() + args[0].sum(1, keepdim=True))
    x = torch.rand(3, 4, dtype=torch.float64, generator=D.generator(4)) - 0.5
    alone, one_by_one = [], T._one_by_one
    monkeypatch.setattr(T, "_one_by_one", lambda m, x, found: alone.extend(found) or one_by_one(m, x, found))
    exact = reference.jacobian(model, x)
    torch.testing.assert_close(T.jacobian(model, x), exact)
    assert {id(q) for q in alone} == {id(q) for q in model[0].parameters()}  # and the other layer is not
    torch.testing.assert_close(T.gram(model, x), torch.einsum("nvd,mwd->nmvw", exact, exact))


@pytest.mark.parametrize("dtype, eps", [(torch.float32, 2**-23), (torch.float64, 2**-52)])
def test_default_mu_is_a_root_of_epsilon_of_the_parameters_own_size(dtype, eps):
    theta = torch.tensor([3.0, 0.0, 4.0, 0.0], dtype=dtype)  # length 5, 5/2 an entry
    assert differences.default_mu(theta) == pytest.approx(2.5 * eps ** (1 / 3), rel=1e-6)
    assert differences.default_mu([theta[:3], theta[3:]]) == pytest.approx(2.5 * eps ** (1 / 3), rel=1e-6)
    assert differences.default_mu(theta, two_sided=False) == pytest.approx(2.5 * eps**0.5, rel=1e-6)


def test_spsa_along_each_axis_is_the_gradient_over_their_number():
    theta, axes = torch.tensor([1.0, -2.0, 0.5]).double(), torch.eye(3, dtype=torch.float64)
    slope = differences.spsa_gradient(lambda t: t[0] ** 2 + 3 * t[1] ** 2 - t[2], theta, axes, 0.25)
    torch.testing.assert_close(slope, torch.tensor([2.0, -12.0, -1.0]).double() / 3)


class Soft(Tied):
    """A layer whose weights are read once more, too softly for single precision to tell by one gradient."""

    def forward(self, x):
        return self.last(self.first(x) + 1e-5 * nn.functional.linear(x.flip(1), self.first.weight))


def test_what_a_layer_does_softly_besides_is_not_lost():
    x = torch.rand(3, 4, dtype=torch.float64, generator=D.generator(4)) - 0.5
    bent = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    bent[0].register_forward_hook(lambda layer, args, output: output + 1e-7 * output.square())
    torch.testing.assert_close(T.jacobian(bent, x), reference.jacobian(bent, x), rtol=1e-11, atol=1e-13)
    soft = Soft()
    exact = reference.jacobian(copy.deepcopy(soft).double(), x)
    assert (T.jacobian(soft, x.float()) - exact).norm() < 1e-6 * exact.norm()
