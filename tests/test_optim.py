import copy
import inspect
import math
import os
import pickle
import subprocess
import sys
import warnings
from typing import NamedTuple

import pytest
import torch
from conftest import PATIENCE, ROOT, linux_only
from torch import nn
from torch.func import functional_call

from zonb import directions, optim, perturbed
from zonb.optim import ZOSGD
from zonb.streams import Stream

LAWS = [directions.gaussian, directions.rademacher, directions.sphere]


@pytest.fixture(params=[perturbed._SMALL, 0], ids=["small together", "each alone"])
def way(request, monkeypatch):
    """Small parameters are moved together; none is small, so that all go the way of large ones."""
    monkeypatch.setattr(perturbed, "_SMALL", request.param)


def network(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def batch(seed=1, n=8):
    generator = directions.generator(seed)
    return torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)


def loss_of(model, data=None):
    x, y = data or batch()
    return lambda: nn.functional.cross_entropy(model(x), y)


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(model, before):
    return all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def direction(model, law, seed, step, p):
    """Direction p as tensors, in the order of names."""
    u, stream_law = {}, directions.gaussian if law == directions.sphere else law
    for number, (name, parameter) in enumerate(sorted(model.named_parameters(), key=lambda item: item[0])):
        u[name] = torch.zeros_like(parameter)
        Stream(stream_law, seed, step).add(u[name], u[name], [1.0], first=p, parameter=number)
    if law == directions.sphere:
        d = sum(value.numel() for value in u.values())
        length = math.sqrt(sum(value.double().square().sum().item() for value in u.values()))
        u = {name: value * (math.sqrt(d) / length) for name, value in u.items()}
    return u


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("two_sided", [True, False])
def test_a_step_equals_its_naive_twin(law, two_sided):
    model, P, mu, lr, decay = network().double(), 3, 1e-3, 0.1, 0.01
    x, y = batch()
    x = x.double()
    theta = weights(model)

    def loss(where):
        return nn.functional.cross_entropy(functional_call(model, where, (x,)), y).item()

    expected = {name: (1 - lr * decay) * value for name, value in theta.items()}
    for p in range(P):
        u = direction(model, law, 7, 0, p)
        plus = loss({name: value + mu * u[name] for name, value in theta.items()})
        minus = loss({name: value - mu * u[name] * two_sided for name, value in theta.items()})
        for name in expected:
            expected[name] = expected[name] - lr / P * (plus - minus) / (mu * (1 + two_sided)) * u[name]
    optimizer = ZOSGD(
        model.named_parameters(), lr, mu=mu, P=P, law=law, two_sided=two_sided, weight_decay=decay, seed=7
    )
    optimizer.step(lambda: nn.functional.cross_entropy(model(x), y))
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, expected[name], rtol=1e-9, atol=1e-11), name
        assert not torch.allclose(parameter, theta[name], atol=1e-4)


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_the_mean_step_is_the_gradient(law):
    model = network().double()
    x, y = batch()
    closure = loss_of(model, (x.double(), y))
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(closure(), list(model.parameters()))])
    theta = weights(model)
    optimizer = ZOSGD(model.named_parameters(), 1.0, mu=1e-4, law=law, seed=3)
    estimates = []
    for _ in range(1500):
        optimizer.step(closure)
        estimates.append(torch.cat([(theta[n] - p.detach()).flatten() for n, p in model.named_parameters()]))
        model.load_state_dict(theta)
    estimates = torch.stack(estimates)
    sem = estimates.std(0) / math.sqrt(len(estimates))
    assert ((estimates.mean(0) - gradient).abs() < 5 * sem).all()
    along = estimates @ gradient / gradient.square().sum()
    sem = along.std() / math.sqrt(len(along))
    assert abs(along.mean() - 1) < 5 * sem < 0.2  # half or double the scale would be seen
    # The second moment knows the law: 1 + d - 2 + kappa, and d on the sphere.
    d = len(gradient)
    ratio = estimates.square().sum(1) / gradient.square().sum()
    expected = d if law == directions.sphere else d - 1 + law.kappa
    assert abs(ratio.mean() - expected) < 5 * ratio.std() / math.sqrt(len(ratio))


@pytest.mark.parametrize("law", LAWS, ids=str)
def test_a_copied_law_takes_the_same_step(law):
    ends = []
    for one in (law, copy.deepcopy(law)):
        model = network()
        optimizer = ZOSGD(model.named_parameters(), 0.1, P=2, law=one, seed=3)
        optimizer.step(loss_of(model))
        ends.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        assert optimizer.state_dict()["zo"]["law"] == law.name
    assert torch.equal(*ends)


