import numpy as np
import pytest
import reference
import torch
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from zonb import data, directions, models


def test_lenet_has_the_papers_parameters_layer_by_layer():
    counts = [sum(p.numel() for p in layer.parameters()) for layer in models.lenet(seed=0)]
    assert [count for count in counts if count] == [156, 2416, 24060, 2562, 430] and sum(counts) == 29624


def test_wider_and_deeper_lenets_keep_their_ten_outputs():
    x = torch.zeros(2, 1, 28, 28)
    sizes = []
    for shape in ({"width": 0.01}, {"width": 0.5}, {}, {"width": 2}, {"extra_layers": 3}):
        model = models.lenet(seed=0, **shape)
        assert model(x).shape == (2, 10)
        sizes.append(sum(p.numel() for p in model.parameters()))
    assert sizes[:4] == sorted(sizes[:4]) and sizes[2] == 29624
    assert sizes[4] == 29624 + 3 * (42 * 42 + 42)


@pytest.mark.parametrize("shape", [{"width": 0}, {"width": float("inf")}, {"extra_layers": -1}])
def test_impossible_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"must be positive and finite, and extra_layers=-?\d+ at least 0"):
        models.lenet(seed=0, **shape)


def test_weights_follow_from_the_seed_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    first, same, other = (models.lenet(seed=seed)[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_training_is_remembered_and_repeatable(tmp_path, monkeypatch):
    monkeypatch.setenv("ZONB_CACHE", str(tmp_path / "one"))
    first = models.trained_lenet(n_train=128, epochs=2)
    (stored,) = (tmp_path / "one").glob("*.safetensors")
    written = stored.stat().st_mtime_ns
    again = models.trained_lenet(n_train=128, epochs=2)
    assert stored.stat().st_mtime_ns == written
    monkeypatch.setenv("ZONB_CACHE", str(tmp_path / "two"))
    fresh = models.trained_lenet(n_train=128, epochs=2)
    for a, b, c in zip(first.parameters(), again.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    models.trained_lenet(n_train=128, epochs=2, seed=1)
    assert len(list((tmp_path / "two").glob("*.safetensors"))) == 2
    models.trained_lenet(n_train=128, epochs=2, width=0.5)
    assert len(list((tmp_path / "two").glob("*.safetensors"))) == 3


def test_weights_follow_the_code_that_prepares_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("ZONB_CACHE", str(tmp_path))
    models.trained_lenet(n_train=64, epochs=1)
    edited = tmp_path / "data.py"
    edited.write_text("# another normalisation")
    monkeypatch.setattr(models, "_SOURCES", (*models._SOURCES, edited))
    models.trained_lenet(n_train=64, epochs=1)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_training_does_not_depend_on_the_number_of_threads(tmp_path, monkeypatch, set_threads):
    weights = []
    for count in (1, 2):
        monkeypatch.setenv("ZONB_CACHE", str(tmp_path / str(count)))
        set_threads(count)
        weights.append(models.trained_lenet(n_train=128, epochs=1)[0].weight)
        assert torch.get_num_threads() == count
    assert torch.equal(*weights)


def test_training_lowers_the_error(tmp_path, monkeypatch):
    monkeypatch.setenv("ZONB_CACHE", str(tmp_path))
    digits = data.load("mnist", split="test")
    x, labels = data.mnist_inputs(digits.images), torch.from_numpy(digits.labels)
    untrained = models.accuracy(models.trained_lenet(n_train=2000, epochs=0), x, labels)
    trained = models.accuracy(models.trained_lenet(n_train=2000, epochs=15), x, labels)
    chance = np.sqrt(0.1 * 0.9 / 1000)
    assert untrained < 0.3 and trained > untrained + 10 * chance


@pytest.mark.parametrize("given", [{"n_train": 0}, {"n_train": 3001}, {"epochs": -1}])
def test_impossible_training_is_refused(given):
    with pytest.raises(ValueError, match=r"n_train=.* must be in 1\.\.3000"):
        models.trained_lenet(**given)


def test_mlp_has_the_papers_parameters_and_no_relu_at_the_end():
    for sizes, count in (((64, 10, 5, 1), 711), ((2, 5, 5, 1), 51)):
        model = models.mlp(sizes, seed=0)
        assert sum(p.numel() for p in model.parameters()) == count
        assert isinstance(model[-1], torch.nn.Linear) and model(torch.ones(3, sizes[0])).shape == (3, 1)
    assert torch.equal(models.mlp(seed=1)[0].weight, models.mlp(seed=1)[0].weight)
    for sizes in ((64,), (64, 0, 1)):
        with pytest.raises(ValueError, match="at least two layers"):
            models.mlp(sizes, seed=0)


def test_the_lenet_computes_what_the_paper_draws():
    model, x = models.lenet(seed=2).double(), torch.rand(2, 1, 28, 28, generator=directions.generator(0)).double()
    w = list(model.parameters())
    h = F.avg_pool2d(torch.tanh(F.conv2d(x, w[0], w[1], padding=2)), 2)
    h = F.avg_pool2d(torch.tanh(F.conv2d(h, w[2], w[3])), 2).flatten(1)
    for k in (4, 6):
        h = torch.tanh(h @ w[k].T + w[k + 1])
    torch.testing.assert_close(model(x), h @ w[8].T + w[9])


def test_the_mlp_has_rectifiers_between_its_layers():
    model, x = models.mlp((4, 3, 2, 1), seed=0), torch.randn(9, 4, generator=directions.generator(0))
    w = list(model.parameters())
    for k in (0, 2):
        x = (x @ w[k].T + w[k + 1]).clamp(min=0)
    torch.testing.assert_close(model(torch.randn(9, 4, generator=directions.generator(0))), x @ w[4].T + w[5])


def test_training_is_the_twins_and_no_neighbours():
    x = torch.randn(150, 9, generator=directions.generator(0), dtype=torch.float64)
    labels, order, batches = torch.arange(150) % 10, directions.generator(3), []
    for _ in range(2):
        shuffled = torch.randperm(150, generator=order)
        batches += [shuffled[:64], shuffled[64:128], shuffled[128:]]
    start, model = models.mlp((9, 8, 10), seed=5).double(), models.mlp((9, 8, 10), seed=5).double()
    models._train(model, x, labels, 2, directions.generator(3))
    moved = parameters_to_vector(model.parameters()) - parameters_to_vector(start.parameters())

    def distance(batches=batches, **other):
        twin = parameters_to_vector(reference.sgd(start, x, labels, batches, **other).values())
        return (parameters_to_vector(model.parameters()) - twin).norm() / moved.norm()

    assert distance() < 1e-10
    for other in ({"rate": 0.9e-3}, {"momentum": 0.8}, {"decay": 0.0}, {"decay": 1e-3}, {"batches": batches[::-1]}):
        assert distance(**other) > 1e-6, other


def test_training_takes_the_first_images_with_their_labels_in_an_order_of_the_seed(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setenv("ZONB_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "_train", lambda *given: seen.append(given))
    model = models.trained_lenet(n_train=70, epochs=4, seed=3, width=0.5)
    (given, x, labels, epochs, order), digits = seen[0], data.load("mnist")
    assert given is model and epochs == 4 and torch.equal(x, data.mnist_inputs(digits.images[:70]))
    assert labels.tolist() == digits.labels[:70].tolist()
    assert order.initial_seed() == directions.generator(3, 1).initial_seed()
    assert torch.equal(model[0].weight, models.lenet(seed=3, width=0.5)[0].weight)


def test_accuracy_is_the_share_of_largest_logits_that_are_right():
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 0.0], [0.0, 1.0, 2.0], [1.0, 2.0, 0.0]])
    assert models.accuracy(torch.nn.Identity(), logits, torch.tensor([1, 0, 2, 0])) == 0.75
