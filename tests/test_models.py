import numpy as np
import pytest
import torch

from zonb import data, models


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