def test_no_derivative_is_used():
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            raise AssertionError("a derivative was asked for")

    model = network()
    x, y = batch()
    before = weights(model)
    ZOSGD(model.parameters(), 0.1).step(lambda: nn.functional.cross_entropy(Forward.apply(model(x)), y))
    assert not same(model, before) and all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(RuntimeError, match="does not require grad"):
        ZOSGD(model.parameters(), 0.1).step(lambda: loss_of(model)().backward())
    with pytest.raises(AssertionError, match="a derivative was asked for"):  # negative control
        Forward.apply(model(x)).sum().backward()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("two_sided", [True, False])
def test_parameters_are_restored_bit_for_bit(dtype, two_sided):
    model = network().to(dtype)
    x, y = batch()
    before = weights(model)
    optimizer = ZOSGD(model.parameters(), 0.0, mu=0.05, P=4, two_sided=two_sided)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(5):
            optimizer.step(lambda: nn.functional.cross_entropy(model(x.to(dtype)).float(), y))
    assert same(model, before) and optimizer.updated == 0 and optimizer.steps == 5


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "arrange",
    [
        lambda named: [{"params": named[:1]}, {"params": named[1:]}],
        lambda named: [{"params": named[2:]}, {"params": named[:2]}],
        lambda named: [{"params": [pair]} for pair in named[::-1]],
    ],
)
def test_grouping_and_order_of_named_parameters_do_not_matter(arrange):
    results = []
    for groups in (lambda named: named, arrange):
        model = network()
        optimizer = ZOSGD(groups(list(model.named_parameters())), 0.1, P=2, law=directions.sphere)
        for _ in range(3):
            optimizer.step(loss_of(model))
        results.append(weights(model))
    assert all(torch.allclose(results[0][name], results[1][name], rtol=1e-6, atol=1e-8) for name in results[0])


def test_groups_have_their_own_rate_and_decay_and_schedulers_change_it():
    model = network()
    named = list(model.named_parameters())
    optimizer = ZOSGD([{"params": named[:2], "lr": 0.0}, {"params": named[2:], "weight_decay": 0.5}], 0.1)
    before = weights(model)
    optimizer.step(loss_of(model))
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name, _ in named[2:]}
    undecayed = network()
    again = list(undecayed.named_parameters())
    ZOSGD([{"params": again[:2], "lr": 0.0}, {"params": again[2:]}], 0.1).step(loss_of(undecayed))
    for name, value in undecayed.named_parameters():  # the same step, less what the second group's decay takes
        share = 0.1 * 0.5 if name in changed else 0
        torch.testing.assert_close(dict(named)[name], value - share * before[name])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.0)
    optimizer.step(loss_of(model))
    scheduler.step()
    before = weights(model)
    optimizer.step(loss_of(model))
    assert same(model, before)


@pytest.mark.parametrize("shape", [(3, 5, 24), (7, 24), (24,), (0, 24)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.filterwarnings("ignore:two losses differ")
def test_a_layer_taken_by_rows_equals_the_whole(monkeypatch, shape, bias, two_sided):
    monkeypatch.setattr(perturbed, "_SMALL", 0)
    monkeypatch.setattr(perturbed, "_ROWS", 3 * 1024)  # 128 of 500 rows
    layer = nn.Linear(24, 500, bias=bias).double()
    x = torch.randn(shape, generator=directions.generator(2), dtype=torch.float64)
    seen = {"by rows": [], "whole": []}
    for name, context in {"by rows": torch.no_grad, "whole": torch.enable_grad}.items():  # gradients ask for the whole

        def closure(name=name, context=context):
            with context():
                seen[name].append(nn.functional.linear(x, bias=layer.bias, **{"weight": layer.weight}).detach())
                seen[name].append(layer(x).detach())
            return 0.0

        ZOSGD(layer.named_parameters(), 0.0, mu=0.1, two_sided=two_sided).step(closure)
    assert len(seen["by rows"]) == 4
    for rows, whole in zip(*seen.values(), strict=True):
        assert rows.shape == whole.shape == (*shape[:-1], 500)
        assert torch.allclose(rows, whole, rtol=1e-12, atol=1e-12)
    assert x.numel() == 0 or not torch.allclose(seen["by rows"][-1], layer(x))  # they are moved


@pytest.mark.filterwarnings("ignore:two losses differ")
def test_layers_by_rows_take_and_refuse_what_torch_does(monkeypatch):
    monkeypatch.setattr(perturbed, "_SMALL", 0)
    monkeypatch.setattr(perturbed, "_ROWS", 3 * 1024)
    w, x = nn.Parameter(torch.randn(300, 24)), torch.randn(4, 24)

    def seen(read):
        found = []
        ZOSGD([w], 0.0, mu=0.1).step(lambda: found.append(read()) or 0.0)
        return found[0]

    expected = seen(lambda: nn.functional.linear(x, w))
    assert torch.allclose(seen(lambda: torch.func.vmap(lambda row: nn.functional.linear(row, w))(x)), expected)
    nested = seen(lambda: nn.functional.linear(torch.nested.nested_tensor([x[:1], x[1:]]), w))
    assert torch.allclose(torch.cat(nested.unbind()), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(seen(lambda: nn.functional.linear(x, w)).float(), expected, rtol=0.02, atol=0.05)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        tangent = torch.autograd.forward_ad.unpack_dual(seen(lambda: nn.functional.linear(dual, w))).tangent
    assert torch.allclose(tangent, expected)
    with pytest.raises(RuntimeError, match="shape"):
        seen(lambda: nn.functional.linear(torch.randn(2, 48), w))


@pytest.mark.parametrize("rows", [40, 300])
def test_a_base_loss_is_computed_as_the_others_are(monkeypatch, rows):
    monkeypatch.setattr(perturbed, "_SMALL", 0)
    monkeypatch.setattr(perturbed, "_ROWS", 3 * 1024)
    w, x = nn.Parameter(torch.randn(24, rows).T), torch.randn(9, 24)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        ZOSGD([w], 0.0, mu=1e-30, two_sided=False).step(lambda: seen.append(nn.functional.linear(x, w)) or 0.0)
    assert torch.equal(*seen)  # nothing moves by so little


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_default_types_and_inference_mode_do_not_matter(kind):
    x, layer = torch.ones(2, 4), nn.Linear(4, 4)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(kind)
        half = nn.Linear(4, 4)
        optimizer = ZOSGD(half.parameters(), 1e-3, mu=0.1)
        optimizer.step(lambda: half(x.to(kind)).float().sum())
    finally:
        torch.set_default_dtype(before)
    assert optimizer.moved > 0.5

    def closure():
        with torch.inference_mode():
            first = half(x.to(kind)).float()
        return (half(x.to(kind)).float() - first.clone()).square().sum() + layer(x).sum()

    ZOSGD([*half.parameters(), *layer.parameters()], 1e-3, mu=0.1).step(closure)


def test_parameters_that_share_memory_take_turns(set_threads):
    results = []
    for count in (1, 2, 2, 2):
        set_threads(count)
        a = nn.Parameter(torch.linspace(-1, 1, 900_000))
        b = nn.Parameter(a.data)
        ZOSGD([a, b], 1e-2, mu=1e-2, P=4).step(lambda a=a, b=b: a[:7].square().sum() + b[5:9].sum())
        results.append(a.detach())
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.usefixtures("way")
@pytest.mark.filterwarnings("ignore:two losses differ")
def test_a_parameter_that_a_layer_is_given_as_input_moves_too():
    x, w = (torch.linspace(-1, 1, n, dtype=torch.float64).view(-1, 6).requires_grad_() for n in (12, 30))
    seen = []
    ZOSGD([x, w], 0.0, mu=0.1).step(lambda: seen.append(nn.functional.linear(x, w)) or 0.0)
    u_x, u_w = torch.zeros_like(x), torch.zeros_like(w)
    for number, u in enumerate((u_x, u_w)):
        Stream(directions.gaussian, 0, 0).add(u, u, [1.0], first=0, parameter=number)
    for sign, found in zip((1, -1), seen, strict=True):
        assert torch.allclose(found, (x + 0.1 * sign * u_x) @ (w + 0.1 * sign * u_w).T, rtol=1e-12)


@pytest.mark.usefixtures("way")
def test_threads_do_not_matter(set_threads):
    results = []
    for count in (1, 2, 4):
        set_threads(count)
        w = nn.Parameter(torch.linspace(-1, 1, 200_001))
        optimizer = ZOSGD([w], 1e-3, P=2, law=directions.sphere, mu=1e-2)
        optimizer.step(lambda w=w: w[:7].square().sum())  # a sum too short to be split
        assert torch.get_num_threads() == count
        results.append(w.detach())
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.usefixtures("way")
def test_a_saved_run_goes_on_bit_for_bit():
    def make(model, **settings):
        optimizer = ZOSGD(model.named_parameters(), 0.1, **settings)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

    def train(model, optimizer, scheduler, steps):
        for _ in range(steps):
            optimizer.step(loss_of(model))
            scheduler.step()

    settings = {"mu": 1e-3, "P": 2, "law": directions.rademacher, "two_sided": False, "seed": 5, "weight_decay": 0.1}
    whole = network()
    train(whole, *make(whole, **settings), 6)
    model = network()
    optimizer, scheduler = make(model, **settings)
    train(model, optimizer, scheduler, 3)
    saved = copy.deepcopy([model.state_dict(), optimizer.state_dict(), scheduler.state_dict()])
    resumed = network(seed=9)
    optimizer, scheduler = make(resumed)  # every setting comes from the saved state
    for part, state in zip((resumed, optimizer, scheduler), saved, strict=True):
        part.load_state_dict(state)
    train(resumed, optimizer, scheduler, 3)
    assert same(resumed, weights(whole))
    with pytest.raises(ValueError, match="not the state of a ZOSGD"):
        optimizer.load_state_dict(torch.optim.SGD(model.parameters(), 0.1).state_dict())


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named_and_leaves_everything_as_it_was(bad, two_sided):
    model = network()
    calls = [1.0, 2.0, 4.0, bad] if two_sided else [1.0, 2.0, bad]
    values = iter(calls)
    before, optimizer = weights(model), ZOSGD(model.parameters(), 0.1, P=2, two_sided=two_sided)
    with pytest.raises(FloatingPointError, match="not finite") as error:
        optimizer.step(lambda: 0 * loss_of(model)() + next(values))
    assert f"(losses here: {', '.join(f'{value:g}' for value in calls)})" in str(error.value)
    assert same(model, before) and optimizer.steps == 0
    optimizer.step(loss_of(model))
    assert not same(model, before)


@pytest.mark.usefixtures("way")
def test_an_interrupted_closure_leaves_everything_as_it_was():
    model = network()
    before = weights(model)

    def closure():
        loss_of(model)()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ZOSGD(model.parameters(), 0.1).step(closure)
    assert same(model, before)
    assert torch.equal(
        model[0](batch()[0]),
        functional_call(model[0], {k: before[f"0.{k}"] for k in ("weight", "bias")}, (batch()[0],)),
    )


def test_global_random_state_is_not_touched():
    model = network()
    torch.manual_seed(4)
    state = torch.get_rng_state()
    ZOSGD(model.parameters(), 0.1, P=3).step(loss_of(model))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.usefixtures("way")
def test_a_subset_of_parameters_moves_alone():
    model = network()
    before = weights(model)
    optimizer = ZOSGD([("0.bias", model[0].bias)], 0.1)
    optimizer.step(loss_of(model))
    after = weights(model)
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["0.bias"]


def test_the_readme_example_trains():
    code = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    scope = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        exec(code, scope)
    start = math.log(2)
    assert scope["optimizer"].steps == 100 and scope["loss"] < 0.9 * start


@pytest.mark.filterwarnings("ignore:the closure read")
def test_a_group_added_later_leaves_the_directions_of_the_others():
    results = []
    for later in (False, True):
        model = network()
        optimizer = ZOSGD(model[0].parameters(), 0.1, mu=1e-3)
        if later:
            optimizer.add_param_group({"params": list(model[2].parameters()), "lr": 0.0})
            assert len(set(optimizer._numbered.values())) == 4
        optimizer.step(lambda model=model: model[0].weight.sum() + model[0].bias.sum())
        results.append(weights(model[0]))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["copy", "pickle"]
)
def test_a_copy_goes_on_as_the_original(copied):
    model = network()
    optimizer = ZOSGD(list(model.named_parameters())[::-1], 0.1, law=copied(directions.rademacher), P=2, seed=3)
    optimizer.step(loss_of(model))
    other_model, other = copied((model, optimizer))
    for each, its in ((model, optimizer), (other_model, other)):
        its.step(loss_of(each))
    assert same(other_model, weights(model)) and other.steps == 2
    moved = [(a - b).abs() for a, b in zip(network()[0].weight[0], model[0].weight[0], strict=True)]
    assert len({round(value.item(), 6) for value in moved}) <= 4  # signs, not a silent Gaussian


def test_a_state_carries_its_numbering_to_an_optimiser_without_names():
    model = nn.Sequential(nn.Linear(3, 2))  # named bias before weight
    named, plain = ZOSGD(model.named_parameters(), 0.1), ZOSGD(model.parameters(), 0.1)
    assert named._numbered != plain._numbered
    plain.load_state_dict(named.state_dict())
    assert named._numbered == plain._numbered


@pytest.mark.usefixtures("way")
def test_one_sided_steps_leave_operations_in_place_without_effect():
    table = nn.Embedding(5, 4, max_norm=0.1)
    before = weights(table)
    ZOSGD(table.parameters(), 0.0, two_sided=False, mu=1e-3).step(lambda: table(torch.tensor([1, 2])).sum())
    assert same(table, before)


@pytest.mark.usefixtures("way")
def test_what_is_stored_stays_where_it_is_even_if_the_step_runs_in_inference_mode():
    model, x = network(), batch()[0]
    model[0].weight.data = model[0].weight.data.T.contiguous().T
    before = [(q.data_ptr(), q.stride(), q.is_leaf, q.requires_grad) for q in model.parameters()]
    optimizer = ZOSGD(model.parameters(), 0.1, P=2)
    for context in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with context():
            optimizer.step(lambda: model(x).square().sum())
    assert [(q.data_ptr(), q.stride(), q.is_leaf, q.requires_grad) for q in model.parameters()] == before
    assert not any(q.is_inference() for q in model.parameters())
    model(x).sum().backward()  # and is trained by other means afterwards
    stepped = weights(model)
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert not same(model, stepped)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("two_sided", [True, False])
def test_every_loss_of_a_step_is_computed_by_the_same_operations(two_sided):
    # torch's encoder takes another way where a mode like ours is active, and then treats padding otherwise
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    encoder, x = nn.TransformerEncoder(layer, 1).eval(), torch.ones(4, 6, 16)
    padded = torch.zeros(4, 6, dtype=torch.bool)
    padded[1:, 4:] = True
    losses = []

    def closure():
        losses.append((encoder(x, src_key_padding_mask=padded) - 1).square().mean().item())
        return losses[-1]

    ZOSGD(encoder.parameters(), 0.0, mu=1e-6, P=4, two_sided=two_sided).step(closure)
    with torch.no_grad():
        closure()
    *seen, otherwise = losses
    assert max(seen) - min(seen) < 1e-3 < abs(otherwise - seen[0])  # the other way would be seen


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("gradients", [True, False])  # autocast keeps its copies where gradients are enabled
def test_autocast_around_a_step_does_not_hide_the_perturbation(gradients, two_sided):
    model, x, seen = network(), batch()[0], []

    def closure():
        with torch.set_grad_enabled(gradients):
            seen.append(model(x).detach().float())
        return seen[-1].sum()

    with torch.autocast("cpu", torch.bfloat16):
        ZOSGD(model.parameters(), 0.0, mu=0.5, P=2, two_sided=two_sided).step(closure)
        seen.append(model(x).detach().float())
    stored = seen.pop()
    ends = seen if two_sided else seen[1:]
    assert len(seen) == (4 if two_sided else 3)
    assert all((end - stored).abs().max() > 0.1 for end in ends)
    assert two_sided or torch.equal(seen[0], stored)
    assert all((one - other).abs().max() > 0.1 for k, one in enumerate(ends) for other in ends[:k])


@pytest.mark.usefixtures("way")
def test_a_wrong_index_is_an_error_as_it_is_for_the_module():
    table = nn.Embedding(5, 4)
    for index in (-1, 5):
        with pytest.raises(IndexError, match="out of range"):
            ZOSGD(table.parameters(), 0.1).step(lambda index=index: table(torch.tensor([index])).sum())


@pytest.mark.usefixtures("way")
def test_a_parameter_that_is_not_read_is_named():
    model = network()
    with pytest.warns(UserWarning, match="read 2 of 4"):
        ZOSGD(model.parameters(), 0.1).step(lambda: model[0](batch()[0]).sum())


@pytest.mark.usefixtures("way")
def test_odd_parameters_are_perturbed():
    class Two(NamedTuple):
        a: torch.Tensor
        b: torch.Tensor

    w, scalar, empty = nn.Parameter(torch.ones(2)), nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0, 3))
    optimizer = ZOSGD([w, scalar, empty], 0.1, mu=0.1)
    seen = []
    optimizer.step(lambda: seen.append(torch.stack(Two(w, w))) or (seen[-1].sum() * scalar + empty.sum()))
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[0][0], seen[0][1])


class Transposed(nn.Module):
    """Reads one matrix as a view, twice, once through a list."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.arange(12.0).view(3, 4) / 12)

    def forward(self, x):
        first = self.w.T
        return torch.cat([x @ first, x @ self.w[[0, 2]].mT, (x @ self.w.data.t()) * self.w.shape[0]], 1)


class Kept(nn.Module):
    """Uses a view after other parameters were read, or a derivative that needs the values once more."""

    def __init__(self, derivative):
        super().__init__()
        self.derivative = derivative
        self.w = nn.ParameterList([nn.Parameter(torch.linspace(-1, k, 16).view(4, 4)) for k in (1, 2, 3)])

    def forward(self, x):
        first = self.w[0].T
        if not self.derivative:
            return nn.functional.linear(x, self.w[1]) @ self.w[2] + x @ first
        with torch.enable_grad():
            y = x = x.detach().requires_grad_()
            for w in self.w:
                y = nn.functional.linear(y, w).tanh()
            return torch.autograd.grad(y.sum(), x)[0]


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 4, padding_idx=0)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(self.table(x))


def language_model(kind):
    from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM  # slow to load

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 11, "pad_token_id": 0}
    opt = {"ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 8, "dropout": 0.0, "bos_token_id": 1}
    if kind == "opt":
        return OPTForCausalLM(OPTConfig(**small, **opt, eos_token_id=2))
    llama = {"intermediate_size": 32, "num_key_value_heads": 1, "tie_word_embeddings": True}
    return LlamaForCausalLM(LlamaConfig(**small, **llama))


X = torch.randn(2, 3, 4, generator=directions.generator(3))
IDS = torch.tensor([[1, 5, 5], [0, 2, 10]])
CASES = {
    "views": (lambda: Transposed(), (X[0],)),
    "kept views": (lambda: Kept(derivative=False), (X[0],)),
    "derivative": (lambda: Kept(derivative=True), (X[0],)),
    "tied": (lambda: Tied(), (IDS,)),
    "norm": (lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.RMSNorm(4)), (X,)),
    "convolution": (lambda: nn.Sequential(nn.Conv1d(3, 5, 2), nn.BatchNorm1d(5)), (X,)),
    "lstm": (lambda: nn.LSTM(4, 5, batch_first=True), (X,)),
    "attention": (lambda: nn.MultiheadAttention(4, 2, batch_first=True), (X, X, X)),
    "encoder": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (X,)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)), (X,)),
    "bag": (lambda: nn.EmbeddingBag(11, 4), (IDS,)),
    "opt": (lambda: language_model("opt"), (IDS,)),
    "llama": (lambda: language_model("llama"), (IDS,)),
}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", CASES)
def test_any_module_sees_the_perturbed_parameters(name):
    make, inputs = CASES[name]
    model = make().eval()

    def output(where=None):
        result = model(*inputs) if where is None else functional_call(model, where, inputs)
        result = getattr(result, "logits", result)
        return result[0] if isinstance(result, tuple) else result

    seen = []
    mu = 0.1
    optimizer = ZOSGD(model.named_parameters(), 0.0, mu=mu, seed=2)
    optimizer.step(lambda: seen.append(output()) or seen[-1].sum())
    u = direction(model, directions.gaussian, 2, 0, 0)
    for sign, found in zip((1, -1), seen, strict=True):
        moved = {key: value + sign * mu * u[key] for key, value in weights(model).items()}
        if name == "views":  # the twin must see .data too
            copied = copy.deepcopy(model)
            copied.load_state_dict(moved)
            expected = copied(*inputs)
        else:
            expected = output(moved)
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(found, output(), rtol=1e-2, atol=1e-3)


@pytest.mark.usefixtures("way")
@pytest.mark.filterwarnings("ignore:two losses differ")
def test_traps_of_low_precision_are_named():
    x, y = batch()
    model = network().to(torch.bfloat16)
    closure = lambda: nn.functional.cross_entropy(model(x.bfloat16()).float(), y)  # noqa: E731
    with pytest.warns(UserWarning, match="rounded back"):
        ZOSGD(model.parameters(), 0.1, mu=1e-5).step(closure)
    with pytest.warns(UserWarning, match="less than the .* they are rounded to"):
        ZOSGD(model.parameters(), 0.1, mu=0.01, law=directions.rademacher).step(lambda: closure().bfloat16())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ZOSGD(model.parameters(), 0.1).step(closure)  # the default mu
        fine = network()
        ZOSGD(fine.parameters(), 0.1).step(loss_of(fine))
    optimizer = ZOSGD(model.parameters(), 1e-6)
    optimizer.step(closure)
    assert optimizer.moved > 0.5 and optimizer.updated < 0.1  # a step that bfloat16 rounds away


def test_shares_that_change_and_the_mean_loss_are_what_they_say():
    w = nn.Parameter(torch.cat([torch.ones(750), torch.full((250,), 0.01)]).bfloat16())  # 1 keeps its value for 1e-3
    losses = iter([2.0 + 1e-3, 2.0 - 1e-3])

    def closure():
        w.sum()
        return next(losses)

    optimizer = ZOSGD([w], 1e-3, mu=1e-3, law=directions.rademacher)
    with pytest.warns(UserWarning, match="changes 25.0% of the parameters"):
        loss = optimizer.step(closure)
    assert (optimizer.moved, optimizer.updated, loss) == (0.25, 0.25, 2.0)


def test_one_small_difference_is_no_trap_and_many_are():
    w = nn.Parameter(torch.ones(10))
    difference = 1e-5

    def closure():
        return torch.tensor(1.0) + (difference if w.sum() > 10 else 0)

    optimizer = ZOSGD([w], 0.0, mu=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(closure)
        difference = 0.0
        for _ in range(10):
            optimizer.step(closure)
    with pytest.warns(UserWarning, match="less than the .* they are rounded to"):
        for _ in range(200):
            optimizer.step(closure)


def test_a_random_closure_is_named():
    model = nn.Sequential(network(), nn.Dropout())
    with pytest.warns(UserWarning, match=r"model.eval\(\)"):
        ZOSGD(model.parameters(), 0.1).step(loss_of(model))


@pytest.mark.usefixtures("way")
def test_a_model_that_reads_no_parameter_is_named():
    with pytest.raises(RuntimeError, match="read none"):
        ZOSGD(network().parameters(), 0.1).step(lambda: torch.tensor(1.0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0"),
        ({"lr": math.nan}, "lr=nan"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"mu": 0.0}, "mu=0.0"),
        ({"P": 0}, "P=0"),
        ({"mu": math.inf}, "mu=inf"),
        ({"P": 1.5}, "P=1.5"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"seed": 2**64}, "seed=18446744073709551616"),
        ({"seed": -1}, "seed=-1"),
        ({"law": directions.laplace}, "no stream of Laplace"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        ZOSGD(network().parameters(), **({"lr": 0.1} | settings))


def test_unfit_parameters_and_losses_are_refused():
    with pytest.raises(ValueError, match="int64"):
        ZOSGD([nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False)], 0.1)
    with pytest.raises(ValueError, match="given twice"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch itself only warns
        w = nn.Parameter(torch.ones(3))
        ZOSGD([w, w], 0.1)
    with pytest.raises(ValueError, match="lr=-1"):
        optimizer = ZOSGD([nn.Parameter(torch.ones(3))], 0.1)
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))], "lr": -1})
    assert len(optimizer.param_groups) == 1
    assert ZOSGD(network().double().parameters(), 0.1).mu == pytest.approx(
        ZOSGD(network().parameters(), 0.1).mu * 2 ** (-29 / 3), rel=1e-3
    )
    with pytest.raises(ValueError, match="sets no scale"):
        ZOSGD([nn.Parameter(torch.zeros(3))], 0.1)
    model = network()
    with pytest.raises(ValueError, match="has one entry"):
        ZOSGD(model.parameters(), 0.1).step(lambda: model(batch()[0]))


_MEMORY = """
import re, sys, torch
from pathlib import Path
from zonb.optim import ZOSGD
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
torch.set_num_threads(1)
kind, *ways = sys.argv[1:]
if kind == "layers":
    layers = [torch.nn.Linear(1024, 1024, bias=False) for _ in range(40)]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(1024, 8192, bias=False))
    x = torch.ones(4, 1024)
elif kind == "rows":
    model, x = torch.nn.Embedding(2**18, 64), torch.arange(2**18 - 5)
else:
    model, x = torch.nn.Linear(64, 2**15), torch.ones(1000, 64)
closure = lambda: model(x).sum()
optimizer = ZOSGD(model.named_parameters(), 1e-3)
work = {
    "inference": torch.no_grad()(closure),
    "zo": lambda: optimizer.step(closure),
    "whole": lambda: optimizer.step(torch.enable_grad()(closure)),
    "backward": lambda: closure().backward(),
}
for how in ways:
    if how != "backward":  # whose gradients would stay
        work[how]()  # compiles, and lets the allocator settle
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = peak()
    work[how]()
    print(peak() - before)
"""


def peaks(kind, *ways):
    """MiB of a step at its peak in each way, in a process of their own."""
    # Blocks above the threshold go back to the system at once, so that the peak is that of what is used.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, kind, *ways], capture_output=True, text=True, check=True, env=environment
    )
    return dict(zip(ways, (int(line) / 1024 for line in done.stdout.split()), strict=True))


@linux_only
def test_a_step_needs_a_few_mebibytes_more_than_inference_and_else_the_largest_parameter():
    extra = peaks("layers", "inference", "zo", "whole", "backward")  # what the last one leaves comes after all others
    largest, everything = 32, 32 + 40 * 4  # MiB
    assert extra["zo"] - extra["inference"] < 4 + 2 * 1 + 4  # part of a linear layer, small parameters, pages
    assert 0.9 * largest < extra["whole"] - extra["inference"] < largest + 4  # with gradients enabled
    assert extra["backward"] > 0.9 * everything  # negative control: the measure sees what gradients take


@linux_only
@pytest.mark.parametrize(("kind", "more"), [("rows", 64), ("outputs", 1000 * 2**14 * 4 / 2**20)])
def test_rows_looked_up_and_parts_of_an_output_are_held_once(kind, more):
    extra = peaks(kind, "inference", "zo")
    assert 0.9 * more < extra["zo"] - extra["inference"] < more + 20  # numbers of rows, small parameters, pages


def four_steps(two_sided, P, group=None):
    model = network()
    optimizer = ZOSGD(model.named_parameters(), 0.1, P=P, two_sided=two_sided, group=group)
    for _ in range(4):
        optimizer.step(loss_of(model))
    return model.state_dict()


_RANK = """
import sys, torch
import torch.distributed as dist
from torch import nn
from zonb import directions
from zonb.optim import ZOSGD

{functions}
torch.set_num_threads(1)
folder, rank = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{{folder}}/meeting", rank=int(rank), world_size=2)
sent, found = [], []
sending = ("all_", "broad", "send", "isend", "reduce", "gather", "scatter")
for name in [name for name in dir(dist) if name.startswith(sending)]:
    real = getattr(dist, name)
    setattr(dist, name, lambda t, *a, real=real, **k: sent.append(getattr(t, "nbytes", -1)) or real(t, *a, **k))
for two_sided, P in {settings}:
    sent.clear()
    found.append({{"model": four_steps(two_sided, P, dist.group.WORLD), "sent": list(sent)}})
torch.save(found, f"{{folder}}/{{rank}}.pt")
dist.destroy_process_group()
"""


def test_ranks_that_share_the_directions_equal_one_process_bit_for_bit(tmp_path):
    settings = [(True, 5), (False, 1)]
    functions = "\n".join(inspect.getsource(function) for function in (network, batch, loss_of, four_steps))
    script = _RANK.format(functions=functions, settings=settings)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ranks = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), rank], env=environment) for rank in ("0", "1")
    ]
    assert [rank.wait(PATIENCE) for rank in ranks] == [0, 0]
    for rank in ("0", "1"):
        for (two_sided, P), found in zip(settings, torch.load(tmp_path / f"{rank}.pt", weights_only=True), strict=True):
            alone = four_steps(two_sided, P)
            assert all(torch.equal(found["model"][name], value) for name, value in alone.items())
            assert found["sent"] == [8 * P] * 4  # P float64 numbers a step, and nothing else


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("P", [1, 4])
def test_a_step_on_a_parabola_is_the_one_computed_by_hand(P, two_sided):
    # Along u, f(w + mu u) = f(w) + mu g.u + mu^2 h with g = (2, -12) and h = u_1^2 + 3 u_2^2.
    start, g = torch.tensor([1.0, -2.0], dtype=torch.float64), torch.tensor([2.0, -12.0], dtype=torch.float64)
    w, u = nn.Parameter(start.clone()), torch.zeros(P, 2, dtype=torch.float64)
    for p in range(P):
        Stream(directions.gaussian, 4, 0).add(u[p], u[p], [1.0], first=p, parameter=0)
    optimizer = ZOSGD([w], 0.5, mu=0.25, P=P, two_sided=two_sided, weight_decay=0.1, seed=4)
    loss = optimizer.step(lambda: w[0] ** 2 + 3 * w[1] ** 2)
    h = u[:, 0] ** 2 + 3 * u[:, 1] ** 2
    slopes = u @ g + (0 if two_sided else 0.25 * h)
    torch.testing.assert_close(w.detach(), 0.95 * start - 0.5 / P * slopes @ u, rtol=1e-9, atol=1e-9)
    assert loss == pytest.approx(13 + (0.25**2 * h.mean().item() if two_sided else 0), rel=1e-12)


def test_the_radius_that_is_not_given_is_that_of_the_difference():
    w = nn.Parameter(torch.tensor([3.0, 0.0, 4.0, 0.0]))
    for two_sided, power in ((True, 1 / 3), (False, 1 / 2)):
        assert ZOSGD([w], 0.1, two_sided=two_sided).mu == pytest.approx(2.5 * 2 ** (-23 * power), rel=1e-6)


def test_each_step_has_directions_of_its_own():
    w, moves = nn.Parameter(torch.zeros(3)), []
    optimizer = ZOSGD([w], 1.0, mu=0.5, seed=4)
    for step in range(3):
        before = w.detach().clone()
        optimizer.step(lambda: w.sum())
        u = torch.zeros(3)
        Stream(directions.gaussian, 4, step).add(u, u, [1.0], first=0, parameter=0)
        moves.append(w.detach() - before)
        torch.testing.assert_close(moves[-1], -u.sum() * u)
    assert torch.pdist(torch.stack(moves)).min() > 0.01


@pytest.mark.parametrize("two_sided", [True, False])
@pytest.mark.parametrize("share, warns", [(1.01, False), (0.6, True)])
def test_losses_are_told_apart_down_to_their_rounding_and_no_further(two_sided, share, warns):
    w, calls = nn.Parameter(torch.ones(10)), []
    optimizer = ZOSGD([w], 0.0, mu=1e-2, two_sided=two_sided)
    rounding = optim._number_of(torch.tensor(1.0))[1]

    def closure():
        calls.append(w.sum())
        plus = len(calls) == (1 if two_sided else 2)  # whose rounding counts
        return torch.tensor(1.0) if plus else 1.0 + share * rounding

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        optimizer.step(closure)
    assert any("they are rounded to" in str(one.message) for one in found) == warns
